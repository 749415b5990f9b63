"""Pause: nothing is sent, no round begins, it survives restarts of both sides, and resume goes on where it stood."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import delete, select

from onehost.models.errors import Conflict, NotFound
from onehost.models.store import Action, Pause, writing
from onehost.producer import EventFilter

from .conftest import Cluster, wait_until
from .manager import Store


def is_paused(cluster: Cluster, name: str) -> bool:
    """What the newest stored beat of a node says."""
    nodes = {node["name"]: node for node in cluster.onehost.status()["nodes"]}
    return bool(nodes[name]["beat"].get("paused"))


def rounds(cluster: Cluster) -> dict[str, int]:
    return {name: worker.executor.rounds for name, worker in cluster.workers.items()}


def test_pause_takes_hold_survives_restarts_and_resume_goes_on(cluster: Cluster) -> None:
    cluster.onehost.wait(cluster.onehost.account_create("alice"))
    began = time.monotonic()
    assert len(cluster.onehost.pause(reason="storage is failing")) == 4
    wait_until(lambda: all(is_paused(cluster, name) for name in cluster.recorders))
    print(f"every node paused after {time.monotonic() - began:.2f} s")
    still = rounds(cluster)
    waiting = cluster.onehost.account_create("bob")
    with pytest.raises(Conflict, match=r"paused already, by test"):
        cluster.onehost.pause()
    cluster.stop_worker("web1")
    cluster.start_worker("web1")
    cluster.restart_relay()
    wait_until(lambda: "web1" in cluster.workers and cluster.workers["web1"].executor.is_paused)
    time.sleep(1.0)  # a relay that did not know would have sent by now, a worker have run a round
    assert rounds(cluster) == still | {"web1": 0}
    assert [n["sent_at"] for n in cluster.onehost.job(waiting.job_id or 0)["nodes"]] == [None] * 4
    cluster.onehost.resume()
    assert cluster.onehost.wait(waiting, seconds=20)["state"] == "applied"
    wait_until(lambda: not any(is_paused(cluster, name) for name in cluster.recorders))
    kinds = [event["kind"] for event in cluster.onehost.events(EventFilter(actor="test"), None)]
    assert kinds.count("node.pause") == kinds.count("node.resume") == 1


def test_letters_that_arrive_are_stored_and_a_missed_brake_is_told_again(cluster: Cluster) -> None:
    cluster.onehost.wait(cluster.onehost.account_create("alice"))
    cluster.workers["web1"].ledger.brake.put(True)  # as if its `resume` had been lost
    cluster.workers["web1"].executor.wake()
    wait_until(lambda: not cluster.workers["web1"].ledger.brake.is_pulled)
    cluster.onehost.pause("web2")
    wait_until(lambda: is_paused(cluster, "web2"))
    with writing(cluster.onehost.engine) as connection:
        connection.execute(delete(Pause))  # as if the letter of a resume had been lost, too
    job = cluster.onehost.account_set("alice", php=False)
    assert cluster.onehost.wait(job, seconds=20)["state"] == "applied"


def test_one_node_is_passed_over_and_the_others_go_on(store: Store) -> None:
    store.onehost.pause("w1", reason="disk")
    receipt = store.onehost.account_create("alice")
    store.ack("s1", receipt.resource_id, 1)
    assert {letter.node for letter in store.letters()} == {"s1", "w2"}
    with pytest.raises(Conflict, match="paused already"):
        store.onehost.pause("w1")
    with pytest.raises(Conflict, match="not paused"):
        store.onehost.resume("w2")
    with pytest.raises(NotFound):
        store.onehost.pause("w9")
    store.onehost.pause()
    assert store.letters() == []
    store.onehost.resume("w1")
    assert store.letters() == [], "all are paused still"
    store.onehost.resume()
    assert {letter.node for letter in store.letters()} == {"s1", "w1", "w2"}
    with pytest.raises(Conflict, match="no node is paused"):
        store.onehost.resume()


def test_the_newest_word_about_a_brake_is_the_only_one_that_waits(store: Store) -> None:
    store.onehost.pause("w1")
    store.onehost.resume("w1")
    with writing(store.engine) as connection:
        rows = connection.execute(select(Action.body).where(Action.form == "pause")).scalars().all()
    assert len(rows) == 1 and b'"is_paused":false' in rows[0]


def test_a_removed_node_leaves_no_brake_behind(store: Store) -> None:
    store.onehost.pause("w2")
    store.onehost.remove("node", "w2")
    with writing(store.engine) as connection:
        assert connection.execute(select(Pause)).all() == []
