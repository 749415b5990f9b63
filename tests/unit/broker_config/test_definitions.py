"""The definitions file: everything of the desired state, the same bytes each time, readable by the broker alone."""

from __future__ import annotations

import json
from pathlib import Path

from onehost.broker_config import definitions
from onehost.broker_config.desired import desired
from onehost.broker_config.state import Kind

STATE = desired(["web1"], {"node-web1": "h1", "relay": "h2"}, (3, 10))


def test_nothing_is_left_out() -> None:
    document = json.loads(definitions.render(STATE))
    sections = {
        "vhosts": Kind.VHOST,
        "users": Kind.USER,
        "permissions": Kind.PERMISSION,
        "topic_permissions": Kind.TOPIC_PERMISSION,
        "exchanges": Kind.EXCHANGE,
        "queues": Kind.QUEUE,
        "policies": Kind.POLICY,
        "bindings": Kind.BINDING,
    }
    assert {name: len(document[name]) for name in sections} == {
        name: len(STATE.of(kind)) for name, kind in sections.items()
    }
    users = {user["name"]: user for user in document["users"]}
    assert users["node-web1"]["password_hash"] == "h1"
    assert users["node-web1"]["limits"] == {"max-connections": 6, "max-channels": 16}
    assert users["audit"]["password_hash"] == ""


def test_equal_states_give_equal_bytes() -> None:
    assert definitions.render(desired(["b", "a"], {}, (4, 0))) == definitions.render(desired(["a", "b"], {}, (4, 0)))


def test_the_file_is_replaced_whole_and_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "definitions.json"
    assert not definitions.is_current(path, b"1")
    definitions.write(path, b"1")
    definitions.write(path, b"2")
    assert definitions.is_current(path, b"2")
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]
