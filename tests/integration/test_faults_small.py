"""Faults on a little cluster with a real broker: whatever is lost, everything wanted is applied with nobody's help."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onehost.broker_config import routing
from onehost.broker_config.consumer import Delivery
from onehost.broker_config.credentials import secret
from onehost.broker_config.management import Management
from onehost.broker_config.publisher import Letter, Publisher
from onehost.producer import EventFilter

from ..services.rabbitmq import private_rabbitmq
from .agreement import agree, is_settled
from .conftest import Cluster, Process, running, wait_until

#: Silence after which a node is offline in these tests, in seconds; its beats come each half second.
OFFLINE_SECONDS = 2.0


@pytest.fixture
def small(rabbitmq: Any, tmp_path: Path) -> Iterator[Cluster]:
    """A running cluster whose silent nodes are soon offline."""
    with running(rabbitmq, f"sqlite:///{tmp_path}/store.db", tmp_path, offline_after_seconds=OFFLINE_SECONDS) as made:
        yield made


# ---- the broker


def test_a_broker_that_loses_everything_under_load(store_url: str, tmp_path: Path) -> None:
    with private_rabbitmq() as broker, running(broker, store_url, tmp_path) as cluster:
        load = threading.Thread(target=work, args=(cluster,))
        load.start()
        wait_until(lambda: len(cluster.recorders["web1"]["account"].changes) >= 5)
        broker.stop(signal.SIGKILL)
        broker.wipe()
        time.sleep(0.5)
        # As `onehost broker apply` has written them: what the broker of a real manager loads at boot.
        broker.extra_configuration = [f"load_definitions = {cluster.settings.definitions}"]
        broker.start()
        load.join(60)
        wait_until(lambda: is_settled(cluster), 60)
        agree(cluster)
        states = {job["state"] for job in cluster.onehost.jobs(limit=1000)}
        assert states <= {"applied", "superseded"}, states


def work(cluster: Cluster) -> None:
    """Some seconds of wishes."""
    chance = random.Random(7)
    for number in range(40):
        cluster.onehost.account_create(f"user{number}", domain=f"user{number}.example.com")
        cluster.onehost.account_set(f"user{chance.randrange(number + 1)}", document_root=f"web{number}")
        time.sleep(0.1)
    for number in range(0, 40, 4):
        cluster.onehost.account_delete(f"user{number}")


def test_a_queue_that_was_deleted_is_repaired(small: Cluster) -> None:
    api = Management(small.settings.management, "topology", secret(small.settings.secrets / "topology"))
    small.onehost.wait(small.onehost.account_create("alice"))
    api.delete("queues", "onehost", routing.node_queue("web1"))
    wait_until(lambda: not has_queue(api, "web1"))
    small.onehost.account_set("alice", php=False)
    wait_until(lambda: is_settled(small), 40)
    agree(small)
    (repair,) = small.onehost.events(EventFilter(kind="broker.repair"))
    assert "312 NO_ROUTE" in repair["detail"]["because"] and repair["detail"]["steps"]


def has_queue(api: Management, node: str) -> bool:
    return routing.node_queue(node) in {queue["name"] for queue in api.get("queues", "onehost")}


def test_letters_that_come_again_and_in_any_order_change_nothing(cluster: Cluster) -> None:
    heard: list[Delivery] = []
    wait_until(lambda: "web1" in cluster.workers)
    receiver = cluster.workers["web1"].receiver
    store = receiver.consumer._store
    receiver.consumer._store = lambda batch: (heard.extend(batch), store(batch))[1]
    for number in range(6):
        cluster.onehost.account_create(f"user{number}", domain=f"user{number}.example.com")
    for number in range(6):
        cluster.onehost.account_set(f"user{number}", document_root="other")
    cluster.onehost.account_delete("user0")
    cluster.onehost.account_create("user0")
    wait_until(lambda: is_settled(cluster))
    before = snapshot(cluster)
    again = [Letter(f"again{n}", each.routing_key, each.body) for n, each in enumerate(heard * 3)]
    random.Random(7).shuffle(again)
    publisher = Publisher(cluster.settings.as_user("relay"), routing.JOBS)
    count = len(heard)
    assert len(publisher.send(again).sent) == len(again) > 20
    publisher.close()
    wait_until(lambda: len(heard) >= count + len(again))
    mark = cluster.onehost.account_create("last")
    cluster.onehost.wait(mark)
    cluster.onehost.wait(cluster.onehost.account_delete("last"))
    wait_until(lambda: is_settled(cluster))
    assert snapshot(cluster) == before
    agree(cluster)


def snapshot(cluster: Cluster) -> dict[str, Any]:
    return {
        name: (dict(recorders["account"].state), [c for c in recorders["account"].changes if c[0] in old(cluster)])
        for name, recorders in cluster.recorders.items()
    }


def old(cluster: Cluster) -> set[int]:
    return {row["id"] for row in cluster.onehost.list("account") if row["name"].startswith("user")}


def test_a_stranger_on_the_bus_is_not_obeyed(small: Cluster) -> None:
    """The topology user may publish anywhere; still only the relay's letters are taken."""
    publisher = Publisher(small.settings.as_user("topology"), routing.JOBS)
    report = publisher.send(
        [Letter("m", routing.job_key("account", "web1", "apply"), b'{"form":"hail","node":"web1"}')]
    )
    publisher.close()
    assert report.sent or report.code == 403
    small.onehost.wait(small.onehost.account_create("alice"))
    agree(small)


# ---- the store


