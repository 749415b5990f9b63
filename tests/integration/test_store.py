"""The store on both databases: migrations, what events refuse, what a wish becomes, and the seal."""

from __future__ import annotations

import dataclasses
import os
import re
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, select, text
from sqlalchemy.exc import DBAPIError

from onehost import migrations
from onehost.models.errors import Conflict, Invalid, NotFound, Refused
from onehost.models.moment import now
from onehost.models.store import Base, Event, Revision, Seal, bells, connect, reading, writing
from onehost.models.store.sole import sole
from onehost.producer import EventFilter, Wish, deadlines, seal

from .manager import Store

HASH = "$6$" + "a" * 16 + "$" + "b" * 86


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    made: str = request.getfixturevalue("postgresql").new_database()
    return made


# ---- migrations


def tables(url: str) -> set[str]:
    engine = create_engine(url)
    found = set(inspect(engine).get_table_names())
    engine.dispose()
    return found


def test_migrations_go_up_and_down_and_up(url: str) -> None:
    assert migrations.current(url) is None
    migrations.upgrade(url)
    migrations.upgrade(url)
    assert migrations.current(url) == migrations.newest() and tables(url) >= set(Base.metadata.tables)
    migrations.downgrade(url)
    assert tables(url) == {"alembic_version"} and migrations.current(url) is None
    migrations.upgrade(url)
    assert tables(url) >= set(Base.metadata.tables)


def test_the_tables_are_those_that_are_declared(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    migrations.upgrade(url)
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_a_second_starter_waits(url: str) -> None:
    upgrade = [sys.executable, "-c", f"from onehost import migrations; migrations.upgrade({url!r})"]
    with migrations._locked(url):
        second = subprocess.Popen(upgrade, cwd="/")
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(1.5)
        assert tables(url) == set()
    assert second.wait(20) == 0
    assert migrations.current(url) == migrations.newest()


def test_a_duty_is_held_by_one(url: str) -> None:
    migrations.upgrade(url)
    first, second = connect(url), connect(url)
    stop = threading.Event()
    got: list[bool] = []

    def wait() -> None:
        with sole(second, "relay", stop) as held:
            got.append(held)

    with sole(first, "relay", threading.Event()) as held:
        assert held
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive() and got == []
    waiting.join(5)
    assert got == [True]
    with sole(first, "relay", threading.Event()):
        stop.set()
        wait()
    assert got == [True, False]
    first.dispose()
    second.dispose()


# ---- events


def test_an_event_is_neither_changed_nor_removed(store: Store) -> None:
    before = store.dump()["event"]
    statements = ["UPDATE event SET actor = 'nobody'", "DELETE FROM event", "UPDATE event SET body = body WHERE id = 1"]
    if store.engine.dialect.name == "postgresql":
        statements.append("TRUNCATE event CASCADE")
    for statement in statements:
        with pytest.raises(DBAPIError, match="never changed or removed"), writing(store.engine) as connection:
            connection.execute(text(statement))
    assert store.dump()["event"] == before


def test_the_numbers_of_a_placement_are_guarded_by_the_database(store: Store) -> None:
    store.onehost.account_create("alice")
    for column in ("sent", "done"):
        with pytest.raises(Exception, match="numbers"), writing(store.engine) as connection:
            connection.execute(text(f"UPDATE placement SET {column} = wanted + 1"))


def test_every_step_leaves_its_event_and_no_secret(store: Store) -> None:
    receipt = store.onehost.account_create("alice", password="planted-password", reason="a reason")
    store.ack_all(receipt)
    store.onehost.account_passwd("alice", "planted-again")
    kinds = [event["kind"] for event in store.onehost.history("account", "alice")]
    assert kinds[0] == "account.passwd" and kinds[-1] == "account.create" and "job.end" in kinds
    shown = list(store.onehost.events(EventFilter(kind="account.*"), None))
    assert shown[0]["detail"]["difference"] == {"password_hash": "changed"}
    assert shown[1]["detail"]["reason"] == "a reason" and shown[1]["actor"] == "test"
    everything = str(store.dump())
    assert "planted" not in everything
    events = str(list(store.onehost.events(EventFilter(), None)))
    assert "$6$" not in events


# ---- a wish


def test_a_wish_becomes_all_its_rows(store: Store) -> None:
    receipt = store.onehost.account_create("alice", domain="example.com")
    assert (receipt.generation, receipt.targets) == (1, 3)
    job = store.job(receipt.job_id)
    assert (job["state"], job["kind"], [n["stage"] for n in job["nodes"]]) == ("running", "account.create", [1, 2, 2])
    assert {name: row.wanted for name, row in store.placements(receipt.resource_id).items()} == {"s1": 1}
    (letter,) = store.letters()
    assert (letter.node, letter["name"], letter["generation"], letter["payload"]["uid"]) == ("s1", "alice", 1, 20000)
    store.ack("s1", receipt.resource_id, 1)
    assert {letter.node for letter in store.letters()} == {"s1", "w1", "w2"}, "nothing was marked as sent"
    store.ack("w1", receipt.resource_id, 1)
    store.ack("w2", receipt.resource_id, 1, "failed", reason="no")
    job = store.job(receipt.job_id)
    assert (job["state"], job["applied"], job["failed"]) == ("partial", 2, 1)


def test_a_bell_is_heard_by_who_has_a_thousand_files_open(store: Store) -> None:
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, most), most))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (limit, most))
        for _ in range(1100):
            stack.enter_context(Path(os.devnull).open())
        listener = bells.Listener(store.engine, bells.RELAY)
        stack.callback(listener.close)
        store.onehost.account_create("alice")
        assert listener.wait(5)


