"""Rights as patterns: what each user may touch, and nothing that merely looks alike."""

from __future__ import annotations

import re

import pytest

from onehost.broker_config.permissions import NOTHING, users
from onehost.models.errors import Invalid

ALL = {user.name: user for user in users(["web1", "a-b"])}
NAMES = [
    "onehost.jobs",
    "onehost.events",
    "onehost.audit",
    "onehost.beat",
    "onehost.dead",
    "onehost.node.web1",
    "onehost.node.web11",
    "onehost.node.a-b",
    "onehost.answer.x",
    "xonehost.events",
    "onehostxevents",
    "amq.topic",
    "",
]


def allowed(pattern: str) -> set[str]:
    return {name for name in NAMES if re.search(pattern, name)} - ({""} if pattern == NOTHING else set())


@pytest.mark.parametrize(
    ("user", "configure", "write", "read"),
    [
        ("node-web1", set(), {"onehost.events"}, {"onehost.node.web1"}),
        ("node-a-b", set(), {"onehost.events"}, {"onehost.node.a-b"}),
        ("relay", set(), {"onehost.jobs"}, set()),
        ("audit", set(), set(), {"onehost.audit", "onehost.beat", "onehost.dead"}),
        ("ask", {"onehost.answer.x"}, {"onehost.jobs", "onehost.answer.x"}, {"onehost.events", "onehost.answer.x"}),
    ],
)
def test_each_user_reaches_exactly_this(user: str, configure: set[str], write: set[str], read: set[str]) -> None:
    rights = ALL[user]
    assert (allowed(rights.configure), allowed(rights.write), allowed(rights.read)) == (configure, write, read)


def test_a_node_writes_only_keys_of_its_own() -> None:
    (topic,) = ALL["node-web1"].topics
    assert topic.exchange == "onehost.events"
    keys = ["ack.web1.account", "hello.web1.-", "ack.web11.account", "ack.web2.x", "x.ack.web1.y", "ack.web1", ".web1."]
    assert [key for key in keys if re.search(topic.write, key)] == ["ack.web1.account", "hello.web1.-"]
    assert all(ALL[name].max_connections for name in ("node-web1", "node-a-b"))


def test_only_topology_is_an_administrator() -> None:
    assert [user.name for user in ALL.values() if user.tags] == ["topology"]


def test_a_name_that_would_widen_a_pattern_is_refused() -> None:
    with pytest.raises(Invalid):
        users(["web1|web2"])
