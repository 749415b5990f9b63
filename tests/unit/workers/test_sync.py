"""Hello from the node's side: synced only when everything that was listed has arrived."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from onehost.models import wire
from onehost.models.digest import Digest
from onehost.workers.ledger import Ledger
from onehost.workers.outgoing import Result
from onehost.workers.sync import Sync

from .conftest import letter


class Woken(list[int]):
    def __call__(self) -> None:
        self.append(1)


@pytest.fixture
def sync(ledger: Ledger) -> Sync:
    return Sync(ledger, 1000.0, Woken())


def hello(sync: Sync) -> dict[str, Any]:
    sync.say_hello()
    (said,) = sync.to_say()
    wire.decode(wire.encode(node="web1", **said))
    return said


def welcome(said: dict[str, Any], differing: list[int], **more: Any) -> wire.Letter:
    body = {"form": "welcome", "node": "web1", "hello": said["hello"], "incarnation": 0, "differing": differing,
            "have": [0, 0], "is_paused": False, **more}  # fmt: skip
    return wire.decode(wire.encode(**body))


def cover(said: dict[str, Any], buckets: list[int], wanted: list[list[int]], **more: Any) -> wire.Letter:
    body = {"form": "cover", "node": "web1", "hello": said["hello"], "buckets": buckets, "wanted": wanted, **more}
    return wire.decode(wire.encode(**body))


def test_hello_says_what_is_held(ledger: Ledger, sync: Sync) -> None:
    ledger.store([letter(1)])
    entries = ledger.take()
    ledger.finish([Result(entry, "applied") for entry in entries])
    said = hello(sync)
    assert said["digest"] == ledger.digest.text() != Digest().text()
    assert (said["epoch"], said["last"], said["held"]) == (ledger.outgoing.epoch, 1, [[ledger.outgoing.epoch, 1, 1]])


def test_a_node_that_agrees_is_synced_by_the_welcome(sync: Sync) -> None:
    said = hello(sync)
    assert not sync.synced.is_set()
    sync.hear(welcome(said, []))
    assert sync.synced.is_set() and sync.to_say() == []


def test_what_lay_in_the_queue_is_listed_at_the_start(ledger: Ledger, sync: Sync) -> None:
    """The manager has not compared what came after the hello, and it may be of a life of the store that is over."""
    said = hello(sync)
    ledger.store([letter(5, 3)])
    sync.hear(welcome(said, []))
    assert not sync.synced.is_set()
    (listed,) = sync.to_say()
    assert (listed["buckets"], listed["rows"]) == ([5], [[5, 3, 0]])
    sync.hear(cover(said, [5], [[5, 4]]))
    assert not sync.synced.is_set(), "the old one is not applied before the newer one is there"
    ledger.store([letter(5, 4)])
    sync.look()
    assert sync.synced.is_set()


def test_differing_buckets_are_listed_and_covered_before_it_is_synced(ledger: Ledger, sync: Sync) -> None:
    ledger.store([letter(1), letter(257, 4), letter(2)])
    said = hello(sync)
    sync.hear(welcome(said, [1, 5]))
    (listed,) = sync.to_say()
    assert listed["buckets"] == [1, 5] and sorted(listed["rows"]) == [[1, 1, 0], [257, 4, 0]]
    wire.decode(wire.encode(node="web1", **listed))
    sync.hear(cover(said, [1], [[1, 2], [257, 4]]))
    assert not sync.synced.is_set(), "bucket 5 is not covered"
    sync.hear(cover(said, [5], [[5, 1]]))
    assert not sync.synced.is_set(), "nothing of it has arrived"
    ledger.store([letter(1, 2)])
    sync.look()
    assert not sync.synced.is_set()
    ledger.store([letter(5, 7)])
    sync.look()
    assert sync.synced.is_set(), "a later generation covers an earlier one"


def test_an_answer_to_an_older_hello_is_passed_over(sync: Sync) -> None:
    old = hello(sync)
    new = hello(sync)
    sync.hear(welcome(old, []))
    assert not sync.synced.is_set()
    sync.hear(cover(new, [], []))
    assert not sync.synced.is_set(), "a cover without a welcome says nothing"
    sync.hear(welcome(new, []))
    assert sync.synced.is_set()


def test_a_hail_makes_it_say_hello_again(sync: Sync) -> None:
    said = hello(sync)
    sync.hear(welcome(said, []))
    sync.hear(wire.decode(wire.encode(form="hail", node="web1")))
    (again,) = sync.to_say()
    assert again["hello"] != said["hello"] and sync.synced.is_set(), "rounds go on meanwhile"


def test_hello_is_said_again_until_somebody_answers(ledger: Ledger) -> None:
    sync = Sync(ledger, 0.0, Woken())
    first = sync.to_say()
    second = sync.to_say()
    assert first and second and first[0]["hello"] != second[0]["hello"]
    sync.hear(welcome(second[0], []))
    assert sync.to_say() == []


def test_it_is_said_again_ever_later_until_somebody_answers(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("onehost.workers.sync.time.monotonic", lambda: clock[0])
    sync = Sync(ledger, 5.0, Woken())
    sync.say_hello()
    said = []
    for _ in range(1200):
        clock[0] += 0.1
        said += [(clock[0] - 1000.0, each) for each in sync.to_say()]
    waits = [later - sooner for (sooner, _), (later, _) in itertools.pairwise(said)]
    assert 4.8 < waits[0] < 5.3 < waits[1] < 10.3 < waits[3] and all(15 < each < 31 for each in waits[4:]), waits
    sync.hear(welcome(said[-1][1], []))
    assert sync.synced.is_set()
    sync.synced.clear()  # a new life of this object: as patient as at first
    sync.say_hello()
    sync.to_say()
    clock[0] += 5.1
    assert sync.to_say()


def test_many_rows_are_cut_into_letters_that_may_travel(ledger: Ledger, sync: Sync,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("onehost.models.wire.LISTED_AT_ONCE", 10)
    ledger.store([letter(n) for n in range(1, 40)])
    said = hello(sync)
    sync.hear(welcome(said, list(range(256))))
    parts = sync.to_say()
    assert len(parts) == 4
    assert sorted(row[0] for part in parts for row in part["rows"]) == list(range(1, 40))
    assert sorted(number for part in parts for number in part["buckets"]) == list(range(256))


def test_what_the_manager_has_is_forgotten_of_earlier_lives_too(ledger: Ledger, sync: Sync) -> None:
    ledger.store([letter(n) for n in range(1, 4)])
    ledger.finish([Result(entry, "applied") for entry in ledger.take()])
    now = ledger.outgoing.epoch
    earlier = "INSERT INTO ack (epoch, number, noun, body) VALUES (?, ?, 'account', x'')"
    ledger._file.write(earlier, [(7, 4), (7, 5), (8, 1)])
    ledger.outgoing.published([(now, 1), (now, 2), (now, 3), (7, 4), (7, 5), (8, 1)])
    said = hello(sync)
    sync.hear(welcome(said, [], have=[now, 2], kept=[[7, 4]], lacking=[[7, 5]]))
    assert sorted(ledger.outgoing.held()) == sorted([[now, 3, 3], [7, 5, 5], [8, 1, 1]])
    assert [(row["epoch"], row["number"]) for row in ledger.outgoing.unpublished()] == [(7, 5)]


def test_orphans_never_applied_are_dropped_and_outcomes_told_again(ledger: Ledger, sync: Sync) -> None:
    ledger.store([letter(1), letter(2)])
    (first,) = ledger.take(1)
    ledger.finish([Result(first, "failed", "why")])
    said = hello(sync)
    sync.hear(welcome(said, [1, 2]))
    sync.hear(cover(said, [1, 2], [[1, 1]], again=[1], orphans=[2, 999]))
    assert [row[0] for row in ledger.rows(range(256))] == [1] and ledger.outgoing.number == 2
    assert sync.synced.is_set()