def test_a_bell_rings_and_what_changes_nothing_is_no_job(store: Store) -> None:
    receipt = store.onehost.account_create("alice", domain="example.com")
    before = store.dump()
    again = store.onehost.account_set("alice", domain="EXAMPLE.com")
    assert (again.job_id, again.generation) == (None, receipt.generation) and store.dump() == before


REFUSED: list[tuple[str, str, str, dict[str, Any], type[Refused]]] = [
    ("account", "root", "create", {}, Invalid), ("account", "carol", "create", {"domain": "com"}, Invalid),
    ("account", "carol", "create", {"nonsense": 1}, Invalid), ("account", "carol", "create", {"php": {1}}, Invalid),
    ("account", "carol", "create", {"document_root": "\udcff"}, Invalid),
    ("account", "carol", "create", {"php": float("nan")}, Invalid),
    ("account", "carol", "create", {"uid": 20007}, Refused), ("account", "alice", "create", {}, Conflict),
    ("account", "carol", "create", {"domain": "alice.com"}, Conflict),
    ("account", "carol", "create", {"domain": "www.alice.com"}, Conflict),
    ("account", "carol", "set", {"php": False}, NotFound), ("account", "carol", "remove", {}, NotFound),
    ("account", "carol", "retry", {}, NotFound), ("account", "alice", "explode", {}, Invalid),
    ("account", "alice", "set", {"uid": 20001}, Refused), ("account", "alice", "cancel", {}, Invalid),
    ("account", "alice", "cancel", {"job": 9999}, NotFound), ("zeppelin", "alice", "create", {}, NotFound),
    ("node", "w9", "add", {"address": "10.0.0.1", "roles": ["web"]}, Conflict),
    ("node", "w1", "set", {"roles": ["storage"]}, Refused),
    ("account", "alice", "set", {"ssh_keys": ["x" * 300_000]}, Invalid),
]  # fmt: skip


def test_a_refused_wish_changes_nothing(store: Store) -> None:
    store.onehost.account_create("alice", domain="alice.com")
    before = store.dump()
    for noun, name, verb, fields, error in REFUSED:
        with pytest.raises(error) as caught:
            store.onehost.do(noun, name, verb, fields)
        assert type(caught.value) is error, (noun, name, verb, fields, caught.value)
    assert store.dump() == before


def test_of_many_wishes_all_or_none(store: Store) -> None:
    before = store.dump()
    wishes = [store.onehost.wish("account", name, "create", {"domain": "example.com"}) for name in ("alice", "bob")]
    with pytest.raises(Conflict, match=r"domain (www\.)?example\.com is held by account alice"):
        store.onehost.submit(wishes)
    assert store.dump() == before
    receipts = store.onehost.submit([store.onehost.wish("account", f"user{n}", "create") for n in range(20)])
    assert len({receipt.resource_id for receipt in receipts}) == 20 == len({r.job_id for r in receipts})


