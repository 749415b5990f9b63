"""Rolling changes: batch after batch, halted by failures, never held up by who is offline."""

from __future__ import annotations

from typing import Any

import pytest

from onehost.models.errors import Invalid
from onehost.producer.batches import cut
from onehost.producer.membership import Members

from .manager import Store

WEB = [f"w{number}" for number in range(1, 6)]


@pytest.fixture
def wide(store: Store) -> Store:
    """Storage node s1, web nodes w1 to w5, account alice everywhere."""
    for number, name in enumerate(WEB[2:]):
        store.onehost.node_add(name, f"10.0.1.{number + 1}", ["web", "ssh"])
        store.say(store.beat(name))
        store.ack(name, store.id("node", name), 1)
    store.ack_all(store.onehost.account_create("alice"), "s1", *WEB)
    return store


def stages(store: Store, receipt: Any) -> dict[str, int]:
    return {node["node"]: node["stage"] for node in store.job(receipt.job_id)["nodes"]}


def opened(store: Store, receipt: Any) -> set[str]:
    return {node["node"] for node in store.job(receipt.job_id)["nodes"] if node["opened_at"]}


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [("1", [1] * 5), ("2", [2, 2, 1]), ("5", [5]), ("9", [5]), ("25%", [2, 2, 1]), ("1%", [1] * 5), ("100%", [5])],
)
def test_sizes(batch: str, sizes: list[int]) -> None:
    members = Members({10: 0, **dict.fromkeys(range(1, 6), 1)}, [True, False])
    made = cut(members, batch, {})
    assert made.waits_for_all == [True] + [False] * len(sizes) and made.stage_of[10] == 0
    assert [list(made.stage_of.values()).count(n + 1) for n in range(len(sizes))] == sizes


def test_no_nodes_at_all_is_one_stage() -> None:
    assert cut(Members({}, [True, False]), "2", {}) == Members({}, [True, False])


@pytest.mark.parametrize("batch", ["0", "-1", "101%", "0%", "half", "2.5", "", "9999999"])
def test_no_sizes(store: Store, batch: str) -> None:
    with pytest.raises(Invalid, match="batch"):
        store.onehost.account_create("bob", batch=batch)
    with pytest.raises(Invalid, match="max_fail"):
        store.onehost.account_create("bob", max_fail=-1)


def test_a_batch_opens_when_the_one_before_is_final(wide: Store) -> None:
    change = wide.onehost.account_set("alice", document_root="new", batch="2")
    assert stages(wide, change) == {"s1": 1, "w1": 2, "w2": 2, "w3": 3, "w4": 3, "w5": 4}
    wide.ack_all(change, "s1")
    assert opened(wide, change) == {"s1", "w1", "w2"}
    wide.ack_all(change, "w1")
    assert opened(wide, change) == {"s1", "w1", "w2"}
    wide.ack_all(change, "w2")
    assert opened(wide, change) == {"s1", "w1", "w2", "w3", "w4"}
    wide.ack_all(change, "w3", "w4")
    wide.ack_all(change, "w5")
    assert wide.job(change.job_id)["state"] == "applied"


def test_offline_nodes_hold_no_batch_up(wide: Store) -> None:
    wide.node_state("w1", "offline")
    change = wide.onehost.account_set("alice", document_root="new", batch="1")
    wide.ack_all(change, "s1")
    assert opened(wide, change) == {"s1", "w1", "w2"}


def test_too_many_failures_halt_it_and_say_so(wide: Store) -> None:
    change = wide.onehost.account_set("alice", document_root="new", batch="40%", max_fail=1)
    wide.ack_all(change, "s1")
    wide.ack("w1", change.resource_id, change.generation, "failed", reason="disk full")
    wide.ack_all(change, "w2")
    assert opened(wide, change) >= {"w3", "w4"}, "one may fail"
    wide.ack("w3", change.resource_id, change.generation, "failed", reason="disk full")
    wide.ack_all(change, "w4")
    job = wide.job(change.job_id)
    assert job["state"] == "halted" and wide.targets(change.job_id)["w5"] == "halted"
    assert job["nodes"][-1]["reason"] == "2 failed, more than 1 (--max-fail); one of them: disk full"
    assert wide.placements(change.resource_id)["w5"].wanted == 1


def test_a_node_that_comes_back_late_and_fails_counts_too(wide: Store) -> None:
    wide.node_state("w1", "offline")
    change = wide.onehost.account_set("alice", document_root="new", batch="2")
    wide.ack_all(change, "s1")
    wide.ack_all(change, "w2")
    assert opened(wide, change) == {"s1", "w1", "w2", "w3", "w4"}
    wide.ack("w1", change.resource_id, change.generation, "failed", reason="disk full")
    assert wide.targets(change.job_id)["w5"] == "halted"
    wide.ack_all(change, "w3", "w4")
    assert wide.job(change.job_id)["state"] == "halted"


def test_with_batches_the_first_failure_halts_unless_said_otherwise(wide: Store) -> None:
    change = wide.onehost.account_set("alice", php=False, batch="1")
    nodes = sorted(wide.job(change.job_id)["nodes"], key=lambda node: node["stage"])
    wide.ack(nodes[0]["node"], change.resource_id, change.generation, "failed", reason="no")
    assert wide.job(change.job_id)["state"] == "halted" and wide.job(change.job_id)["max_fail"] == 0
    assert [node["state"] for node in wide.job(change.job_id)["nodes"]].count("halted") == 5
    plain = wide.onehost.account_set("alice", php=True)
    assert wide.job(plain.job_id)["max_fail"] is None


@pytest.mark.parametrize("batch", ["2", None])
def test_a_node_that_joins_comes_with_the_last_batch(wide: Store, batch: str | None) -> None:
    change = wide.onehost.account_set("alice", document_root="new", batch=batch)
    wide.onehost.node_add("w9", "10.0.2.1", ["web", "ssh"])
    assert stages(wide, change)["w9"] == stages(wide, change)["w5"]
    assert wide.placements(change.resource_id)["w9"].wanted == 0


def test_a_node_that_joins_a_change_of_all_nodes_at_once_is_given_it_at_once(wide: Store) -> None:
    change = wide.onehost.account_set("alice", php=False)
    wide.onehost.node_add("w9", "10.0.2.1", ["web", "ssh"])
    assert wide.placements(change.resource_id)["w9"].wanted == change.generation
    wide.ack_all(change, "s1", *WEB)
    assert wide.job(change.job_id)["state"] == "applied"


def test_a_removal_in_batches_ends_with_the_storage_node(wide: Store) -> None:
    gone = wide.onehost.account_delete("alice", batch="3")
    assert stages(wide, gone) == {"w1": 1, "w2": 1, "w3": 1, "w4": 2, "w5": 2, "s1": 3}


def test_retry_of_the_rest_may_be_rolling_too(wide: Store) -> None:
    change = wide.onehost.account_set("alice", document_root="new")
    wide.ack("s1", change.resource_id, change.generation, "failed", reason="no")
    again = wide.onehost.retry(change.job_id or 0, batch="2")
    assert max(stages(wide, again).values()) > 1