def test_a_store_that_drops_every_connection(rabbitmq: Any, postgresql: Any, tmp_path: Path) -> None:
    import psycopg

    url = postgresql.new_database()
    with running(rabbitmq, url, tmp_path) as cluster:
        cluster.onehost.wait(cluster.onehost.account_create("alice"))
        name = url.partition("?")[0].rpartition("/")[2]
        with psycopg.connect(host=str(postgresql.socket_folder), user="postgres", autocommit=True) as connection:
            end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s"
            assert connection.execute(end, [name]).fetchone() > (1,)
        assert cluster.onehost.wait(cluster.onehost.account_set("alice", php=False))["state"] == "applied"
        assert all(process.thread.is_alive() for process in cluster.processes.values())
        agree(cluster)


# ---- nodes


def test_a_second_worker_on_one_ledger_waits_for_the_first(small: Cluster) -> None:
    small.onehost.wait(small.onehost.account_create("alice"))
    first, small_first = small.workers["web1"], small.worker_processes.pop("web1")
    small.start_worker("web1")
    time.sleep(0.7)
    assert small.workers["web1"] is first, "the second one has not come past the ledger's lock"
    small.onehost.wait(small.onehost.account_set("alice", php=False))
    small_first.stop()
    wait_until(lambda: small.workers["web1"] is not first)
    assert small.onehost.wait(small.onehost.account_set("alice", php=True))["state"] == "applied"
    agree(small)


def test_a_worker_that_waits_for_a_ledger_stops_at_once(small: Cluster) -> None:
    first = small.worker_processes.pop("web1")
    small.start_worker("web1")
    time.sleep(0.3)
    began = time.monotonic()
    waiting: Process = small.worker_processes.pop("web1")
    waiting.stop()
    assert time.monotonic() - began < 2
    small.worker_processes["web1"] = first


def test_a_worker_stops_within_a_moment(small: Cluster) -> None:
    for name in list(small.workers):
        began = time.monotonic()
        small.stop_worker(name)
        assert time.monotonic() - began < 2.0, name


def test_a_silent_node_is_named_and_waited_for_no_longer(small: Cluster) -> None:
    small.stop_worker("web3")
    began = time.monotonic()
    job = small.onehost.wait(small.onehost.account_create("alice"), seconds=20)
    assert time.monotonic() - began < OFFLINE_SECONDS + 4
    assert job["state"] == "running"
    (missing,) = [node for node in job["nodes"] if node["state"] != "applied"]
    assert (missing["node"], missing["state"], missing["node_state"]) == ("web3", "sent", "offline")
    assert missing["node_state_at"] is not None
    small.start_worker("web3")
    wait_until(lambda: small.onehost.job(job["id"])["state"] == "applied")
    wait_until(lambda: {node["state"] for node in small.onehost.status()["nodes"]} == {"online"})


def test_a_silent_storage_node_ends_the_wait_too(small: Cluster) -> None:
    small.stop_worker("store1")
    job = small.onehost.wait(small.onehost.account_create("alice"), seconds=20)
    assert [n["node"] for n in job["nodes"] if n["node_state"] == "offline"] == ["store1"]
    assert {n["state"] for n in job["nodes"] if n["node"] != "store1"} == {"waiting"}, "no home, no site"
    small.start_worker("store1")
    wait_until(lambda: small.onehost.job(job["id"])["state"] == "applied")


def test_a_removed_node_ends_running_jobs_as_lost(small: Cluster) -> None:
    small.stop_worker("web3")
    receipt = small.onehost.account_create("alice")
    wait_until(lambda: small.onehost.job(receipt.job_id)["applied"] == 3)
    small.onehost.remove("node", "web3")
    job = small.onehost.job(receipt.job_id)
    assert (job["state"], job["ended_at"] is not None) == ("partial", True)
    (lost,) = [node for node in job["nodes"] if node["state"] != "applied"]
    assert (lost["node"], lost["state"], lost["reason"]) == ("web3", "lost", "node web3 was removed")
    del small.recorders["web3"]
    wait_until(lambda: is_settled(small))


# ---- cancel


def test_cancel_tells_the_truth_about_what_had_not_begun(small: Cluster) -> None:
    small.stop_worker("store1")
    receipt = small.onehost.account_create("alice", domain="example.com")
    undo = small.onehost.cancel(receipt.job_id)
    small.start_worker("store1")
    assert small.onehost.wait(undo)["state"] == "applied"
    job = small.onehost.job(receipt.job_id)
    assert job["state"] == "cancelled" and {node["state"] for node in job["nodes"]} == {"cancelled"}
    assert small.recorders["web1"]["account"].changes == [] and small.onehost.list("account") == []
    assert small.onehost.wait(small.onehost.account_create("bob", domain="example.com"))["state"] == "applied"


def test_cancel_tells_the_truth_about_what_was_applied(small: Cluster) -> None:
    small.onehost.wait(small.onehost.account_create("alice"))
    small.stop_worker("web2")
    receipt = small.onehost.account_set("alice", php=False)
    wait_until(lambda: small.onehost.job(receipt.job_id)["applied"] == 3)
    undo = small.onehost.cancel(receipt.job_id)
    before = len(small.recorders["web2"]["account"].changes)
    small.start_worker("web2")
    assert small.onehost.wait(undo)["state"] == "applied"
    job = small.onehost.job(receipt.job_id)
    assert job["state"] == "cancelled"
    assert {node["node"]: node["state"] for node in job["nodes"]} == {
        "store1": "applied", "web1": "applied", "web2": "cancelled", "web3": "applied",
    }  # fmt: skip
    assert len(small.recorders["web2"]["account"].changes) == before, "it never saw what was taken back"
    agree(small)
