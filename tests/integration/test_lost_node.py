"""A node that will not come back: it holds nothing up, its identity ends at once, and it returns as a new node only."""

from __future__ import annotations

from typing import Any

import pytest

from onehost.broker_config import apply, routing
from onehost.broker_config.permissions import TOPOLOGY_USER
from onehost.models import settings
from onehost.models.errors import Refused
from onehost.producer import EventFilter, nodes

from .conftest import Cluster, wait_until
from .manager import Store

HASH = "$6$" + "a" * 16 + "$" + "b" * 86


def fence(cluster: Cluster) -> None:
    """What the command does after the wish."""
    apply.synchronise(cluster.settings, nodes.hashes(cluster.onehost.engine))


def api(cluster: Cluster, rabbitmq: Any, path: str) -> Any:
    password = settings.read_secret(cluster.settings.secrets / TOPOLOGY_USER)
    return rabbitmq.api(path, TOPOLOGY_USER, password)


def users(cluster: Cluster, rabbitmq: Any) -> set[str]:
    return {user["name"] for user in api(cluster, rabbitmq, "users")}


def queues(cluster: Cluster, rabbitmq: Any) -> set[str]:
    return {queue["name"] for queue in api(cluster, rabbitmq, f"queues/{routing.VHOST}")}


def test_a_lost_node_holds_nothing_up_and_comes_back_as_a_new_one(cluster: Cluster, rabbitmq: Any) -> None:
    onehost = cluster.onehost
    first = onehost.wait(onehost.account_create("alice", domain="alice.example", password_hash=HASH))
    assert first["state"] == "applied"
    worker = cluster.workers["web3"]
    cluster.recorders["web3"]["account"].fail = lambda entry: (_ for _ in ()).throw(RuntimeError("stuck"))
    cluster.stop_worker("web3")
    job = onehost.account_delete("alice")
    wait_until(
        lambda: {n["node"] for n in onehost.job(job.job_id)["nodes"] if n["state"] == "applied"} >= {"web1", "web2"}
    )
    old_id = onehost.get("node", "web3")["id"]

    onehost.node_remove("web3", lost=True)
    fence(cluster)
    assert routing.node_user("web3") not in users(cluster, rabbitmq) and routing.node_queue("web3") not in queues(
        cluster, rabbitmq
    )
    ended = onehost.wait(job)
    assert {node["node"]: node["state"] for node in ended["nodes"]}["web3"] == "lost" and ended["state"] == "partial"
    taken = onehost.wait(onehost.account_create("bob", domain="alice.example", password_hash=HASH))
    assert taken["state"] == "applied", "the claim it held up is free"

    cluster.start_worker("web3")  # with the old password
    wait_until(lambda: "web3" in cluster.workers and "refused" in cluster.workers["web3"]._status()["state"].lower())
    cluster.stop_worker("web3")

    cluster.recorders["web3"]["account"].fail = lambda entry: None
    cluster.add_node("web3", ["web", "ssh"], "10.0.0.13")
    assert onehost.get("node", "web3")["id"] != old_id
    cluster.start_worker("web3")
    # Its old ledger still holds alice; the store knows her as removed, so she is no orphan, and is left alone.
    wait_until(lambda: {n["node"]: n["state"] for n in onehost.get("account", "bob")["nodes"]}.get("web3") == "applied")
    assert worker is not cluster.workers["web3"] and onehost.orphans() == []


def test_a_connected_node_is_cut_off_at_once(cluster: Cluster, rabbitmq: Any) -> None:
    wait_until(lambda: "web2" in cluster.workers and cluster.workers["web2"].sync.synced.is_set())
    cluster.onehost.node_remove("web2", lost=True)
    fence(cluster)
    user = routing.node_user("web2")
    wait_until(lambda: not [each for each in api(cluster, rabbitmq, "connections") if each["user"] == user])
    wait_until(lambda: "refused" in cluster.workers["web2"]._status()["state"].lower())


def test_the_relay_fences_what_was_removed_while_the_broker_was_away(cluster: Cluster, rabbitmq: Any) -> None:
    cluster.onehost.node_remove("web1", lost=True)  # and nobody told the broker
    wait_until(lambda: routing.node_user("web1") not in users(cluster, rabbitmq), 40)
    wait_until(lambda: [*cluster.onehost.events(EventFilter(kind="broker.repair"))])


def test_the_last_active_real_server_may_be_lost(store: Store) -> None:
    onehost = store.onehost
    onehost.node_add("d1", "10.0.0.9", ["director"])
    onehost.apply("virtual_service", "web", {"address": "10.0.0.100", "port": 80, "role": "web"})
    onehost.do("node", "w2", "cordon")
    with pytest.raises(Refused, match="last active real server") as refusal:
        onehost.node_remove("w1")
    assert "onehost node remove w1 --lost" in refusal.value.hint
    store.ack("w1", 99, 1, number=7)
    onehost.node_remove("w1", lost=True, reason="burnt")
    assert [each["name"] for each in onehost.list("node")] == ["d1", "s1", "w2"]
    gaps = next(iter(onehost.events(EventFilter(kind="acknowledgement.lost"))))["detail"]
    assert gaps["numbers"] == [[2, 6]]
