"""What this node was told and what it applied, on its own disk: authoritative for this node, read by nobody else.

One entry per resource, replaced only by a newer generation, so a backlog collapses on arrival. Every commit is durable
(WAL, synchronous=FULL). One process holds it at a time; a second worker waits.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..models import wire
from ..models.canonical import canonical
from ..models.digest import Digest, bucket
from ..models.states import Outcome
from .actions import Actions
from .brake import Brake
from .entry import Difference, Entry
from .highest import Highest
from .ledger_file import LedgerFile
from .log_progress import LogProgress
from .outgoing import FORGET, Outgoing, Result
from .rows import as_entry, judged, turn
from .stopped import Stopped

__all__ = ["ROUND", "Ledger", "Result"]

#: Resources taken in one round.
ROUND = 100
#: Open entries that are due. Of one name only the oldest id: what it replaces is removed completely first.
DUE = """done < wanted AND NOT EXISTS (SELECT 1 FROM entry o WHERE o.noun = e.noun AND o.name = e.name AND o.id < e.id
         AND o.done < o.wanted)"""


class Ledger:
    """See the module. Safe to use from several threads."""

    def __init__(self, path: Path, stop: threading.Event | None = None) -> None:
        """Waits until no other worker holds it. Raises Unreachable if `stop` is set before that."""
        self._file = LedgerFile(path, stop)
        self._mutex = threading.RLock()
        self.probe = self._file.probe
        self.tally = self._file.tally
        self.outgoing = Outgoing(self._file)
        self.brake = Brake(self._file)
        self.stopped = Stopped(self._file)
        self.highest = Highest(self._file)
        self.log_progress = LogProgress(self._file)
        self.actions = Actions(self._file, self.outgoing, self._changing)
        self.digest = self._summed()

    def close(self) -> None:
        """Lets another worker have it."""
        self._file.close()

    def _summed(self) -> Digest:
        digest = Digest()
        for row in self._file.read("SELECT id, wanted, done, outcome FROM entry"):
            digest.add(row["id"], row["wanted"], _shown(row))
        return digest

    @contextmanager
    def _changing(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One commit; if it fails, what is kept in memory goes back with it."""
        with self._mutex:
            number = self.outgoing.number
            try:
                with self._file.transaction(durable=durable) as db:
                    yield db
            except BaseException:
                self.outgoing.number, self.digest = number, self._summed()
                self.highest.read()
                raise

    # ---- what arrives

    def store(self, letters: Iterable[wire.Letter], have: Sequence[int] | None = None) -> int:
        """Takes in letters of form apply in one durable commit. Gives how many were news.

        `have`, [epoch, number]: acknowledgements up to there are in the audit store and are forgotten.
        """
        with self._changing() as db:
            if have:
                db.execute(FORGET, have)
            return sum([self._upsert(db, letter) for letter in letters])

    def _upsert(self, db: sqlite3.Connection, letter: wire.Letter) -> bool:
        old = _row(db, letter["id"])
        spec = None if letter["payload"] is None else letter["payload"] | letter["secrets"]
        self.highest.note(db, letter["noun"], spec)
        if old is not None and old["wanted"] >= letter["generation"]:
            return False
        applied = json.loads(old["applied_spec"]) if old and old["applied_spec"] else None
        needs, urgent = judged(letter, spec, applied)
        db.execute(
            """INSERT INTO entry (id, noun, name, incarnation, wanted, spec, needs, job, verb, roles, replaces, urgent,
                                  arrived_at)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
               ON CONFLICT (id) DO UPDATE SET incarnation = excluded.incarnation, wanted = excluded.wanted,
                   spec = excluded.spec, needs = excluded.needs, job = excluded.job, verb = excluded.verb,
                   roles = excluded.roles, replaces = excluded.replaces, urgent = excluded.urgent, outcome = 0,
                   starts = 0, tries = 0, not_before_at = NULL, reason = NULL, arrived_at = excluded.arrived_at""",
            (letter["id"], letter["noun"], letter["name"], letter["incarnation"], letter["generation"],
             None if spec is None else canonical(spec), needs, letter["job"], letter["verb"],
             " ".join(letter["roles"]), letter["replaces"], urgent, time.time()),
        )  # fmt: skip
        if old is not None:
            self.digest.drop(old["id"], old["wanted"], _shown(old))
        self.digest.add(letter["id"], letter["generation"], Outcome.OPEN)
        return True

    # ---- rounds

    def take(self, limit: int = ROUND, only: Sequence[int] = (), *, is_urgent: bool = False) -> list[Entry]:
        """Open entries that are due, urgent ones first, parents before children; of one name the oldest id only.

        `is_urgent`: no others.
        """
        where = f"AND id IN ({','.join(map(str, only))})" if only else ""
        # One after the other, each in the order of its index: nobody sorts all that is open.
        urgent, rest = (
            f"""SELECT * FROM (SELECT * FROM entry e WHERE {DUE} AND urgent = {which}
                AND (not_before_at IS NULL OR not_before_at <= :now) {where} ORDER BY id LIMIT :limit)"""
            for which in (1, 0)
        )
        query = urgent if is_urgent else f"{urgent} UNION ALL {rest} LIMIT :limit"
        rows = self._file.read(query, {"now": time.time(), "limit": limit})
        return sorted((as_entry(row) for row in rows), key=turn)

    def due_seconds(self) -> float | None:
        """Seconds until `take` will give something; 0.0: now. None: nothing is open."""
        soonest = self._number(f"SELECT min(coalesce(not_before_at, 0)) FROM entry e WHERE {DUE}")
        return None if soonest is None else max(0.0, soonest - time.time())

    def urgent_open(self) -> int:
        """How many removals, suspensions and passwords are not applied yet."""
        return int(self._number("SELECT count(*) FROM entry WHERE done < wanted AND urgent = 1"))

    def _number(self, query: str, values: Sequence[Any] = ()) -> Any:
        row = self._file.one(query, values)
        return None if row is None else row[0]

    def interrupted(self) -> list[list[int]]:
        """Entries that an earlier life of the worker started and did not end, those with the fewest starts first.

        Entries of one group were started equally often: one of them may be what kills the worker.
        """
        groups: dict[int, list[int]] = {}
        for row in self._file.read("SELECT id, running FROM entry WHERE running > 0 AND done < wanted ORDER BY id"):
            groups.setdefault(row["running"], []).append(row["id"])
        return [groups[starts] for starts in sorted(groups)]

    def start(self, entries: Sequence[Entry]) -> None:
        """Marks that a round begins, before anything is looked at: whatever kills the worker now is among these.

        `keep` puts it on disk, before anything is changed: a machine that dies of a change finds it there.
        """
        self._file.write(
            """UPDATE entry SET difference = CASE WHEN started = :g THEN difference END,
               started_at = CASE WHEN started = :g THEN started_at ELSE :now END, started = :g,
               starts = starts + :alone, running = running + 1 WHERE id = :id""",
            [{"g": entry.generation, "now": time.time(), "alone": len(entries) == 1, "id": entry.id}
             for entry in entries],
            durable=False,
        )  # fmt: skip

    def keep(self, found: Sequence[tuple[Entry, Difference]]) -> dict[int, Difference]:
        """Keeps what differs before it is changed, so that a crash cannot hide it. Gives the differences to report.

        A start after a crash sees less to change than the first one did: the fuller difference is the one kept.
        """
        kept = {entry.id: {**entry.found, **difference} for entry, difference in found}
        rows = []
        for each, difference in kept.items():
            words = {key: wire.clean(text, wire.MAX_TEXT) for key, text in difference.items()}
            rows.append((canonical(words), each))
        self._file.write("UPDATE entry SET difference = ? WHERE id = ?", rows)
        return kept

    def finish(self, results: Iterable[Result]) -> None:
        """Writes what became of a round, and its acknowledgements, in one commit.

        What is recorded is the generation the round took, never what has arrived since.
        """
        with self._changing() as db:
            for result in results:
                old = _row(db, result.entry.id)
                if old is None:
                    continue  # the manager does not know it, and it was dropped meanwhile
                if result.outcome == "retrying":
                    self._postpone(db, result, old)
                else:
                    self._record(db, result, old)

    def _record(self, db: sqlite3.Connection, result: Result, old: sqlite3.Row) -> None:
        entry, outcome = result.entry, Outcome.APPLIED if result.outcome == "applied" else Outcome.FAILED
        applied = outcome == Outcome.APPLIED
        db.execute(
            """UPDATE entry SET done = :g, outcome = :outcome, running = 0, starts = 0, tries = 0, not_before_at = NULL,
               reason = CASE WHEN wanted = :g THEN :reason END, difference = NULL,
               applied = CASE WHEN :applied THEN :g ELSE applied END,
               applied_spec = CASE WHEN NOT :applied THEN applied_spec WHEN wanted = :g THEN spec ELSE :spec END
               WHERE id = :id""",
            {"g": entry.generation, "outcome": int(outcome), "reason": wire.clean(result.reason, wire.MAX_TEXT) or None,
             "applied": applied, "id": entry.id,
             "spec": None if entry.spec is None or old["wanted"] == entry.generation else canonical(entry.spec)},
        )  # fmt: skip
        self.digest.drop(entry.id, old["wanted"], _shown(old))
        self.digest.add(entry.id, old["wanted"], outcome if old["wanted"] == entry.generation else Outcome.OPEN)
        self.outgoing.add(db, result, old)

    def _postpone(self, db: sqlite3.Connection, result: Result, old: sqlite3.Row) -> None:
        reason = wire.clean(result.reason, wire.MAX_TEXT)
        if old["wanted"] != result.entry.generation:
            # What has arrived since must not wait for what this generation waited for.
            db.execute("UPDATE entry SET running = 0, starts = 0 WHERE id = ?", (result.entry.id,))
            return
        db.execute(
            "UPDATE entry SET tries = tries + 1, running = 0, starts = 0, not_before_at = ?, reason = ? WHERE id = ?",
            (time.time() + result.again_seconds, reason, result.entry.id),
        )
        if reason != old["reason"]:
            self.outgoing.add(db, result, old)

    def tries(self, entry_id: int) -> int:
        """Temporary failures of the wanted generation so far."""
        return int(self._number("SELECT tries FROM entry WHERE id = ?", (entry_id,)) or 0)

    def entries(self, noun: str) -> list[Entry]:
        """Every resource of a noun that is not to be removed, at its newest generation."""
        rows = self._file.read("SELECT * FROM entry WHERE noun = ? AND spec IS NOT NULL ORDER BY id", (noun,))
        return [as_entry(row) for row in rows]

    def settled(self) -> tuple[list[Entry], frozenset[int]]:
        """What this node has applied at its newest generation, removals too; and the ids of all the rest."""
        rows = self._file.read("SELECT * FROM entry ORDER BY id")
        done = [row["done"] == row["wanted"] == row["applied"] for row in rows]
        entries = [as_entry(row) for row, is_done in zip(rows, done, strict=True) if is_done]
        return entries, frozenset(row["id"] for row, is_done in zip(rows, done, strict=True) if not is_done)

    def untouched(self, ids: Iterable[int]) -> frozenset[int]:
        """Those of these of which no generation was started after the one that was applied."""
        return frozenset(
            each for each in ids if self._number("SELECT started <= applied FROM entry WHERE id = ?", (each,))
        )

    def ids(self) -> frozenset[int]:
        """Every resource that is not to be removed."""
        return frozenset(row["id"] for row in self._file.read("SELECT id FROM entry WHERE spec IS NOT NULL"))

    def newest(self, ids: Iterable[int]) -> list[Entry]:
        """These entries, removed ones too, at their newest generation, in the order of a round."""
        wanted = set(ids)
        rows = [row for row in self._file.read("SELECT * FROM entry") if row["id"] in wanted]
        return sorted((as_entry(row) for row in rows), key=turn)

    # ---- hello

    def repeat(self, ids: Iterable[int]) -> None:
        """Acknowledges again, under new numbers, what is done with: the manager holds another outcome."""
        with self._changing() as db:
            for entry_id in ids:
                row = _row(db, entry_id)
                if row is not None and row["done"] == row["wanted"]:
                    word = "applied" if row["outcome"] == Outcome.APPLIED else "failed"
                    self.outgoing.add(db, Result(as_entry(row), word, row["reason"] or ""), row)

    def rows(self, buckets: Iterable[int]) -> list[list[int]]:
        """[id, wanted, outcome] of every entry in these buckets."""
        wanted = set(buckets)
        rows = self._file.read("SELECT id, wanted, done, outcome FROM entry")
        return [[row["id"], row["wanted"], _shown(row)] for row in rows if bucket(row["id"]) in wanted]

    def lacking(self, wanted: dict[int, int]) -> dict[int, int]:
        """Those of these generations that have not arrived, nor a later one; perhaps more, while any lacks."""
        if not wanted:
            return {}
        # Letters come in the order of ids: until the last one is here, the rest need not be looked through.
        last = max(wanted)
        if (self._number("SELECT wanted FROM entry WHERE id = ?", (last,)) or 0) < wanted[last]:
            return wanted
        have = {row["id"]: row["wanted"] for row in self._file.read("SELECT id, wanted FROM entry")}
        return {each: generation for each, generation in wanted.items() if have.get(each, 0) < generation}

    def drop_unknown(self, ids: Iterable[int]) -> list[dict[str, Any]]:
        """Drops entries that the store does not list and were never applied here. Gives the others: orphans."""
        orphans: list[dict[str, Any]] = []
        with self._changing() as db:
            for entry_id in ids:
                row = _row(db, entry_id)
                if row is None:
                    continue
                if row["applied"]:
                    orphans.append({key: row[key] for key in ("id", "noun", "name")} | {"absent": row["spec"] is None})
                    continue
                db.execute("DELETE FROM entry WHERE id = ?", (entry_id,))
                self.digest.drop(entry_id, row["wanted"], _shown(row))
        return orphans

    def counts(self) -> dict[str, int]:
        """How many entries are open and failed, how many acknowledgements are held."""
        row = self._file.read(
            "SELECT coalesce(sum(done < wanted), 0), coalesce(sum(done = wanted AND outcome = 2), 0) FROM entry"
        )[0]
        return {"open": row[0], "failed": row[1], "held": self.outgoing.count()}

    def incarnation(self) -> int:
        """The newest life of the store heard of."""
        return int(self._number("SELECT coalesce(max(incarnation), 0) FROM entry"))


def _row(db: sqlite3.Connection, entry_id: int) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute("SELECT * FROM entry WHERE id = ?", (entry_id,)).fetchone()
    return row


def _shown(row: sqlite3.Row) -> int:
    return int(row["outcome"]) if row["done"] == row["wanted"] else int(Outcome.OPEN)
