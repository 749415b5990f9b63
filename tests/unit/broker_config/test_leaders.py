"""Which queues are asked whether anybody leads them, and how one is made anew."""

from __future__ import annotations

from typing import Any

import pytest

from onehost.broker_config import routing
from onehost.broker_config.desired import desired
from onehost.broker_config.leaders import made_anew, suspects
from onehost.broker_config.policies import OLDEST
from onehost.broker_config.state import Kind, State


@pytest.mark.parametrize(
    ("queue", "is_asked"),
    [
        ({"members": ["a"]}, True),
        ({"members": ["a", "b"]}, True),
        # The broker has numbers of it: its leader has told them.
        ({"members": ["a"], "messages": 0}, False),
        # The member that is down may bring the leader back.
        ({"members": ["a", "down"]}, False),
        ({"members": ["a"], "arguments": {}}, False),
    ],
)
def test_only_a_queue_that_nothing_is_known_of_is_asked(queue: dict[str, Any], is_asked: bool) -> None:
    found = {"arguments": {"x-queue-type": "quorum"}, **queue}
    observed = State({Kind.QUEUE: {"onehost.audit": found}})
    assert suspects(observed, ["onehost.audit"], ["a", "b"]) == ["onehost.audit"] * is_asked


def test_what_leads_to_a_queue_comes_after_it() -> None:
    wanted = desired(["web1", "web2"], {}, OLDEST)
    steps = list(made_anew(wanted, [routing.node_queue("web1")]))
    assert [str(step).partition(":")[0] for step in steps] == [
        "change queue onehost.node.web1",
        "create binding onehost.jobs -> onehost.node.web1",
    ]
    assert all(step.content for step in steps)
