"""What accounts send: totals of each node, told again and again, summed over the nodes by month."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from onehost.models.moment import now
from onehost.producer.traffic import month

from .conftest import Cluster, wait_until
from .manager import Store

MIB = 1 << 20


def sent(store: Store, node: str, *totals: list[int]) -> None:
    assert store.say(store.letter(node, {"form": "usage", "stored": [], "sent": list(totals), "at": 0})) == []


def used(store: Store) -> tuple[Any, ...]:
    (one,) = store.onehost.usage("alice")
    return (one["bytes_out"], *one["limits"]["bandwidth_mib"].values())


def made(store: Store) -> tuple[int, int, int]:
    """Alice on her nodes, with a plan; her id, this month and the last one."""
    store.onehost.do("plan", "gold", "create", {"bandwidth_mib": 5})
    receipt = store.onehost.do("account", "alice", "create", {"domain": None, "plan": "gold"})
    store.ack_all(receipt)
    return receipt.resource_id, month(now()), month(now().replace(day=1) - timedelta(days=1))


def test_totals_of_all_nodes_are_summed_and_never_fall(store: Store) -> None:
    alice, this, last = made(store)
    assert used(store) == (None, None, 5, "plan", False)
    sent(store, "w1", [alice, this, 2 * MIB], [alice, last, 9 * MIB])
    assert used(store) == (2 * MIB, 2, 5, "plan", False)
    sent(store, "w2", [alice, this, 3 * MIB])
    sent(store, "w2", [alice, this, 3 * MIB])  # repeated
    assert used(store) == (5 * MIB, 5, 5, "plan", False)
    sent(store, "w1", [alice, this, 1 * MIB])  # late
    assert used(store) == (5 * MIB, 5, 5, "plan", False)
    sent(store, "w1", [alice, this, 2 * MIB + 1])
    assert used(store) == (5 * MIB + 1, 6, 5, "plan", True)


def test_a_node_speaks_of_its_own_accounts_and_of_two_months_only(store: Store) -> None:
    alice, this, last = made(store)
    sent(store, "s1", [alice, this, MIB])
    sent(store, "w1", [999999, this, 1], [store.id("node", "w1"), this, 1], [alice, last - 1, 1], [alice, this + 1, 1])
    assert store.dump()["traffic"] == []
    wrong = store.letter("w1", {"form": "usage", "stored": [], "sent": [[alice, this, -1]], "at": 0})
    assert store.say(wrong) == [wrong]
    sent(store, "w1", [alice, this, 1])
    store.onehost.account_delete("alice")
    sent(store, "w1", [alice, this, 2])
    assert store.dump()["traffic"] == []


def test_an_earlier_worker_says_nothing_of_it(store: Store) -> None:
    alice, _, _ = made(store)
    assert store.say(store.letter("s1", {"form": "usage", "stored": [[alice, MIB]], "at": 0})) == []
    assert used(store)[0] is None and store.onehost.usage("alice")[0]["limits"]["storage_mib"]["used"] == 1


def test_what_a_node_has_sent_arrives(cluster: Cluster) -> None:
    receipt = cluster.onehost.account_create("alice")
    cluster.onehost.wait(receipt)
    name = next(name for name in cluster.workers if name.startswith("web"))
    body = {"stored": [], "sent": [[receipt.resource_id, month(now()), 9 * MIB]], "at": 0}
    cluster.workers[name].reporter.usage("sent", [body])
    wait_until(lambda: cluster.onehost.usage("alice")[0]["limits"]["bandwidth_mib"]["used"] == 9)
