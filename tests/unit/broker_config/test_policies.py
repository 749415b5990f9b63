"""Policies: rendered for the broker, limits on every queue, each queue under exactly one."""

from __future__ import annotations

import re

import pytest

from onehost.broker_config.policies import Version, policies, version_of
from onehost.broker_config.topology import topology
from onehost.models.errors import Refused

VERSIONS = [(3, 10), (3, 11), (3, 12), (3, 13), (4, 0), (4, 1), (4, 3)]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_queue_has_exactly_one_policy(version: Version) -> None:
    for queue in topology(["web1", "audit"]).queues:
        fitting = [policy for policy in policies(version) if re.search(policy.pattern, queue.name)]
        assert len(fitting) == 1, queue.name
        assert queue.arguments["x-queue-type"] == "quorum"
        assert fitting[0].apply_to == ("queues" if version < (4, 0) else "quorum_queues")
        assert "delivery-limit" in fitting[0].definition


@pytest.mark.parametrize("version", VERSIONS)
def test_dead_letters_never_loop_and_work_never_vanishes(version: Version) -> None:
    by_name = {policy.name: policy.definition for policy in policies(version)}
    assert "dead-letter-exchange" not in by_name["onehost.dead"]
    for name in ("onehost.node", "onehost.audit"):
        assert by_name[name]["dead-letter-exchange"] == "onehost.dead"
        assert (by_name[name]["dead-letter-strategy"], by_name[name]["overflow"]) == ("at-least-once", "reject-publish")
        assert by_name[name]["delivery-limit"] == 100


def test_versions_are_read_and_old_ones_refused() -> None:
    assert version_of("3.10.8") == (3, 10)
    assert version_of("4.0.5-1") == (4, 0)
    for text in ("3.9.27", "", "x"):
        with pytest.raises(Refused):
            version_of(text)
