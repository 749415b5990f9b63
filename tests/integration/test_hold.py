"""The hold: removals and suspensions beyond a limit per hour and actor wait for a person, and change nothing."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, update

from onehost.models.errors import Conflict, NotFound, Refused
from onehost.models.moment import now
from onehost.models.store import Job, writing
from onehost.producer import EventFilter, Onehost, Wish, deadlines, hold

from .manager import Store

HASH = "$6$" + "a" * 16 + "$" + "b" * 86


@pytest.fixture
def held(store: Store) -> Store:
    """A store that holds what comes after one removal or suspension; accounts alice, bob and carol."""
    store.onehost.settings = replace(store.onehost.settings, held_beyond_per_hour=1)
    for name in ("alice", "bob", "carol"):
        receipt = store.onehost.do("account", name, "create", {"domain": f"{name}.example.com", "password_hash": HASH})
        store.ack_all(receipt)
    return store


def without_jobs(store: Store) -> dict[str, Any]:
    return {name: rows for name, rows in store.dump().items() if name not in ("job", "event", "seal")}


@pytest.mark.parametrize("verb", ["delete", "suspend", "remove"])
def test_beyond_the_limit_a_wish_is_stored_and_nothing_is_raised(held: Store, verb: str) -> None:
    assert not held.onehost.account_delete("alice").held
    before = without_jobs(held)
    receipt = held.onehost.do("account", "bob", verb)
    assert receipt.held and receipt.targets == 0 and without_jobs(held) == before
    job = held.job(receipt.job_id)
    assert (job["state"], job["generation"], job["nodes"]) == ("held", 0, [])
    (event,) = held.onehost.events(EventFilter(kind=f"account.{verb}", name="bob"), None)
    assert (event["outcome"], event["actor"]) == ("held", "test")
    assert held.onehost.wait(receipt, seconds=0)["state"] == "held", "nobody waits for a person"


def test_what_is_no_removal_is_not_counted_and_others_are_not_held(held: Store) -> None:
    held.onehost.account_suspend("alice")
    assert not held.onehost.account_set("bob", php=False).held
    assert not held.onehost.account_unsuspend("alice").held
    assert held.onehost.account_suspend("bob").held
    with Onehost(held.onehost.settings, actor="somebody else") as other:
        assert not other.account_suspend("carol").held
    held.onehost.settings = replace(held.onehost.settings, held_beyond_per_hour=0)
    assert not held.onehost.account_suspend("bob").held, "0: never"


def test_the_hour_passes(held: Store) -> None:
    held.onehost.account_suspend("alice")
    with writing(held.engine) as connection:
        connection.execute(update(Job).where(Job.destroys).values(submitted_at=now() - timedelta(minutes=61)))
    assert not held.onehost.account_suspend("bob").held
    assert held.onehost.account_suspend("carol").held


def test_released_it_goes_the_way_of_any_wish_and_its_deadline_counts_from_then(held: Store) -> None:
    held.onehost.account_suspend("alice")
    receipt = held.onehost.account_delete("bob", reason="left", deadline=timedelta(hours=2))
    with writing(held.engine) as connection:
        long_ago = now() - timedelta(days=9)
        old = update(Job).where(Job.id == receipt.job_id)
        connection.execute(old.values(submitted_at=long_ago, deadline_at=long_ago + timedelta(hours=2)))
        assert deadlines.expire(connection, now()) == 0
    with Onehost(held.onehost.settings, actor="ann") as ann:
        released = ann.release(receipt.job_id or 0, reason="looked at it")
    assert (released.job_id, released.held, released.targets) == (receipt.job_id, False, 3)
    job = held.job(receipt.job_id)
    assert job["state"] == "running" and job["actor"] == "test" and job["reason"] == "left"
    assert timedelta(minutes=119) < job["deadline_at"] - now() <= timedelta(hours=2)
    (event,) = held.onehost.events(EventFilter(kind="job.release"), None)
    assert (event["actor"], event["job_id"], event["detail"]["reason"]) == ("ann", receipt.job_id, "looked at it")
    held.ack_all(released, "w1", "w2", "s1")
    assert held.job(receipt.job_id)["state"] == "applied"
    assert "bob" not in {account["name"] for account in held.onehost.list("account")}
    with pytest.raises(Refused, match="not held"):
        held.onehost.release(receipt.job_id or 0)
    with pytest.raises(NotFound):
        held.onehost.release(4711)


def test_a_held_apply_keeps_its_password_to_itself(held: Store) -> None:
    held.onehost.account_delete("alice")
    other = HASH.replace("b", "c")
    spec = {"domain": "bob.example.com", "suspended": True, "password_hash": other}
    receipt = held.onehost.apply("account", "bob", spec)
    assert receipt.held and other not in str(list(held.onehost.events(EventFilter(), None)))
    held.onehost.release(receipt.job_id or 0)
    secrets = {letter["secrets"]["password_hash"] for letter in held.letters() if letter["name"] == "bob"}
    assert secrets == {other}
    assert other not in str(held.dump()["job"])


def test_a_cancel_of_a_held_job_undoes_nothing_because_nothing_was_done(held: Store) -> None:
    held.onehost.account_suspend("alice")
    receipt = held.onehost.account_delete("bob")
    before = without_jobs(held)
    dropped = held.onehost.cancel(receipt.job_id or 0, reason="no")
    assert (dropped.job_id, dropped.dropped) == (None, receipt.job_id) and without_jobs(held) == before
    assert held.job(receipt.job_id)["state"] == "cancelled"
    with pytest.raises(Refused, match="ended"):
        held.onehost.cancel(receipt.job_id or 0)


def test_a_name_whose_removal_is_held_is_not_free(held: Store) -> None:
    held.onehost.account_suspend("alice")
    receipt = held.onehost.account_delete("bob")
    with pytest.raises(Conflict, match=rf"exists already; job {receipt.job_id} on it is held") as caught:
        held.onehost.account_create("bob")
    assert caught.value.hint == f"onehost job release {receipt.job_id}"
    with pytest.raises(Conflict, match="is held by account bob"):
        held.onehost.account_create("dave", domain="bob.example.com")


def test_a_newer_wish_takes_its_place(held: Store) -> None:
    held.onehost.account_suspend("alice")
    first, second = held.onehost.account_suspend("bob"), held.onehost.account_delete("bob")
    assert second.held and held.job(first.job_id)["state"] == "superseded"
    third = held.onehost.account_set("bob", php=False)
    assert not third.held and held.job(second.job_id)["state"] == "superseded"
    assert not held.onehost.get("account", "bob")["spec"]["suspended"]
    with pytest.raises(Refused, match="not held"):
        held.onehost.release(second.job_id or 0)


def test_a_new_node_is_given_what_is_not_held(held: Store) -> None:
    held.onehost.account_suspend("alice")
    held.onehost.account_delete("bob")
    held.onehost.node_add("w3", "10.0.0.9", ["web", "ssh"])
    given = {letter["name"]: letter["payload"] for letter in held.letters() if letter.node == "w3"}
    assert given.keys() == {"alice", "bob", "carol"} and given["bob"] is not None


def test_a_rule_that_says_no_by_the_time_of_release_leaves_it_held(held: Store) -> None:
    held.onehost.apply("virtual_service", "web", {"address": "10.0.0.100", "port": 80, "role": "web"})
    held.onehost.account_suspend("alice")
    receipt = held.onehost.remove("node", "w1")
    assert receipt.held and len(held.onehost.list("node")) == 3
    held.onehost.do("node", "w2", "cordon")
    with pytest.raises(Refused, match="last active"):
        held.onehost.release(receipt.job_id or 0)
    assert held.job(receipt.job_id)["state"] == "held"


def test_the_same_key_gives_the_held_job_again(held: Store) -> None:
    held.onehost.account_suspend("alice")
    first = held.onehost.account_delete("bob", idempotency_key="k1")
    assert held.onehost.account_delete("bob", idempotency_key="k1") == replace(first, difference={}, generation=0)


def test_a_dry_run_says_that_it_would_be_held(held: Store) -> None:
    held.onehost.account_suspend("alice")
    receipt = held.onehost.account_delete("bob", dry_run=True)
    assert receipt.held and receipt.targets == 3 and receipt.difference == {"resource": "removed"}


def test_the_count_is_one_look_into_an_index(held: Store) -> None:
    seen: list[Any] = []
    with writing(held.engine) as connection:
        listener = lambda *given: seen.append(given[2:4])  # noqa: E731
        event.listen(held.engine, "before_cursor_execute", listener)
        hold.is_beyond(connection, 50, Wish("account", "bob", actor="test"), now())
        event.remove(held.engine, "before_cursor_execute", listener)
        statement, values = next(each for each in seen if "destroys" in each[0])
        if held.engine.dialect.name == "sqlite":
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
        else:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            rows = connection.exec_driver_sql(f"EXPLAIN {statement}", values).all()
    assert "ix_job_destroys" in str(rows)


def test_two_at_once_do_not_both_pass(held: Store) -> None:
    """Each in a transaction of its own, at the same time: the limit holds."""
    found: list[bool] = []
    ready = threading.Barrier(3)

    def remove(name: str) -> None:
        with Onehost(held.onehost.settings, actor="test") as own:
            ready.wait()
            found.append(own.account_delete(name).held)

    threads = [threading.Thread(target=remove, args=(name,)) for name in ("alice", "bob", "carol")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False, True, True]
    with writing(held.engine) as connection:
        assert len(connection.execute(select(Job.id).where(Job.destroys)).all()) == 1
