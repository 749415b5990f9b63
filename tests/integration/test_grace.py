"""Grace time: a removal's last stage is opened late, and a cancel before that undoes all of it, password included."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from onehost.models.errors import Refused
from onehost.models.moment import now
from onehost.models.store import Job, Revision, reading, writing
from onehost.producer.main import Duties
from onehost.producer.presence import Presence

from .conftest import running, wait_until
from .manager import Store

HASH = "$6$" + "a" * 16 + "$" + "b" * 86


@pytest.fixture
def graced(store: Store) -> Store:
    """A store with a grace time, and account alice with a password on every node."""
    store.onehost.settings = replace(store.onehost.settings, grace_seconds=30)
    fields = {"domain": "alice.example.com", "password_hash": HASH}
    store.ack_all(store.onehost.do("account", "alice", "create", fields))
    return store


def secrets(store: Store) -> list[bool]:
    """By revision of alice whether it holds secrets."""
    with reading(store.engine) as connection:
        which = Revision.resource_id == store.id("account", "alice")
        return [bool(each) for each in connection.execute(select(Revision.secrets).where(which)).scalars()]


def let_it_pass(store: Store) -> None:
    """As if the time had gone by, and the audit process looked."""
    with writing(store.engine) as connection:
        connection.execute(update(Job).where(Job.grace_until_at.is_not(None)).values(
            grace_until_at=now() - timedelta(seconds=1)))  # fmt: skip
    Duties(store.engine, Presence(15.0)).once()
    with reading(store.engine) as connection:
        assert connection.execute(select(Job.id).where(Job.grace_until_at.is_not(None))).all() == []


def test_the_last_stage_waits_and_then_opens(graced: Store) -> None:
    gone = graced.onehost.account_delete("alice")
    job = graced.job(gone.job_id)
    assert timedelta(seconds=28) < job["grace_until_at"] - now() <= timedelta(seconds=30)
    graced.ack_all(gone, "w1", "w2")
    Duties(graced.engine, Presence(15.0)).once()
    assert graced.targets(gone.job_id) == {"w1": "applied", "w2": "applied", "s1": "waiting"}
    assert graced.placements(gone.resource_id)["s1"].wanted == 1 and secrets(graced) == [True, False]
    let_it_pass(graced)
    assert graced.placements(gone.resource_id)["s1"].wanted == 2 and secrets(graced) == [False, False]
    assert graced.job(gone.job_id)["grace_until_at"] is None
    graced.ack("s1", gone.resource_id, 2)
    assert graced.job(gone.job_id)["state"] == "applied"


def test_an_earlier_stage_that_is_late_is_still_waited_for(graced: Store) -> None:
    gone = graced.onehost.account_delete("alice")
    let_it_pass(graced)
    assert graced.placements(gone.resource_id)["s1"].wanted == 1 and secrets(graced) == [True, False]
    graced.ack_all(gone, "w1", "w2")
    assert graced.placements(gone.resource_id)["s1"].wanted == 2 and secrets(graced) == [False, False]


def test_a_cancel_in_time_undoes_all_of_it(graced: Store) -> None:
    before = graced.onehost.get("account", "alice")
    claims = graced.claims()
    gone = graced.onehost.account_delete("alice")
    graced.ack_all(gone, "w1", "w2")
    undo = graced.onehost.cancel(gone.job_id or 0)
    assert graced.job(gone.job_id)["state"] == "cancelled" and graced.job(gone.job_id)["grace_until_at"] is None
    graced.ack("s1", undo.resource_id, undo.generation)
    letters = [letter for letter in graced.letters() if letter.node != "s1"]
    assert {letter["secrets"]["password_hash"] for letter in letters} == {HASH} and len(letters) == 2
    graced.ack_all(undo, "w1", "w2")
    after = graced.onehost.get("account", "alice")
    assert (after["id"], after["spec"], graced.claims()) == (before["id"], before["spec"], claims)
    assert secrets(graced) == [False, False, True], "one of them holds the password, as always"


def test_a_password_that_was_replaced_does_not_come_back(graced: Store) -> None:
    other = HASH.replace("b", "c")
    graced.ack_all(graced.onehost.do("account", "alice", "passwd", {"password_hash": other}))
    gone = graced.onehost.account_delete("alice")
    graced.onehost.cancel(gone.job_id or 0)
    given = {letter["secrets"]["password_hash"] for letter in graced.letters() if letter["payload"] is not None}
    assert given == {other}


def test_a_name_made_again_ends_the_grace_time(graced: Store) -> None:
    """There is no way back then; the storage node puts the old home away before it makes the new one."""
    gone = graced.onehost.account_delete("alice")
    graced.ack_all(gone, "w1", "w2")
    again = graced.onehost.account_create("alice")
    letters = [letter for letter in graced.letters() if letter.node == "s1"]
    assert [(letter["id"], letter["payload"] is None) for letter in letters if letter["id"] != 0][-2:] == [
        (gone.resource_id, True), (again.resource_id, False)]  # fmt: skip
    assert letters[-1]["replaces"] == gone.resource_id
    with pytest.raises(Refused, match="came after it"):
        graced.onehost.cancel(gone.job_id or 0)


def test_a_removal_that_was_halted_leaves_no_password_behind(graced: Store) -> None:
    gone = graced.onehost.account_delete("alice", max_fail=0)
    graced.ack("w1", gone.resource_id, gone.generation, "failed", reason="no")
    graced.ack_all(gone, "w2")
    assert graced.job(gone.job_id)["state"] == "halted" and secrets(graced) == [False, False]


def test_a_deadline_counts_from_its_end(graced: Store) -> None:
    gone = graced.onehost.account_delete("alice", deadline=timedelta(seconds=5))
    job = graced.job(gone.job_id)
    assert job["deadline_at"] - job["grace_until_at"] == timedelta(seconds=5)


def test_no_other_try_while_it_waits(graced: Store) -> None:
    gone = graced.onehost.account_delete("alice")
    with pytest.raises(Refused, match="grace time"):
        graced.onehost.retry(gone.job_id or 0)
    with pytest.raises(Refused, match="grace time"):
        graced.onehost.do("account", "alice", "retry")  # without a job it had no grace time, and no way back
    assert secrets(graced) == [True, False]


def test_none_where_nothing_comes_before_or_none_is_wanted(graced: Store) -> None:
    graced.onehost.apply("virtual_service", "web", {"address": "10.0.0.100", "port": 80, "role": "web"})
    gone = graced.onehost.remove("virtual_service", "web")
    assert graced.job(gone.job_id)["grace_until_at"] is None
    graced.onehost.settings = replace(graced.onehost.settings, grace_seconds=0)
    gone = graced.onehost.account_delete("alice")
    graced.ack_all(gone, "w1", "w2")
    assert graced.placements(gone.resource_id)["s1"].wanted == 2


def test_on_real_workers(rabbitmq: Any, store_url: str, tmp_path: Path) -> None:
    """Removed and brought back, removed and made again, removed for good."""
    with running(rabbitmq, store_url, tmp_path, grace_seconds=3) as cluster:
        onehost = cluster.onehost
        states = {name: recorders["account"].state for name, recorders in cluster.recorders.items()}
        first = onehost.account_create("alice", password="a-planted-password")
        assert onehost.wait(first)["state"] == "applied"
        before = {name: dict(state) for name, state in states.items()}
        gone = onehost.account_delete("alice")
        wait_until(lambda: not any("alice" in states[name] for name in states if name.startswith("web")))
        assert "alice" in states["store1"]
        assert onehost.wait(onehost.cancel(gone.job_id or 0))["state"] == "applied"
        assert {name: dict(state) for name, state in states.items()} == before, "all of it, password included"
        onehost.account_delete("alice")
        second = onehost.account_create("alice")
        assert onehost.wait(second)["state"] == "applied"
        assert {state["alice"][0] for state in states.values()} == {second.resource_id}
        wait_until(lambda: not onehost.jobs(state="running"))
        job = onehost.wait(onehost.account_delete("alice"))
        assert job["state"] == "applied" and (job["ended_at"] - job["submitted_at"]).total_seconds() >= 3
        assert not any("alice" in state for state in states.values())
