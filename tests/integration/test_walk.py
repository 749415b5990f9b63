"""The walk of one job: from a panel through a real broker to four workers and back into the audit store."""

from __future__ import annotations

from typing import Any

from onehost.producer import EventFilter
from onehost.producer.passwords import hashed

from .conftest import Cluster, wait_until


def test_an_account_reaches_every_node_and_the_audit_store(cluster: Cluster) -> None:
    receipt = cluster.onehost.account_create("alice", domain="alice.example.com", password="s3cret-words")
    job = cluster.onehost.wait(receipt, seconds=20)
    assert job["state"] == "applied", job
    assert [(n["node"], n["stage"], n["state"]) for n in job["nodes"]] == [
        ("store1", 1, "applied"), ("web1", 2, "applied"), ("web2", 2, "applied"), ("web3", 2, "applied"),
    ]  # fmt: skip
    for name, recorders in cluster.recorders.items():
        held, spec = recorders["account"].state["alice"]
        assert held == receipt.resource_id, name
        assert spec["password_hash"].startswith("$6$") and spec["uid"] == 20000
    wait_until(lambda: cluster.onehost.status()["unsealed"] == 0)
    assert not cluster.onehost.verify().problem
    kinds = [event["kind"] for event in cluster.onehost.history("account", "alice")]
    assert kinds.count("acknowledgement") == 4 and "account.create" in kinds and "job.end" in kinds


def test_a_stopped_node_catches_up_with_one_apply(cluster: Cluster) -> None:
    cluster.onehost.wait(cluster.onehost.account_create("bob", domain="bob.example.com"))
    cluster.stop_worker("web2")
    for number in range(20):
        last = cluster.onehost.account_set("bob", document_root=f"web{number}")
    cluster.onehost.wait(last)  # by all that are there: what opens later would be an apply of its own
    before = len(cluster.recorders["web2"]["account"].changes)
    cluster.start_worker("web2")
    wait_until(lambda: all(n["state"] == "applied" for n in cluster.onehost.get("account", "bob")["nodes"]))
    assert len(cluster.recorders["web2"]["account"].changes) == before + 1


def test_a_lost_ledger_is_filled_again(cluster: Cluster) -> None:
    for number in range(5):
        receipt = cluster.onehost.account_create(f"user{number}")
    cluster.onehost.wait(receipt)
    wait_until(lambda: not cluster.onehost.jobs(state="running"))
    cluster.stop_worker("web1")
    for path in cluster.folder.glob("web1.ledger*"):
        path.unlink()
    changes = len(cluster.recorders["web1"]["account"].changes)
    cluster.start_worker("web1")
    wait_until(lambda: "web1" in cluster.workers and len(cluster.workers["web1"].ledger.entries("account")) == 5)
    wait_until(lambda: cluster.workers["web1"].ledger.counts()["open"] == 0)
    assert len(cluster.recorders["web1"]["account"].changes) == changes, "nothing differed, so nothing was changed"


def test_a_failed_node_is_named_and_retry_mends_it(cluster: Cluster) -> None:
    broken: list[bool] = [True]

    def fail(entry: Any) -> None:
        if broken and entry.name == "carol":
            raise RuntimeError("the disk is on fire")

    cluster.recorders["web3"]["account"].fail = fail
    job = cluster.onehost.wait(cluster.onehost.account_create("carol"))
    assert job["state"] == "partial"
    assert [n["reason"] for n in job["nodes"] if n["state"] == "failed"] == ["RuntimeError: the disk is on fire"]
    broken.clear()
    assert cluster.onehost.wait(cluster.onehost.retry(job["id"]))["state"] == "applied"


def test_removed_and_made_again_is_another_resource(cluster: Cluster) -> None:
    first = cluster.onehost.account_create("dave", domain="dave.example.com")
    cluster.onehost.account_delete("dave")
    second = cluster.onehost.account_create("dave", domain="dave.example.com")
    assert cluster.onehost.wait(second)["state"] == "applied"
    wait_until(lambda: not cluster.onehost.jobs(state="running"))
    assert first.resource_id != second.resource_id
    specs = [r["account"].state["dave"] for r in cluster.recorders.values()]
    assert {held for held, _ in specs} == {second.resource_id} and {spec["uid"] for _, spec in specs} == {20001}


def test_a_password_is_hashed_at_the_edge(cluster: Cluster) -> None:
    cluster.onehost.wait(cluster.onehost.account_create("eve", password="planted-password"))
    events = list(cluster.onehost.events(EventFilter(), None))
    assert "planted-password" not in str(events) and "$6$" not in str(events)
    assert hashed("planted-password") != hashed("planted-password"), "salted"


def test_a_dry_run_asks_the_nodes_and_changes_nothing(cluster: Cluster) -> None:
    wait_until(lambda: {node["state"] for node in cluster.onehost.status()["nodes"]} == {"online"})
    cluster.onehost.wait(cluster.onehost.account_create("fred", domain="fred.example.com"))
    before = [list(recorders["account"].changes) for recorders in cluster.recorders.values()]
    receipt, nodes = cluster.onehost.dry_run(cluster.onehost.wish("account", "fred", "suspend"))
    assert receipt.difference == {"suspended": "no -> yes"}
    assert set(nodes) == set(cluster.recorders)
    assert all(said["difference"] == {"it": "changed"} for said in nodes.values()), nodes
    assert [list(recorders["account"].changes) for recorders in cluster.recorders.values()] == before
    assert not cluster.onehost.get("account", "fred")["spec"]["suspended"]
    assert len(cluster.onehost.jobs(noun="account")) == 1
    cluster.stop_worker("web2")
    _, nodes = cluster.onehost.dry_run(cluster.onehost.wish("account", "fred", "suspend"))
    assert nodes["web2"]["reason"] in ("did not answer", "was not asked: it is not online")
    assert nodes["web1"]["difference"] == {"it": "changed"}
