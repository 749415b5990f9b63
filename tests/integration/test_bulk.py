"""Many jobs at once: what is meant, what becomes of each, and that a refusal takes back nothing but itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select, update

from onehost.models.digest import Digest
from onehost.models.errors import Refused
from onehost.models.store import Bucket, Placement, Resource, digests, part, reading, writing
from onehost.producer import bulk
from onehost.producer.bulk import Where

from .manager import Store


def failed_accounts(store: Store, *names: str) -> list[int]:
    """Accounts whose creation failed on the storage node, by job."""
    jobs = []
    for name in names:
        receipt = store.onehost.account_create(name)
        store.ack("s1", receipt.resource_id, 1, "failed", reason="disk full")
        jobs.append(receipt.job_id or 0)
    return jobs


def test_which_jobs_are_meant(store: Store) -> None:
    alice, bob, carol = failed_accounts(store, "alice", "bob", "carol")
    store.onehost.retry(bob)
    running = store.onehost.account_create("dave")
    retry = lambda **which: store.onehost.matching("retry", Where(**which))  # noqa: E731
    assert retry() == [alice, carol], "what is overtaken or still runs is passed over"
    assert retry(kind="account.*") == retry(noun="account") == retry(actor="test") == retry()
    assert retry(name="carol") == retry(kind="account.create", name="carol", state="halted") == [carol]
    assert retry(state="failed") == retry(kind="node.*") == retry(actor="nobody") == []
    assert retry(node="s1") == [alice, carol] and retry(node="s9") == []
    assert store.onehost.matching("cancel", Where(noun="account"))[-1] == running.job_id
    assert store.onehost.matching("release", Where()) == []


def test_each_has_a_receipt_or_a_refusal_of_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "CHUNK", 3)
    jobs = failed_accounts(store, *(f"user{number}" for number in range(7)))
    store.onehost.retry(jobs[4])
    done = list(store.onehost.each("retry", [*jobs, 4711], reason="disk is back"))
    assert [each.job_id for each in done] == [*jobs, 4711]
    refused = {each.job_id: each.refused.what for each in done if each.refused}
    assert refused.keys() == {jobs[4], 4711} and "came after it" in refused[jobs[4]] and "no such job" in refused[4711]
    for each in done:
        if each.receipt:
            store.ack_all(each.receipt)
            assert store.job(each.receipt.job_id)["state"] == "applied"
            assert store.job(each.receipt.job_id)["reason"] == "disk is back"


def test_a_part_that_is_taken_back_leaves_rows_and_digest_as_they_were(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    node = store.id("node", "w1")
    with writing(store.engine) as connection:
        before = digests.read(connection, node).sums
        with pytest.raises(Refused), part(connection):
            connection.execute(update(Resource).where(Resource.id == receipt.resource_id).values(generation=99))
            digests.changed(connection, [(node, receipt.resource_id, None, (99, 0))])
            raise Refused("late")
        assert digests.read(connection, node).sums == before
        generation = select(Resource.generation).where(Resource.id == receipt.resource_id)
        assert connection.execute(generation).scalar_one() == 1


def test_what_is_refused_leaves_no_trace_in_what_its_neighbours_write(store: Store) -> None:
    """A release that fails late, after placements were raised, beside one that succeeds, in one transaction."""
    store.onehost.settings = replace(store.onehost.settings, held_beyond_per_hour=1)
    for name in ("alice", "bob", "carol"):
        store.ack_all(store.onehost.account_create(name, domain=f"{name}.example.com"))
    store.onehost.account_suspend("alice")
    bob, carol = store.onehost.account_delete("bob"), store.onehost.account_delete("carol")
    store.onehost.cancel(bob.job_id or 0)
    done = list(store.onehost.each("release", [bob.job_id or 0, carol.job_id or 0]))
    assert [bool(each.refused) for each in done] == [True, False]
    assert store.placements(bob.resource_id)["w1"].wanted == 1
    with reading(store.engine) as connection:
        for node in connection.execute(select(Bucket.node_id).distinct()).scalars():
            counted = Digest()
            for row in connection.execute(select(Placement).where(Placement.node_id == node)):
                if shown := digests.shown(row.wanted, row.done, row.outcome):
                    counted.add(row.resource_id, *shown)
            assert digests.read(connection, node).sums == counted.sums


def test_many_removals_of_one_afternoon_are_undone_at_once(store: Store) -> None:
    """A panel gone wrong: fifty removed, in grace; the person cancels them in one go."""
    store.onehost.settings = replace(store.onehost.settings, grace_seconds=30)
    for number in range(5):
        store.ack_all(store.onehost.account_create(f"user{number}"))
        gone = store.onehost.account_delete(f"user{number}")
        store.ack_all(gone, "w1", "w2")
    jobs = store.onehost.matching("cancel", Where(kind="account.delete", actor="test"))
    done = list(store.onehost.each("cancel", jobs))
    assert len(done) == 5 and not any(each.refused for each in done)
    for each in done:
        assert each.receipt
        store.ack_all(each.receipt)
    assert len(store.onehost.list("account")) == 5 and store.onehost.matching("cancel", Where(noun="account")) == []
