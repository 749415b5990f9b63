"""Actions: once on each node, soon or not at all, and the job says which node did what."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from onehost.models import wire
from onehost.models.errors import Invalid, NotFound, Permanent, Refused
from onehost.models.moment import now
from onehost.models.store import Action, Job, reading, writing
from onehost.producer import EventFilter, deadlines, waiting
from onehost.workers.actions import Performer
from onehost.workers.ledger import Ledger

from .conftest import Cluster, wait_until
from .manager import Store

HASH = "$6$" + "a" * 16 + "$" + "b" * 86


class Doer:
    """A reconciler that only counts what it is asked to do."""

    noun = "account"

    def __init__(self) -> None:
        self.did: list[tuple[str, str]] = []
        self.fails = False

    def act(self, verb: str, entry: Any, host: Any) -> str:
        self.did.append((verb, entry.name))
        if self.fails:
            raise Permanent("sshd is on strike")
        return "3 processes ended"


# ---- manager, broker and workers


def test_an_action_is_done_once_on_every_node_it_is_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    doers = {name: Doer() for name in cluster.recorders}
    for name, doer in doers.items():
        monkeypatch.setattr(type(cluster.recorders[name]["account"]), "act", None, raising=False)
        cluster.recorders[name]["account"].act = doer.act  # type: ignore[attr-defined]
    onehost = cluster.onehost
    onehost.wait(onehost.account_create("alice", password_hash=HASH))
    doers["web2"].fails = True
    job = onehost.wait(onehost.do("account", "alice", "logout", reason="asked by phone"))
    assert {node["node"]: node["state"] for node in job["nodes"]} == {
        "web1": "applied",
        "web2": "failed",
        "web3": "applied",
    }
    assert next(node["reason"] for node in job["nodes"] if node["node"] == "web2") == "sshd is on strike"
    assert job["state"] == "partial" and job["kind"] == "account.logout"
    assert {name: doer.did for name, doer in doers.items()} == {
        "store1": [], **{web: [("logout", "alice")] for web in ("web1", "web2", "web3")}
    }  # fmt: skip
    with pytest.raises(Refused, match="is an action"):
        onehost.retry(job["id"])
    # The account itself is untouched, and its own jobs can be tried again.
    assert {node["state"] for node in onehost.get("account", "alice")["nodes"]} == {"applied"}
    for name in ("web1", "web2", "web3"):
        cluster.stop_worker(name)
        cluster.start_worker(name)
    wait_until(lambda: all(name in cluster.workers and cluster.workers[name].sync.synced.is_set() for name in doers))
    assert sum(len(doer.did) for doer in doers.values()) == 3


def test_a_node_is_told_to_say_hello(cluster: Cluster) -> None:
    wait_until(lambda: len(cluster.workers) == 4 and all(w.sync.synced.is_set() for w in cluster.workers.values()))
    before = {name: worker.sync._hello for name, worker in cluster.workers.items()}
    job = cluster.onehost.wait(cluster.onehost.do("node", "web1", "sync"))
    assert job["state"] == "applied" and [node["node"] for node in job["nodes"]] == ["web1"]
    assert {name for name, worker in cluster.workers.items() if worker.sync._hello != before[name]} == {"web1"}


# ---- the manager alone


def beyond_deadline(store: Store, job_id: int) -> None:
    with writing(store.engine) as connection:
        connection.execute(update(Job).where(Job.id == job_id).values(deadline_at=now()))
        deadlines.expire(connection, now())


def test_what_no_node_answers_in_time_expires_and_names_the_nodes(store: Store) -> None:
    store.ack_all(store.onehost.account_create("alice", password_hash=HASH))
    receipt = store.onehost.do("account", "alice", "logout")
    assert store.targets(receipt.job_id) == {"w1": "waiting", "w2": "waiting"}
    ack = store.acked("w1", receipt.resource_id, 0, action=receipt.job_id)
    store.say(ack, ack)
    beyond_deadline(store, receipt.job_id or 0)
    job = store.job(receipt.job_id)
    assert (job["state"], job["applied"], job["closed"]) == ("expired", 1, 1)
    assert store.targets(receipt.job_id) == {"w1": "applied", "w2": "expired"}
    with reading(store.engine) as connection:
        assert connection.execute(select(func.count(Action.job_id))).scalar_one() == 0
    end = next(iter(store.onehost.events(EventFilter(kind="job.end", job_id=receipt.job_id))))
    assert end["detail"]["missing"] == ["w2"]
    store.ack("w2", receipt.resource_id, 0, action=receipt.job_id)
    late = next(iter(store.onehost.events(EventFilter(kind="acknowledgement", node="w2"))))
    assert late["outcome"] == "applied" and store.targets(receipt.job_id)["w2"] == "expired"


def test_an_acknowledgement_of_an_action_moves_no_placement_and_no_other_job(store: Store) -> None:
    made = store.onehost.account_create("alice", password_hash=HASH)
    with pytest.raises(Refused, match="on no node"):
        store.onehost.do("account", "alice", "logout")  # no stage but storage's is open
    store.ack_all(made)
    before = store.placements(made.resource_id)
    first, second = (store.onehost.do("account", "alice", "logout") for _ in range(2))
    for job_id, more in ((second.job_id, {}), (made.job_id, {}), (9999, {}), (first.job_id, {"incarnation": 5})):
        store.ack("w1", made.resource_id, 0, action=job_id, **more)
    assert store.placements(made.resource_id) == before
    assert store.targets(first.job_id)["w1"] == "waiting" and store.targets(second.job_id)["w1"] == "applied"
    outcomes = [e["outcome"] for e in store.onehost.events(EventFilter(kind="acknowledgement", node="w1"))][:4]
    assert outcomes == ["strange", "strange", "strange", "applied"]
    # A newer wish neither ends it nor is ended by it, and may be undone in spite of it.
    wish = store.onehost.account_set("alice", access="shell")
    store.onehost.do("account", "alice", "logout")
    assert store.targets(first.job_id)["w1"] == "waiting"
    store.onehost.cancel(wish.job_id or 0)
    assert store.onehost.get("account", "alice")["spec"]["access"] == "sftp"
    with pytest.raises(Refused, match="cannot be cancelled"):
        store.onehost.cancel(first.job_id or 0)


def test_a_letter_carries_the_time_that_is_left(store: Store) -> None:
    store.ack_all(store.onehost.account_create("alice", password_hash=HASH))
    receipt = store.onehost.do("account", "alice", "logout")
    with reading(store.engine) as connection:
        found = [each for each in waiting.find(connection).batch() if each.action_id and each.job_id]
    assert [each.letter.routing_key for each in found] == ["account.w1.logout", "account.w2.logout"]
    for each in found:
        letter = wire.decode(each.letter.body)
        assert letter.form == "action" and letter["job"] == receipt.job_id and 0 < letter["expires_seconds"] <= 60
        assert each.letter.expiration_ms is not None and each.letter.expiration_ms <= 60_000
    with writing(store.engine) as connection:
        connection.execute(update(Action).where(Action.job_id.is_not(None)).values(expires_at=now()))
    with reading(store.engine) as connection:
        assert not [each for each in waiting.find(connection).batch() if each.action_id and each.job_id]


def test_an_action_is_refused(store: Store) -> None:
    with pytest.raises(NotFound, match="no such account: alice"):
        store.onehost.do("account", "alice", "logout")
    store.ack_all(store.onehost.account_create("alice", password_hash=HASH))
    with pytest.raises(Invalid, match="takes no fields"):
        store.onehost.do("account", "alice", "logout", {"php": False})
    key = [store.onehost.do("account", "alice", "logout", idempotency_key="k").job_id for _ in range(2)]
    assert key[0] == key[1]


# ---- the worker alone


def action(job: int, seconds: float = 60.0, incarnation: int = 0) -> wire.Letter:
    body = {"form": "action", "node": "w1", "incarnation": incarnation, "job": job, "noun": "account", "id": 1,
            "name": "alice", "verb": "logout", "expires_seconds": seconds, "given": {}}  # fmt: skip
    return wire.Letter("action", "w1", body)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    made = Ledger(tmp_path / "ledger.db")
    spec = {"form": "apply", "node": "w1", "id": 1, "noun": "account", "version": [1, 0], "name": "alice",
            "generation": 1, "incarnation": 0, "payload": {"uid": 20007}, "job": 1, "verb": "create",
            "roles": ["web"], "replaces": 0, "secrets": {}}  # fmt: skip
    made.store([wire.Letter("apply", "w1", spec)])
    with made._changing() as db:
        db.execute("UPDATE entry SET done = 1, applied = 1, outcome = 1, applied_spec = spec")
    yield made
    made.close()


def performer(ledger: Ledger, doer: Doer) -> Performer:
    return Performer(ledger, None, {"account": doer}, {}, lambda: None)  # type: ignore[arg-type, dict-item]


def said(ledger: Ledger) -> list[tuple[int, str, str]]:
    bodies = [json.loads(row["body"]) for row in ledger.outgoing.unpublished()]
    return [(body["action"], body["outcome"], body["reason"]) for body in bodies]


def test_a_letter_that_comes_again_is_not_done_again(ledger: Ledger) -> None:
    doer = Doer()
    assert ledger.actions.store([action(5), action(4), action(5)]) == 2
    performer(ledger, doer).run()
    assert ledger.actions.store([action(5)]) == 0 and ledger.actions.store([action(5, incarnation=9)]) == 1
    performer(ledger, doer).run()
    assert len(doer.did) == 3 and said(ledger) == [(5, "applied", ""), (4, "applied", ""), (5, "applied", "")]


def test_after_a_kill_in_the_middle_nobody_knows_and_it_is_not_done_again(ledger: Ledger, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class Deadly(Doer):
        def act(self, verb: str, entry: Any, host: Any) -> str:
            raise Killed

    ledger.actions.store([action(5), action(6)])
    with pytest.raises(Killed):
        performer(ledger, Deadly()).run()
    ledger.close()
    again, doer = Ledger(tmp_path / "ledger.db"), Doer()
    performer(again, doer).recover()
    performer(again, doer).run()
    assert [(job, outcome) for job, outcome, _ in said(again)] == [(5, "failed"), (6, "applied")]
    assert said(again)[0][2].startswith("unknown:") and len(doer.did) == 1
    again.close()


def test_what_comes_too_late_or_is_unknown_is_not_done(ledger: Ledger) -> None:
    doer = Doer()
    ledger.actions.store([action(5, seconds=0.0)])
    time.sleep(0.01)
    performer(ledger, doer).run()
    with ledger._changing() as db:
        db.execute("DELETE FROM entry")
    ledger.actions.store([action(6)])
    performer(ledger, doer).run()
    Performer(ledger, None, {}, {}, lambda: None).run()  # type: ignore[arg-type]
    assert [(outcome, reason) for _, outcome, reason in said(ledger)] == [
        ("failed", "it came too late and was not done"), ("failed", "account alice is not on this node"),
    ]  # fmt: skip
    assert doer.did == []