def test_a_dry_run_goes_the_whole_way_and_changes_no_row(store: Store) -> None:
    before = store.dump()
    receipt = store.onehost.account_create("alice", domain="example.com", dry_run=True)
    assert receipt.difference["resource"] == "made" and receipt.targets == 3
    with pytest.raises(Invalid):
        store.onehost.account_create("root", dry_run=True)
    running = store.onehost.account_create("bob").job_id
    assert running is not None
    middle = store.dump()
    assert store.onehost.cancel(running, dry_run=True).difference == {"resource": "removed"}
    assert store.dump() == middle != before


def test_a_read_generation_must_still_be_the_present_one(store: Store) -> None:
    store.onehost.account_create("alice", if_generation=0)
    store.onehost.account_set("alice", php=False, if_generation=1)
    with pytest.raises(Conflict, match="generation 2, not 1"):
        store.onehost.account_set("alice", php=True, if_generation=1)
    with pytest.raises(Conflict):
        store.onehost.apply("account", "alice", {}, if_generation=0)


def test_an_idempotency_key_gives_the_same_job(store: Store) -> None:
    first = store.onehost.account_create("alice", idempotency_key="order-1")
    store.onehost.account_set("alice", php=False)
    again = store.onehost.account_create("alice", idempotency_key="order-1")
    assert (again.job_id, again.resource_id, again.generation) == (first.job_id, first.resource_id, first.generation)
    for name, verb, fields in (("alice", "create", {"php": False}), ("bob", "create", {}), ("alice", "set", {})):
        with pytest.raises(Conflict, match="order-1"):
            store.onehost.do("account", name, verb, fields, idempotency_key="order-1")


def test_an_old_password_is_never_brought_back(store: Store) -> None:
    first = store.onehost.account_create("alice", password_hash=HASH)
    store.onehost.account_passwd("alice", "a new password")
    with reading(store.engine) as connection:
        rows = connection.execute(select(Revision.generation, Revision.secrets).where(
            Revision.resource_id == first.resource_id).order_by(Revision.generation)).all()  # fmt: skip
    assert [row.secrets is not None for row in rows] == [False, True]
    store.ack("s1", first.resource_id, 1)
    assert all(HASH not in str(letter["secrets"]) for letter in store.letters())


# ---- claims, names, numbers


def test_a_dropped_claim_is_free_when_that_is_applied_everywhere(store: Store) -> None:
    alice = store.onehost.account_create("alice", domain="example.com")
    store.ack_all(alice)
    dropped = store.onehost.account_set("alice", domain="other.com")
    with pytest.raises(Conflict, match="still being released by account alice"):
        store.onehost.account_create("bob", domain="example.com")
    store.ack_all(dropped, "s1", "w1")
    store.ack("w2", alice.resource_id, dropped.generation, "failed", reason="no")
    with pytest.raises(Conflict, match="still being released"):
        store.onehost.account_create("bob", domain="example.com")
    retried = store.onehost.retry(dropped.job_id or 0)
    store.ack_all(retried)
    assert store.claims() == {"other.com": alice.resource_id, "www.other.com": alice.resource_id}
    assert store.onehost.account_create("bob", domain="example.com").job_id


def test_a_claim_that_was_dropped_is_taken_back_by_its_own(store: Store) -> None:
    alice = store.onehost.account_create("alice", domain="example.com")
    store.ack_all(alice)
    store.onehost.account_set("alice", domain="other.com")
    store.onehost.account_set("alice", domain="example.com")
    own = alice.resource_id
    assert store.claims() == {"example.com": own, "www.example.com": own, "other.com": -own, "www.other.com": -own}


def test_a_uid_never_returns(store: Store) -> None:
    uids = []
    for _ in range(3):
        receipt = store.onehost.account_create("alice")
        uids.append(store.onehost.get("account", "alice")["spec"]["uid"])
        store.ack_all(receipt)
        store.ack_all(store.onehost.account_delete("alice"))
    assert uids == [20000, 20001, 20002]
    with pytest.raises(Refused):
        store.onehost.account_create("bob", uid=20000)


def test_uids_run_out_in_words(store: Store) -> None:
    store.onehost.settings = dataclasses.replace(store.onehost.settings, last_uid=20000)
    store.onehost.account_create("alice")
    with pytest.raises(Refused, match="no uid is left between 20000 and 20000"):
        store.onehost.account_create("bob")


