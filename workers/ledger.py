"""What this node was told and what it applied, on its own disk: authoritative for this node, read by nobody else.

One entry per resource, replaced only by a newer generation, so a backlog collapses on arrival. Every commit is durable
(WAL, synchronous=FULL). One process holds it at a time; a second worker waits.
"""

from __future__ import annotations

import fcntl
import json
import random
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..models import nouns, wire
from ..models.canonical import canonical
from ..models.digest import Digest, bucket
from ..models.errors import NotFound
from ..models.states import Outcome
from .entry import Difference, Entry

#: Resources taken in one round.
ROUND = 100
#: The revision of the tables that this code reads.
REVISION = "0001"


@dataclass(frozen=True)
class Result:
    """What became of an entry in a round. `outcome` is applied, failed or retrying; retried after `again_seconds`."""

    entry: Entry
    outcome: str
    reason: str = ""
    difference: Difference = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    again_seconds: float = 0.0


class Ledger:
    """See the module. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_file = Path(f"{path}.lock").open("w")  # noqa: SIM115
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        _migrate(path)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        self._db.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
            self._db.execute(f"PRAGMA {pragma}")
        path.chmod(0o600)
        self._mutex = threading.RLock()
        #: One start of the worker; acknowledgements are numbered within it.
        self.epoch = random.getrandbits(62)
        self.number = 0
        self.digest = Digest()
        for row in self._db.execute("SELECT id, wanted, done, outcome FROM entry"):
            self.digest.add(row["id"], row["wanted"], _shown(row))

    def close(self) -> None:
        """Lets another worker have it."""
        self._db.close()
        self._lock_file.close()

    def probe(self) -> None:
        """A durable write, for nothing: raises sqlite3.Error where the disk is full or broken."""
        self._write("INSERT OR REPLACE INTO fact (name, value) VALUES ('probed', ?)", [(str(time.time()),)])

    def _write(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._mutex, self._transaction():
            self._db.executemany(statement, rows)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    # ---- what arrives

    def store(self, letters: Iterable[wire.Letter]) -> int:
        """Takes in letters of form apply in one durable commit. Gives how many were news."""
        news = 0
        with self._mutex, self._transaction():
            for letter in letters:
                news += self._upsert(letter)
        return news

    def _upsert(self, letter: wire.Letter) -> bool:
        old = self._db.execute(
            "SELECT id, wanted, done, outcome, applied_spec FROM entry WHERE id = ?", (letter["id"],)
        ).fetchone()
        if old is not None and old["wanted"] >= letter["generation"]:
            return False
        spec = None if letter["payload"] is None else letter["payload"] | letter["secrets"]
        applied = json.loads(old["applied_spec"]) if old and old["applied_spec"] else None
        needs, urgent = _judge(letter, spec, applied)
        self._db.execute(
            """INSERT INTO entry (id, noun, name, incarnation, wanted, spec, needs, job, verb, roles, replaces, urgent,
                                  arrived_at)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
               ON CONFLICT (id) DO UPDATE SET incarnation = excluded.incarnation, wanted = excluded.wanted,
                   spec = excluded.spec, needs = excluded.needs, job = excluded.job, verb = excluded.verb,
                   roles = excluded.roles, replaces = excluded.replaces, urgent = excluded.urgent, outcome = 0,
                   tries = 0, not_before_at = NULL, reason = NULL, arrived_at = excluded.arrived_at""",
            (letter["id"], letter["noun"], letter["name"], letter["incarnation"], letter["generation"],
             None if spec is None else canonical(spec), needs, letter["job"], letter["verb"],
             " ".join(letter["roles"]), letter["replaces"], urgent, time.time()),
        )  # fmt: skip
        if old is not None:
            self.digest.drop(old["id"], old["wanted"], _shown(old))
        self.digest.add(letter["id"], letter["generation"], Outcome.OPEN)
        return True

    # ---- rounds

    def take(self, limit: int = ROUND, only: Sequence[int] = ()) -> list[Entry]:
        """Open entries that are due, urgent ones first, parents before children; of one name the oldest id only."""
        where = f"AND id IN ({','.join(map(str, only))})" if only else ""
        with self._mutex:
            rows = self._db.execute(
                f"""SELECT * FROM entry e WHERE done < wanted AND (not_before_at IS NULL OR not_before_at <= ?) {where}
                    AND NOT EXISTS (SELECT 1 FROM entry o WHERE o.noun = e.noun AND o.name = e.name AND o.id < e.id
                                    AND o.done < o.wanted)
                    ORDER BY urgent DESC, id LIMIT ?""",
                (time.time(), limit),
            ).fetchall()
        return sorted((_entry(row) for row in rows), key=_turn)

    def due_seconds(self) -> float | None:
        """Seconds until an open entry may be taken; 0.0: now. None: nothing is open."""
        with self._mutex:
            soonest = self._db.execute(
                "SELECT min(coalesce(not_before_at, 0)) FROM entry WHERE done < wanted"
            ).fetchone()[0]
        return None if soonest is None else max(0.0, soonest - time.time())

    def urgent_open(self) -> int:
        """How many removals, suspensions and passwords are not applied yet."""
        with self._mutex:
            return int(self._db.execute("SELECT count(*) FROM entry WHERE done < wanted AND urgent = 1").fetchone()[0])

    def interrupted(self) -> list[int]:
        """Entries that an earlier life of the worker started and did not end."""
        with self._mutex:
            rows = self._db.execute("SELECT id FROM entry WHERE running = 1 AND done < wanted ORDER BY id")
            return [row["id"] for row in rows]

    def begin(self, found: Sequence[tuple[Entry, Difference]]) -> dict[int, Difference]:
        """Marks a start and keeps each difference, so that a crash cannot hide it. Gives the differences to report.

        A start after a crash sees less to change than the first one did: the fuller difference is the one kept.
        """
        kept: dict[int, Difference] = {}
        with self._mutex, self._transaction():
            for entry, difference in found:
                row = self._db.execute("SELECT started, difference FROM entry WHERE id = ?", (entry.id,)).fetchone()
                before = (
                    json.loads(row["difference"]) if row["started"] == entry.generation and row["difference"] else {}
                )
                kept[entry.id] = before | difference
                self._db.execute(
                    """UPDATE entry SET started_at = CASE WHEN started = :g THEN started_at ELSE :now END, started = :g,
                       starts = starts + :alone, running = 1, difference = :difference WHERE id = :id""",
                    {"g": entry.generation, "now": time.time(), "alone": len(found) == 1, "id": entry.id,
                     "difference": canonical(kept[entry.id])},
                )  # fmt: skip
        return kept

    def starts(self, entry_id: int) -> int:
        """How often it was started alone without an end."""
        with self._mutex:
            return int(self._db.execute("SELECT starts FROM entry WHERE id = ?", (entry_id,)).fetchone()[0])

    def finish(self, results: Iterable[Result]) -> None:
        """Writes what became of a round, and its acknowledgements, in one commit.

        What is recorded is the generation the round took, never what has arrived since.
        """
        with self._mutex, self._transaction():
            for result in results:
                if result.outcome == "retrying":
                    self._postpone(result)
                else:
                    self._record(result)

    def _record(self, result: Result) -> None:
        entry, outcome = result.entry, Outcome.APPLIED if result.outcome == "applied" else Outcome.FAILED
        old = self._row(entry.id)
        applied = outcome == Outcome.APPLIED
        self._db.execute(
            """UPDATE entry SET done = :g, outcome = :outcome, running = 0, starts = 0, tries = 0, not_before_at = NULL,
               reason = :reason, difference = NULL, applied = CASE WHEN :applied THEN :g ELSE applied END,
               applied_spec = CASE WHEN :applied THEN :spec ELSE applied_spec END WHERE id = :id""",
            {"g": entry.generation, "outcome": int(outcome), "reason": result.reason or None, "applied": applied,
             "spec": None if entry.spec is None else canonical(entry.spec), "id": entry.id},
        )  # fmt: skip
        self.digest.drop(entry.id, old["wanted"], _shown(old))
        self.digest.add(entry.id, old["wanted"], outcome if old["wanted"] == entry.generation else Outcome.OPEN)
        self._acknowledge(result, old)

    def _postpone(self, result: Result) -> None:
        old = self._row(result.entry.id)
        self._db.execute(
            "UPDATE entry SET tries = tries + 1, running = 0, starts = 0, not_before_at = ?, reason = ? WHERE id = ?",
            (time.time() + result.again_seconds, result.reason, result.entry.id),
        )
        if result.reason != old["reason"]:
            self._acknowledge(result, old)

    def _row(self, entry_id: int) -> sqlite3.Row:
        row: sqlite3.Row = self._db.execute("SELECT * FROM entry WHERE id = ?", (entry_id,)).fetchone()
        return row

    def _acknowledge(self, result: Result, row: sqlite3.Row) -> None:
        self.number += 1
        entry = result.entry
        body = {
            "incarnation": row["incarnation"], "id": entry.id, "noun": entry.noun, "name": entry.name,
            "generation": entry.generation, "outcome": result.outcome, "reason": result.reason[: wire.MAX_TEXT],
            "difference": {key: text[:200] for key, text in result.difference.items()},
            "seconds": dict(result.seconds), "at": time.time(), "epoch": self.epoch, "number": self.number,
        }  # fmt: skip
        self._db.execute(
            "INSERT INTO ack (epoch, number, noun, job, body) VALUES (?, ?, ?, ?, ?)",
            (self.epoch, self.number, entry.noun, row["job"], canonical(body)),
        )

    def tries(self, entry_id: int) -> int:
        """Temporary failures of the wanted generation so far."""
        with self._mutex:
            return int(self._row(entry_id)["tries"])

    def entries(self, noun: str) -> list[Entry]:
        """Every resource of a noun that is not to be removed, at its newest generation."""
        with self._mutex:
            rows = self._db.execute("SELECT * FROM entry WHERE noun = ? AND spec IS NOT NULL ORDER BY id", (noun,))
            return [_entry(row) for row in rows]

    # ---- acknowledgements

    def unpublished(self, limit: int = 500) -> list[sqlite3.Row]:
        """Acknowledgements the broker does not have yet, in order."""
        with self._mutex:
            return self._db.execute(
                "SELECT epoch, number, noun, job, body FROM ack WHERE published = 0 ORDER BY rowid LIMIT ?", (limit,)
            ).fetchall()

    def published(self, keys: Iterable[tuple[int, int]]) -> None:
        """Marks what the broker has confirmed. It is kept until the manager says that it has it."""
        self._write("UPDATE ack SET published = 1 WHERE epoch = ? AND number = ?", keys)

    def forget(self, epoch: int, up_to: int) -> None:
        """Drops acknowledgements that are in the audit store."""
        with self._mutex:
            held = self._db.execute(
                "SELECT 1 FROM ack WHERE epoch = ? AND number <= ? LIMIT 1", (epoch, up_to)
            ).fetchone()
        if held:
            self._write("DELETE FROM ack WHERE epoch = ? AND number <= ?", [(epoch, up_to)])

    def publish_again(self, keys: Iterable[tuple[int, int]]) -> None:
        """The manager lacks these."""
        self._write("UPDATE ack SET published = 0 WHERE epoch = ? AND number = ?", keys)

    def repeat(self, ids: Iterable[int]) -> None:
        """Acknowledges again, under new numbers, what is done with: the manager holds another outcome."""
        with self._mutex, self._transaction():
            for entry_id in ids:
                row = self._row(entry_id)
                if row is not None and row["done"] == row["wanted"]:
                    word = "applied" if row["outcome"] == Outcome.APPLIED else "failed"
                    self._acknowledge(Result(_entry(row), word, row["reason"] or ""), row)

    def held(self) -> list[list[int]]:
        """Ranges [epoch, first, last] of acknowledgements that are still here."""
        with self._mutex:
            rows = self._db.execute("SELECT epoch, number FROM ack ORDER BY epoch, number").fetchall()
        ranges: list[list[int]] = []
        for epoch, number in rows:
            if ranges and ranges[-1][0] == epoch and ranges[-1][2] == number - 1:
                ranges[-1][2] = number
            else:
                ranges.append([epoch, number, number])
        return ranges

    # ---- hello

    def rows(self, buckets: Iterable[int]) -> list[list[int]]:
        """[id, wanted, outcome] of every entry in these buckets."""
        wanted = set(buckets)
        with self._mutex:
            rows = self._db.execute("SELECT id, wanted, done, outcome FROM entry").fetchall()
        return [[row["id"], row["wanted"], _shown(row)] for row in rows if bucket(row["id"]) in wanted]

    def holds(self, wanted: Mapping[int, int]) -> bool:
        """Whether every one of these generations, or a later one, has arrived."""
        with self._mutex:
            have = {row["id"]: row["wanted"] for row in self._db.execute("SELECT id, wanted FROM entry")}
        return all(have.get(entry_id, 0) >= generation for entry_id, generation in wanted.items())

    def drop_unknown(self, ids: Iterable[int]) -> None:
        """Drops entries that the store does not list and were never applied here. What was applied is an orphan."""
        with self._mutex, self._transaction():
            for entry_id in ids:
                row = self._row(entry_id)
                if row is not None and not row["applied"]:
                    self._db.execute("DELETE FROM entry WHERE id = ?", (entry_id,))
                    self.digest.drop(entry_id, row["wanted"], _shown(row))

    def counts(self) -> dict[str, int]:
        """How many entries are open and failed, how many acknowledgements are held."""
        with self._mutex:
            row = self._db.execute(
                "SELECT coalesce(sum(done < wanted), 0), coalesce(sum(done = wanted AND outcome = 2), 0) FROM entry"
            ).fetchone()
            held = self._db.execute("SELECT count(*) FROM ack").fetchone()[0]
        return {"open": row[0], "failed": row[1], "held": held}

    def incarnation(self) -> int:
        """The newest life of the store heard of."""
        with self._mutex:
            return int(self._db.execute("SELECT coalesce(max(incarnation), 0) FROM entry").fetchone()[0])


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _migrate(path: Path) -> None:
    """Makes or raises the tables. Alembic is only loaded where there is something to do."""
    if path.exists():
        probe = sqlite3.connect(path)
        has_table = probe.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        at = probe.execute("SELECT version_num FROM alembic_version").fetchone() if has_table else None
        probe.close()
        if at == (REVISION,):
            return
    from .. import migrations

    migrations.upgrade(f"sqlite:///{path}", "ledger")


def _judge(
    letter: wire.Letter, spec: Mapping[str, Any] | None, applied: Mapping[str, Any] | None
) -> tuple[str | None, bool]:
    """Why this worker cannot apply it (None: it can), and whether it is urgent."""
    try:
        noun = nouns.noun(letter["noun"])
    except NotFound:
        return f"needs a worker that knows the noun {letter['noun']}", False
    unknown = sorted((spec or {}).keys() - noun.schema().fields.keys())
    if letter["version"][0] > noun.version[0] or unknown:
        version = ".".join(map(str, letter["version"]))
        what = f", field {unknown[0]}" if unknown else ""
        return f"needs a worker that knows {noun.name} {version}{what}", False
    return None, noun.urgent(None if spec is None else dict(spec), applied)


def _shown(row: sqlite3.Row) -> int:
    return int(row["outcome"]) if row["done"] == row["wanted"] else int(Outcome.OPEN)


def _entry(row: sqlite3.Row) -> Entry:
    started = time.time() - row["started_at"] if row["started_at"] and row["started"] == row["wanted"] else 0.0
    return Entry(
        id=row["id"], noun=row["noun"], name=row["name"], generation=row["wanted"],
        spec=json.loads(row["spec"]) if row["spec"] is not None else None,
        applied_spec=json.loads(row["applied_spec"]) if row["applied_spec"] is not None else None,
        applied=row["applied"], roles=frozenset(row["roles"].split()), replaces=row["replaces"],
        started_seconds=max(0.0, started), needs=row["needs"] or "",
    )  # fmt: skip


def _turn(entry: Entry) -> tuple[bool, int, int]:
    """Removals first, children before their parents; then parents before children."""
    known = nouns.nouns().get(entry.noun)
    order = known.order if known else 100
    return (entry.spec is not None, order if entry.spec is not None else -order, entry.id)
