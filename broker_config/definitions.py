"""The definitions document that RabbitMQ loads at boot: a wiped broker comes back with users, rights, roads and queues.

Named by `load_definitions` in rabbitmq.conf. It holds password hashes, so only root and the broker's group may read it.
"""

from __future__ import annotations

import grp
import json
from pathlib import Path
from typing import Any

from .atomic_file import write_atomically
from .routing import VHOST
from .state import Kind, State

#: The group of Debian's package. A broker that runs otherwise runs as the file's owner.
BROKER_GROUP = "rabbitmq"


def document(state: State) -> dict[str, Any]:
    """The definitions document of a desired state."""
    roads = ((Kind.EXCHANGE, "exchanges"), (Kind.QUEUE, "queues"), (Kind.POLICY, "policies"))
    return {
        "vhosts": [{"name": name} for name in state.of(Kind.VHOST)],
        "users": [_user(state, name) for name in state.of(Kind.USER)],
        "permissions": [dict(content) for content in state.of(Kind.PERMISSION).values()],
        "topic_permissions": [dict(content) for content in state.of(Kind.TOPIC_PERMISSION).values()],
        **{
            section: [{"name": name, "vhost": VHOST, **content} for name, content in state.of(kind).items()]
            for kind, section in roads
        },
        "bindings": [{"vhost": VHOST, **content} for content in state.of(Kind.BINDING).values()],
    }


def render(state: State) -> bytes:
    """The content of the definitions file; equal states give equal bytes."""
    return json.dumps(document(state), indent=1, sort_keys=True).encode() + b"\n"


def is_current(path: Path, content: bytes) -> bool:
    """Whether the file says exactly this already. Raises OSError if it cannot be read."""
    return path.exists() and path.read_bytes() == content


def write(path: Path, content: bytes) -> None:
    """Replace the definitions file, readable by the broker's group. Raises OSError."""
    write_atomically(path, content, mode=0o640, group=_broker_group())


def _user(state: State, name: str) -> dict[str, Any]:
    limits = {key: value for key, value in state.of(Kind.LIMITS).get(name, {}).items() if key != "user"}
    credential = state.of(Kind.CREDENTIAL)[name]
    return {
        "name": name,
        "tags": state.of(Kind.USER)[name]["tags"],
        "password_hash": credential["password_hash"],
        "hashing_algorithm": credential["hashing_algorithm"],
        "limits": limits,
    }


def _broker_group() -> int | None:
    try:
        return grp.getgrnam(BROKER_GROUP).gr_gid
    except KeyError:
        return None