def test_a_name_made_again_is_another_resource(store: Store) -> None:
    first = store.onehost.account_create("alice", domain="example.com")
    store.ack_all(first)
    store.onehost.account_delete("alice")
    second = store.onehost.account_create("alice", domain="example.com")
    assert second.resource_id != first.resource_id and second.generation == 1
    letters = {(letter["id"], letter["replaces"], letter["payload"] is None) for letter in store.letters()}
    assert letters == {
        (second.resource_id, first.resource_id, False), (first.resource_id, 0, True), (first.resource_id, 0, False),
    }, "the storage node's removal is not open yet"  # fmt: skip
    third_after = store.onehost.account_delete("alice")
    third = store.onehost.account_create("alice")
    assert third.resource_id > second.resource_id == third_after.resource_id
    assert {each["replaces"] for each in store.letters() if each["id"] == third.resource_id} == {second.resource_id}


# ---- stages


def test_a_failed_stage_halts_the_job_and_opens_nothing(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    store.ack("s1", receipt.resource_id, 1, "failed", reason="disk on fire")
    job = store.job(receipt.job_id)
    assert job["state"] == "halted" and job["ended_at"]
    assert {n["node"]: (n["state"], n["reason"]) for n in job["nodes"]} == {
        "s1": ("failed", "disk on fire"), "w1": ("halted", "stage 1 failed: disk on fire"),
        "w2": ("halted", "stage 1 failed: disk on fire"),
    }  # fmt: skip
    assert store.placements(receipt.resource_id).keys() == {"s1"}
    retried = store.onehost.retry(receipt.job_id or 0)
    store.ack_all(retried)
    assert store.job(retried.job_id)["state"] == "applied"


def test_a_removal_runs_the_stages_backwards(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    store.ack_all(receipt)
    gone = store.onehost.account_delete("alice")
    assert {n["node"]: n["stage"] for n in store.job(gone.job_id)["nodes"]} == {"s1": 2, "w1": 1, "w2": 1}
    assert {letter.node for letter in store.letters() if letter["payload"] is None} == {"w1", "w2"}
    store.ack_all(gone, "w1")
    assert store.placements(receipt.resource_id)["s1"].wanted == 1
    store.ack_all(gone, "w2")
    assert store.placements(receipt.resource_id)["s1"].wanted == 2
    store.ack_all(gone, "s1")
    assert store.job(gone.job_id)["state"] == "applied" and store.claims() == {}


def test_what_was_never_opened_needs_no_removal(store: Store) -> None:
    store.onehost.account_create("alice")
    gone = store.onehost.account_delete("alice")
    assert store.targets(gone.job_id).keys() == {"s1"}


def test_a_newer_wish_closes_what_an_older_one_has_not_opened(store: Store) -> None:
    first = store.onehost.account_create("alice")
    second = store.onehost.account_set("alice", php=False)
    job = store.job(first.job_id)
    assert {n["node"]: n["state"] for n in job["nodes"]} == {"s1": "waiting", "w1": "superseded", "w2": "superseded"}
    assert {n["reason"] for n in job["nodes"] if n["state"] == "superseded"} == {f"job {second.job_id} came first"}
    store.ack("s1", first.resource_id, 2)
    job = store.job(first.job_id)
    assert (job["state"], job["closed"]) == ("superseded", 3)
    assert job["nodes"][0]["reason"] == f"job {second.job_id} came first" and job["nodes"][0]["difference"] == {}


def test_an_offline_node_holds_up_a_stage_of_all_but_no_live_one(store: Store) -> None:
    store.node_state("s1", "offline")
    receipt = store.onehost.account_create("alice")
    assert store.placements(receipt.resource_id).keys() == {"s1"}
    ended = store.onehost.wait(receipt, seconds=5)
    assert (ended["state"], ended["nodes"][0]["node_state"]) == ("running", "offline"), "wait ends, naming it"
    store.node_state("s1", "online")
    store.ack("s1", receipt.resource_id, 1)
    store.node_state("w1", "offline")
    store.ack("w2", receipt.resource_id, 1)
    ended = store.onehost.wait(receipt, seconds=5)
    assert [n["node"] for n in ended["nodes"] if n["state"] == "waiting"] == ["w1"] and ended["state"] == "running"
    with pytest.raises(Exception, match="goes on"):
        store.onehost.wait(receipt, seconds=0.1, everyone=True)
    store.ack("w1", receipt.resource_id, 1)
    assert store.onehost.wait(receipt, seconds=5)["state"] == "applied"


def test_expiry_ends_the_wait_and_never_the_convergence(store: Store) -> None:
    receipt = store.onehost.account_create("alice", deadline=timedelta(seconds=0))
    with writing(store.engine) as connection:
        assert deadlines.expire(connection, now()) == 1
    assert store.job(receipt.job_id)["state"] == "expired"
    store.ack("s1", receipt.resource_id, 1)
    assert store.placements(receipt.resource_id).keys() == {"s1", "w1", "w2"}, "the next stage opens all the same"
    store.ack_all(receipt, "w1", "w2")
    job = store.job(receipt.job_id)
    assert (job["state"], job["applied"]) == ("expired", 3)


# ---- cancel


def test_a_cancelled_creation_is_removed_and_says_cancelled(store: Store) -> None:
    receipt = store.onehost.account_create("alice", domain="example.com")
    undo = store.onehost.cancel(receipt.job_id or 0, reason="wrong")
    assert store.targets(receipt.job_id) == {"s1": "waiting", "w1": "cancelled", "w2": "cancelled"}
    assert store.targets(undo.job_id).keys() == {"s1"}
    store.ack("s1", receipt.resource_id, undo.generation)
    assert store.targets(receipt.job_id)["s1"] == "cancelled"
    assert store.job(receipt.job_id)["state"] == "cancelled" and store.job(undo.job_id)["state"] == "applied"
    assert store.claims() == {}
    assert "job.cancel" in [event["kind"] for event in store.onehost.history("account", "alice")]


def test_what_applied_before_the_cancel_is_told_so(store: Store) -> None:
    store.ack_all(store.onehost.account_create("alice", php=True, password_hash=HASH))
    change = store.onehost.account_set("alice", php=False)
    store.ack_all(change, "w1")
    undo = store.onehost.cancel(change.job_id or 0)
    store.ack("w2", change.resource_id, change.generation)
    assert store.onehost.get("account", "alice")["spec"]["php"] is True
    assert all(letter["secrets"] == {"password_hash": HASH} for letter in store.letters())
    for name in ("s1", "w1", "w2"):
        store.ack(name, undo.resource_id, undo.generation)
    assert store.targets(change.job_id) == {"s1": "cancelled", "w1": "applied", "w2": "applied"}
    assert store.job(change.job_id)["state"] == "cancelled" and store.job(undo.job_id)["state"] == "applied"


def test_a_cancelled_removal_keeps_id_uid_and_claims(store: Store) -> None:
    first = store.onehost.account_create("alice", domain="example.com")
    store.ack_all(first)
    gone = store.onehost.account_delete("alice")
    store.ack("w1", first.resource_id, gone.generation)
    undo = store.onehost.cancel(gone.job_id or 0)
    assert (undo.resource_id, undo.targets) == (first.resource_id, 3)
    assert {n["node"]: n["stage"] for n in store.job(undo.job_id)["nodes"]} == {"s1": 1, "w1": 2, "w2": 2}
    spec = store.onehost.get("account", "alice")["spec"]
    assert (spec["uid"], spec["domain"]) == (20000, "example.com")
    assert set(store.claims().values()) == {first.resource_id}
    store.ack_all(undo)
    assert store.job(gone.job_id)["state"] == "cancelled" and store.job(undo.job_id)["state"] == "applied"
    assert {row.applied for row in store.placements(first.resource_id).values()} == {undo.generation}


def test_a_cancel_that_comes_too_late_is_refused(store: Store) -> None:
    first = store.onehost.account_create("alice")
    second = store.onehost.account_set("alice", php=False)
    with pytest.raises(Refused, match=f"job {second.job_id} came after it"):
        store.onehost.cancel(first.job_id or 0)
    with pytest.raises(Refused, match="came after it"):
        store.onehost.retry(first.job_id or 0)
    store.ack_all(second)
    with pytest.raises(Refused, match=r"has ended \(applied\)"):
        store.onehost.cancel(second.job_id or 0)
    gone = store.onehost.account_delete("alice")
    again = store.onehost.account_create("alice")
    with pytest.raises(Refused, match=f"job {again.job_id} came after it"):
        store.onehost.cancel(gone.job_id or 0)
    with pytest.raises(NotFound):
        store.onehost.cancel(9999)


# ---- two at once


def test_writers_at_the_same_moment_give_one_order(store: Store) -> None:
    store.onehost.account_create("alice")
    said: list[Any] = []

    def ask(number: int) -> None:
        try:
            said.append(store.onehost.account_set("alice", document_root=f"web{number}"))
            said.append(store.onehost.account_create("bob", domain="bob.com"))
        except Conflict as error:
            said.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    changed = [each.generation for each in said if not isinstance(each, Conflict) and each.name == "alice"]
    assert sorted(changed) == [2, 3, 4, 5, 6, 7]
    assert sum(isinstance(each, Conflict) for each in said) == 5
    assert len(said) == 12


def test_one_key_at_the_same_moment_gives_one_job(store: Store) -> None:
    said: list[Any] = []
    threads = [
        threading.Thread(target=lambda: said.append(store.onehost.account_create("alice", idempotency_key="k")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({receipt.job_id for receipt in said}) == 1 and len(said) == 4


# ---- nodes that come and go


def test_a_new_node_is_given_all_that_belongs_on_it(store: Store) -> None:
    done = store.onehost.account_create("alice")
    store.ack_all(done)
    running = store.onehost.account_create("bob")
    store.onehost.node_add("w3", "10.0.0.33", ["web"])
    assert store.placements(done.resource_id)["w3"].wanted == done.generation
    assert store.placements(running.resource_id)["w3"].wanted == 0, "its stage is not open"
    assert store.targets(running.job_id).keys() == {"s1", "w1", "w2", "w3"}
    store.ack("s1", running.resource_id, 1)
    assert store.placements(running.resource_id)["w3"].wanted == 1


def test_a_removed_node_holds_nothing_up(store: Store) -> None:
    first = store.onehost.account_create("alice", domain="example.com")
    store.ack_all(first)
    moved = store.onehost.account_set("alice", domain="other.com")
    store.ack_all(moved, "s1", "w1")
    running = store.onehost.account_create("bob")
    store.onehost.remove("node", "w2")
    assert store.job(moved.job_id)["state"] == "partial" and store.targets(moved.job_id)["w2"] == "lost"
    assert "example.com" not in store.claims()
    store.ack_all(running, "s1", "w1")
    job = store.job(running.job_id)
    assert job["state"] == "partial" and {n["reason"] for n in job["nodes"] if n["state"] == "lost"} == {
        "node w2 was removed"
    }
    assert len(store.say(store.beat("w2"))) == 1, "it is nobody any more"


def test_a_removed_storage_node_lets_the_next_stage_open(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    store.onehost.remove("node", "s1")
    store.ack_all(receipt, "w1", "w2")
    assert store.targets(receipt.job_id) == {"s1": "lost", "w1": "applied", "w2": "applied"}


def test_a_silent_node_is_offline_though_nobody_has_heard_of_it_since_the_start(store: Store) -> None:
    presence = store.audit._presence
    presence.heard.clear()  # the audit process was started again
    presence.offline_after_seconds = 0.2
    until = time.monotonic() + 5
    while store.onehost.status()["nodes"][1]["state"] != "offline" and time.monotonic() < until:
        store.say(store.beat("w2"))
        if presence.is_due():
            with writing(store.engine) as connection:
                presence.look(connection, now())
        time.sleep(0.05)
    assert {n["name"]: n["state"] for n in store.onehost.status()["nodes"]} == {
        "s1": "offline", "w1": "offline", "w2": "online",
    }  # fmt: skip


# ---- the seal


def sealed(store: Store) -> seal.Head:
    for number in range(8):
        store.onehost.account_create(f"user{number}")
    with writing(store.engine) as connection:
        while seal.seal(connection):
            pass
        return seal.head(connection)


def test_the_seal_holds_and_lags_in_the_open(store: Store) -> None:
    head = sealed(store)
    verdict = store.onehost.verify(head)
    assert (verdict.problem, verdict.position, verdict.unsealed) == ("", head.position, 0) and head.position >= 11
    store.onehost.account_set("user1", php=False)
    assert store.onehost.verify(head).unsealed == 1 == store.onehost.status()["unsealed"]


SPOILT = {
    "body": ("UPDATE event SET body = :body WHERE id = :id", "position 5: event .* was changed or moved"),
    "column": ("UPDATE event SET actor = 'nobody' WHERE id = :id", "position 5: column actor was changed"),
    "time": ("UPDATE event SET at = at + 1 WHERE id = :id", "position 5: column at was changed"),
    "event removed": ("DELETE FROM event WHERE id = :id", "position 5: its event .* was removed"),
    "both removed": ("DELETE FROM seal WHERE position = 5", "position 5 is missing: the next one is 6"),
    "hash": ("UPDATE seal SET hash = 'x' WHERE position = 5", "position 5: event .* was changed or moved"),
    "reordered": ("UPDATE seal SET event_id = CASE position WHEN 5 THEN :next WHEN 6 THEN :id ELSE event_id END",
                  "position 5: event .* was changed or moved"),
    "end cut off": ("DELETE FROM seal WHERE position > 9", "the chain ends at 9, the anchor stands at"),
    "all gone": ("DELETE FROM seal", "the chain ends at 0, the anchor stands at"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_whatever_is_spoilt_behind_our_back_is_found(store: Store, name: str) -> None:
    statement, problem = SPOILT[name]
    head = sealed(store)
    with reading(store.engine) as connection:
        ids = select(Seal.event_id).where(Seal.position.in_([5, 6])).order_by(Seal.position)
        first, following = connection.execute(ids).scalars().all()
        body = connection.execute(select(Event.body).where(Event.id == following)).scalar_one()
    spoil(store, statement, {"id": first, "next": following, "body": body})
    verdict = store.onehost.verify(head)
    assert re.match(problem, verdict.problem), verdict


def spoil(store: Store, statement: str, values: dict[str, Any]) -> None:
    """What somebody with the database in his hands can do."""
    bound = {key: value for key, value in values.items() if f":{key}" in statement}
    if store.engine.dialect.name != "sqlite":
        with store.engine.connect() as connection:
            connection.execute(text("ALTER TABLE event DISABLE TRIGGER ALL"))
            for name in ("fk_seal_event_id", "uq_seal_event_id"):
                connection.execute(text(f"ALTER TABLE seal DROP CONSTRAINT {name}"))
            connection.execute(text(statement), bound)
            connection.commit()
        return
    with closing(sqlite3.connect(str(store.engine.url.database))) as database, database:
        for verb in ("update", "delete"):
            database.execute(f"DROP TRIGGER event_no_{verb}")
        if "CASE position" in statement:  # SQLite looks at each row of a unique column
            database.execute("UPDATE seal SET event_id = -1 WHERE position = 6")
        database.execute(statement, bound)


def test_a_row_forged_with_its_own_hash_shows_at_the_next(store: Store) -> None:
    sealed(store)
    with reading(store.engine) as connection:
        rows = connection.execute(select(Seal).where(Seal.position.in_([4, 5])).order_by(Seal.position)).all()
        body = connection.execute(select(Event.body).where(Event.id == rows[1].event_id)).scalar_one()
    forged = seal.link(rows[0].hash, 5, body + b" ")
    spoil(store, "UPDATE event SET body = :body WHERE id = :id", {"id": rows[1].event_id, "body": body + b" "})
    with writing(store.engine) as connection:
        connection.execute(text("UPDATE seal SET hash = :hash WHERE position = 5"), {"hash": forged})
    assert re.match("position 6: event .* was changed or moved", store.onehost.verify().problem)


def test_a_forged_chain_shows_against_an_anchor(store: Store) -> None:
    head = sealed(store)
    spoil(store, "DELETE FROM event WHERE id = 3", {})
    with writing(store.engine) as connection:
        connection.execute(text("DELETE FROM seal"))
    with writing(store.engine) as connection:
        seal.seal(connection)
    assert store.onehost.verify().problem == ""
    anchor = seal.Head(head.position - 1, head.hash)
    assert store.onehost.verify(anchor).problem.endswith("than the anchor")


def test_wish_is_exported() -> None:
    assert Wish("account", "alice").verb == "apply"
