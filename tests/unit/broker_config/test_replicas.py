"""Which replicas a cluster of brokers lacks."""

from __future__ import annotations

from typing import Any

import pytest

from onehost.broker_config.replicas import missing_replicas
from onehost.broker_config.state import Kind, State

BROKERS = ["a", "b", "c", "d"]


def lacks(brokers: list[str], kind: str = "quorum", **queue: Any) -> list[str]:
    found = {"arguments": {"x-queue-type": kind}, **queue}
    steps = missing_replicas(State({Kind.QUEUE: {"onehost.audit": found}}), ["onehost.audit"], brokers)
    assert all(step.content["queue"] == "onehost.audit" for step in steps)
    return [step.content["broker"] for step in steps]


@pytest.mark.parametrize(
    ("members", "brokers", "lacking"),
    [
        (["a"], ["a"], []),
        (["a"], ["a", "b"], ["b"]),
        (["b"], BROKERS, ["a", "c"]),
        (["a", "b", "c"], BROKERS, []),
        # One that is down still counts: it will be back, and removing it is a person's decision.
        (["a", "gone", "c"], BROKERS, []),
        (["a", "gone"], ["a", "b"], ["b"]),
        (["a", "b", "c", "d", "e"], BROKERS, []),
    ],
)
def test_three_replicas_or_as_many_as_there_are_brokers(
    members: list[str], brokers: list[str], lacking: list[str]
) -> None:
    assert lacks(brokers, members=members) == lacking


def test_what_is_no_quorum_queue_or_not_known_yet_is_left_alone() -> None:
    assert lacks(BROKERS, kind="classic", members=["a"]) == []
    assert lacks(BROKERS) == []
