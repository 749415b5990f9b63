"""The ledger: numbers only rise, a backlog collapses, what ran is what is recorded, and nothing is lost by a kill."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from onehost import migrations
from onehost.models.digest import Digest, bucket
from onehost.models.errors import Unreachable
from onehost.workers.entry import Entry
from onehost.workers.ledger import Ledger
from onehost.workers.outgoing import Result

from .conftest import letter


def names(entries: list[Entry]) -> list[str]:
    return [entry.name for entry in entries]


def end(ledger: Ledger, outcome: str = "applied", reason: str = "", **more: Any) -> list[Entry]:
    entries = ledger.take()
    ledger.start(entries)
    ledger.finish([Result(entry, outcome, reason, {"it": "changed"}, **more) for entry in entries])
    return entries


def acks(ledger: Ledger) -> list[dict[str, Any]]:
    return [json.loads(row["body"]) for row in ledger.outgoing.unpublished()]


def recomputed(ledger: Ledger) -> str:
    digest = Digest()
    for row in ledger.rows(range(256)):
        digest.add(*row)
    return digest.text()


# ---- what arrives


def test_a_backlog_collapses_to_the_newest(ledger: Ledger) -> None:
    news = ledger.store([letter(1, generation, spec={"php": generation % 2 == 0}) for generation in (3, 1, 9, 9, 4)])
    assert news == 2
    (entry,) = ledger.take()
    assert (entry.generation, entry.spec) == (9, {"php": False})


def test_older_and_equal_never_overwrite(ledger: Ledger) -> None:
    ledger.store([letter(1, 5, spec={"php": True})])
    end(ledger)
    for generation in (5, 4, 1, 0):
        assert ledger.store([letter(1, generation, spec={"php": False})]) == 0
    assert ledger.take() == [] and ledger.entries("account")[0].spec == {"php": True}


def test_a_removed_entry_stays_as_a_tombstone(ledger: Ledger) -> None:
    ledger.store([letter(1, 1)])
    end(ledger)
    ledger.store([letter(1, 2, spec=None)])
    end(ledger)
    assert ledger.entries("account") == []
    assert ledger.store([letter(1, 1)]) == 0 and ledger.take() == []
    assert ledger.rows(range(256)) == [[1, 2, 1]]


def test_secrets_are_joined_to_the_spec(ledger: Ledger) -> None:
    ledger.store([letter(1, spec={"php": True}, secrets={"password_hash": "$6$x"})])
    assert ledger.take()[0].spec == {"php": True, "password_hash": "$6$x"}


@pytest.mark.parametrize(
    ("more", "needs"),
    [({"noun": "zeppelin"}, "needs a worker that knows the noun zeppelin"),
     ({"version": [2, 0]}, "needs a worker that knows account 2.0"),
     ({"version": [1, 7], "spec": {"wings": 2}}, "needs a worker that knows account 1.7, field wings")],
)  # fmt: skip
def test_what_it_does_not_know_is_said(ledger: Ledger, more: dict[str, Any], needs: str) -> None:
    ledger.store([letter(1, **more)])
    assert ledger.take()[0].needs == needs


def test_one_bad_letter_takes_the_batch_back_and_the_digest_with_it(ledger: Ledger) -> None:
    before = ledger.digest.text()
    bad = letter(2)
    bad.body["secrets"]["x"] = {1, 2}  # no JSON
    with pytest.raises(TypeError):
        ledger.store([letter(1), bad])
    assert ledger.take() == [] and ledger.digest.text() == before == recomputed(ledger)


# ---- rounds


def test_removals_first_then_urgent_ones_then_parents(ledger: Ledger) -> None:
    ledger.store([letter(1), letter(2, noun="node", name="web1"), letter(3, spec=None)])
    ledger.store([letter(4, noun="node", spec=None), letter(5)])
    assert [entry.id for entry in ledger.take()] == [3, 4, 2, 1, 5]


def test_when_not_all_can_be_taken_the_urgent_ones_are(ledger: Ledger) -> None:
    ledger.store([letter(n) for n in range(1, 6)])
    end(ledger)
    ledger.store([letter(1, 2), letter(2, 2, spec={"suspended": True}), letter(3, 2), letter(4, 2, spec=None),
                  letter(5, 2, spec={"password_hash": "x"})])  # fmt: skip
    assert ledger.urgent_open() == 3
    assert sorted(entry.id for entry in ledger.take(3)) == [2, 4, 5]


def test_an_urgent_change_stays_urgent_when_another_comes_on_top(ledger: Ledger) -> None:
    ledger.store([letter(1, 1, spec={"suspended": False})])
    end(ledger)
    ledger.store([letter(1, 2, spec={"suspended": True})])
    ledger.store([letter(1, 3, spec={"suspended": True, "php": False})])
    assert ledger.urgent_open() == 1


def test_of_one_name_the_oldest_id_goes_first(ledger: Ledger) -> None:
    ledger.store([letter(9, name="alice"), letter(3, 2, spec=None, name="alice"), letter(4, name="bob")])
    assert [entry.id for entry in ledger.take()] == [3, 4]
    end(ledger, "failed", "no")
    assert [entry.id for entry in ledger.take()] == [9], "failed is done"


def test_who_waits_for_an_older_id_is_not_due(ledger: Ledger) -> None:
    ledger.store([letter(3, 2, spec=None, name="alice"), letter(9, name="alice")])
    end(ledger, "retrying", "disk full", again_seconds=30.0)
    assert ledger.take() == []
    due = ledger.due_seconds()
    assert due is not None and 25 < due <= 30, "0 would let the executor spin"


def test_due_seconds(ledger: Ledger) -> None:
    assert ledger.due_seconds() is None
    ledger.store([letter(1)])
    assert ledger.due_seconds() == 0.0
    end(ledger)
    assert ledger.due_seconds() is None


def test_what_ran_is_recorded_not_what_arrived_since(ledger: Ledger) -> None:
    ledger.store([letter(1, 1)])
    (entry,) = ledger.take()
    ledger.start([entry])
    ledger.store([letter(1, 2, spec={"php": False})])
    ledger.finish([Result(entry, "applied")])
    assert acks(ledger)[0]["generation"] == 1
    (newer,) = ledger.take()
    assert (newer.generation, newer.applied, newer.applied_spec) == (2, 1, {})
    assert ledger.rows(range(256)) == [[1, 2, 0]] and ledger.digest.text() == recomputed(ledger)


def test_a_postponed_one_waits_but_a_newer_generation_does_not(ledger: Ledger) -> None:
    ledger.store([letter(1, 1)])
    (entry,) = ledger.take()
    ledger.start([entry])
    ledger.store([letter(1, 2)])
    ledger.finish([Result(entry, "retrying", "disk full", again_seconds=60.0)])
    assert ledger.due_seconds() == 0.0 and ledger.tries(1) == 0
    end(ledger, "retrying", "disk full", again_seconds=60.0)
    assert ledger.take() == [] and ledger.tries(1) == 1
    ledger.store([letter(1, 3)])
    assert ledger.take()[0].generation == 3 and ledger.tries(1) == 0


def test_a_retry_is_told_once_for_each_reason(ledger: Ledger) -> None:
    ledger.store([letter(1)])
    for reason in ("disk full", "disk full", "no daemon", "disk full"):
        end(ledger, "retrying", reason)
    assert [ack["reason"] for ack in acks(ledger)] == ["disk full", "no daemon", "disk full"]
    assert ledger.counts()["open"] == 1


def test_a_crash_hides_no_difference(ledger: Ledger) -> None:
    ledger.store([letter(1)])
    (entry,) = ledger.take()
    ledger.start([entry])
    ledger.keep([(entry, {"user": "made", "site": "made"})])
    (entry,) = ledger.take()
    ledger.start([entry])
    assert ledger.keep([(entry, {"site": "made", "pool": "made"})])[1] == {
        "user": "made", "site": "made", "pool": "made",
    }  # fmt: skip
    ledger.store([letter(1, 2)])
    (newer,) = ledger.take()
    ledger.start([newer])
    assert ledger.keep([(newer, {})])[1] == {}, "another generation, another difference"


def starts(ledger: Ledger, entry_id: int) -> int:
    return ledger.take(only=[entry_id])[0].starts


def test_interrupted_ones_are_told_by_how_often_they_began(ledger: Ledger) -> None:
    ledger.store([letter(n) for n in range(1, 5)])
    ledger.start(ledger.take())
    assert ledger.interrupted() == [[1, 2, 3, 4]]
    ledger.start(ledger.take(only=[1, 2]))
    assert ledger.interrupted() == [[3, 4], [1, 2]] and starts(ledger, 1) == 0
    ledger.start(ledger.take(only=[2]))
    assert ledger.interrupted() == [[3, 4], [1], [2]] and starts(ledger, 2) == 1
    ledger.store([letter(2, 2)])
    assert starts(ledger, 2) == 0, "a newer generation is innocent"
    end(ledger)
    assert ledger.interrupted() == []


def test_a_result_of_an_entry_that_was_dropped_is_no_fault(ledger: Ledger) -> None:
    ledger.store([letter(1), letter(2)])
    entries = ledger.take()
    ledger.start(entries)
    ledger.drop_unknown([1])
    ledger.finish([Result(entry, "applied") for entry in entries])
    assert [ack["id"] for ack in acks(ledger)] == [2] and ledger.digest.text() == recomputed(ledger)


# ---- acknowledgements


def test_acknowledgements_are_numbered_without_a_gap(ledger: Ledger) -> None:
    ledger.store([letter(n) for n in range(1, 6)])
    end(ledger)
    assert [ack["number"] for ack in acks(ledger)] == [1, 2, 3, 4, 5]
    epoch = ledger.outgoing.epoch
    assert ledger.outgoing.held() == [[epoch, 1, 5]]
    ledger.outgoing.published([(epoch, 1), (epoch, 2)])
    assert len(acks(ledger)) == 3 and ledger.outgoing.count() == 5
    ledger.outgoing.forget(epoch, 1)
    ledger.outgoing.publish_again([(epoch, 2), (epoch, 1)])
    assert [ack["number"] for ack in acks(ledger)] == [2, 3, 4, 5]
    ledger.outgoing.forget(epoch + 1, 99)
    assert ledger.outgoing.held() == [[epoch, 2, 5]]


def test_a_commit_that_fails_leaves_no_gap(ledger: Ledger) -> None:
    ledger.store([letter(1), letter(2)])
    first, second = ledger.take()
    ledger.start([first, second])
    with pytest.raises(ValueError):
        ledger.finish([Result(first, "applied"), Result(second, "applied", seconds={"a": float("nan")})])
    assert acks(ledger) == [] and ledger.digest.text() == recomputed(ledger)
    ledger.finish([Result(first, "applied"), Result(second, "applied")])
    assert [ack["number"] for ack in acks(ledger)] == [1, 2]


def test_words_of_daemons_are_cleaned(ledger: Ledger) -> None:
    ledger.store([letter(1)])
    (entry,) = ledger.take()
    ledger.start([entry])
    ledger.keep([(entry, {"site": "a\0\udcff"})])
    ledger.finish([Result(entry, "failed", "a\0b\udcff" + "x" * 9999, {"site": "y" * 999, "k" * 99: "\udcff"})])
    (ack,) = acks(ledger)
    assert ack["reason"].startswith("a\ufffdb?xxx") and len(ack["reason"]) == 2000
    assert ack["difference"] == {"site": "y" * 200, "k" * 80: "?"}


def test_an_acknowledgement_is_given_again_under_a_new_number(ledger: Ledger) -> None:
    ledger.store([letter(1), letter(2)])
    end(ledger, "failed", "why")
    ledger.store([letter(2, 2)])
    ledger.repeat([1, 2, 99])
    assert [(a["number"], a["id"], a["outcome"], a["reason"]) for a in acks(ledger)][2:] == [(3, 1, "failed", "why")]


def test_an_earlier_life_keeps_its_numbers(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "ledger.db")
    first.store([letter(1)])
    end(first)
    epoch = first.outgoing.epoch
    first.close()
    second = Ledger(tmp_path / "ledger.db")
    try:
        second.repeat([1])
        assert sorted(second.outgoing.held()) == sorted([[epoch, 1, 1], [second.outgoing.epoch, 1, 1]])
        assert second.digest.text() == recomputed(second)
    finally:
        second.close()


# ---- hello


def test_what_is_unknown_to_the_store_is_dropped_unless_it_was_applied(ledger: Ledger) -> None:
    ledger.store([letter(1)])
    end(ledger)
    ledger.store([letter(2), letter(1, 2)])
    ledger.drop_unknown([1, 2, 3])
    assert [row[0] for row in ledger.rows(range(256))] == [1] and ledger.digest.text() == recomputed(ledger)


def test_what_has_not_arrived_is_lacking(ledger: Ledger) -> None:
    ledger.store([letter(1, 5)])
    assert ledger.lacking({}) == ledger.lacking({1: 5}) == ledger.lacking({1: 4}) == {}
    assert ledger.lacking({1: 6}) == {1: 6} and 2 in ledger.lacking({1: 5, 2: 1})
    ledger.store([letter(2, 1)])
    assert ledger.lacking({1: 6, 2: 1}) == {1: 6}


STEPS = some.lists(
    some.tuples(some.sampled_from(["letter", "apply", "fail", "again", "drop", "restart", "take", "repeat"]),
                some.integers(1, 4), some.integers(1, 6)),
    max_size=40,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_any_history_keeps_the_numbers_rising_and_the_digest_true(steps: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        highest: dict[int, tuple[int, int]] = {}
        taken: list[Entry] = []
        try:
            for step, entry_id, generation in steps:
                if step == "restart":
                    ledger.close()
                    ledger, taken = Ledger(Path(folder) / "ledger.db"), []
                elif step == "take":
                    taken = ledger.take()
                    ledger.start(taken)
                else:
                    taken = do(ledger, step, entry_id, generation, taken)
                check(ledger, highest, forget=entry_id if step == "drop" else 0)
        finally:
            ledger.close()


def do(ledger: Ledger, step: str, entry_id: int, generation: int, taken: list[Entry]) -> list[Entry]:
    if step == "letter":
        spec = None if generation == 5 else {"php": bool(generation % 2)}
        ledger.store([letter(entry_id, generation, spec=spec, name=f"name{entry_id % 2}")])
        return taken
    if step == "drop":
        ledger.drop_unknown([entry_id])
        return taken
    if step == "repeat":
        ledger.repeat([entry_id])
        return taken
    outcome = {"apply": "applied", "fail": "failed", "again": "retrying"}[step]
    ledger.finish([Result(entry, outcome, step) for entry in taken])
    return []


def check(ledger: Ledger, highest: dict[int, tuple[int, int]], forget: int) -> None:
    assert ledger.digest.text() == recomputed(ledger)
    if forget:
        highest.pop(forget, None)
    for row in ledger._file.read("SELECT id, wanted, done, applied FROM entry"):
        wanted, done = highest.get(row["id"], (0, 0))
        assert (
            row["wanted"] >= wanted
            and row["done"] >= done
            and row["done"] <= row["wanted"]
            and row["applied"] <= row["done"]
        )
        highest[row["id"]] = (row["wanted"], row["done"])
    numbers = [row[0] for row in ledger._file.read("SELECT number FROM ack WHERE epoch = ? ORDER BY number",
                                                   (ledger.outgoing.epoch,))]  # fmt: skip
    assert numbers == list(range(1, ledger.outgoing.number + 1))


def test_buckets_are_listed_by_number(ledger: Ledger) -> None:
    ledger.store([letter(n) for n in (1, 2, 257)])
    assert {row[0] for row in ledger.rows([bucket(1)])} == {1, 257}


# ---- the file


def test_the_tables_are_those_that_are_declared(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import create_engine

    from onehost.models.ledger import metadata

    url = f"sqlite:///{tmp_path}/ledger.db"
    migrations.upgrade(url, "ledger")
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    migrations.downgrade(url, "ledger")
    migrations.upgrade(url, "ledger")


def test_a_second_worker_waits_until_the_first_is_gone(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "ledger.db")
    got: list[Ledger] = []
    waiting = threading.Thread(target=lambda: got.append(Ledger(tmp_path / "ledger.db")))
    waiting.start()
    time.sleep(0.3)
    assert not got
    first.close()
    waiting.join(5)
    assert got
    got[0].close()


def test_one_that_waits_can_be_stopped(tmp_path: Path) -> None:
    first, stop = Ledger(tmp_path / "ledger.db"), threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    try:
        with pytest.raises(Unreachable, match="another worker"):
            Ledger(tmp_path / "ledger.db", stop)
        assert time.monotonic() - began < 2
    finally:
        first.close()


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("no database" * 100), lambda path: path.mkdir()])
def test_a_broken_file_is_let_go(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    path = tmp_path / "ledger.db"
    spoil(path)
    with pytest.raises(sqlite3.Error):
        Ledger(path)
    path.rename(tmp_path / "broken")
    Ledger(path).close()  # neither file nor lock is held any longer


def test_it_is_for_root_alone(ledger: Ledger, tmp_path: Path) -> None:
    assert (tmp_path / "ledger.db").stat().st_mode & 0o777 == 0o600
    ledger.probe()
