"""Acknowledgements: numbered without gaps within one start of the worker, kept until the manager says that it has them.

They are written in the commit that records what became of an entry, so neither can be there without the other.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..models import wire
from ..models.canonical import canonical
from .entry import Difference, Entry
from .ledger_file import LedgerFile

#: Drops an epoch's acknowledgements up to a number.
FORGET = "DELETE FROM ack WHERE epoch = ? AND number <= ?"
#: Published in one go.
AT_ONCE = 500
#: Letters of one word of a difference; what a node says must not fill the manager's store.
LONGEST_WORD = 200
#: Parts of a difference that travel.
MOST_PARTS = 100


@dataclass(frozen=True)
class Result:
    """What became of an entry in a round. `outcome` is applied, failed or retrying; retried after `again_seconds`."""

    entry: Entry
    outcome: str
    reason: str = ""
    difference: Difference = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    again_seconds: float = 0.0


class Outgoing:
    """What this node has to report. Safe to use from several threads."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file
        #: One start of the worker; acknowledgements are numbered within it.
        self.epoch = random.getrandbits(62)
        #: The number given out last.
        self.number = 0

    def add(self, db: sqlite3.Connection, result: Result, row: sqlite3.Row) -> None:
        """Part of a transaction of the ledger: acknowledges the entry of `row` under the next number."""
        entry, self.number = result.entry, self.number + 1
        body = {
            "incarnation": row["incarnation"], "id": entry.id, "noun": entry.noun, "name": entry.name,
            "generation": entry.generation, "outcome": result.outcome,
            "reason": wire.clean(result.reason, wire.MAX_TEXT),
            "difference": _parts(result.difference),
            "seconds": dict(result.seconds) | {"ledger": _waited(result, row)},
            "at": time.time(), "epoch": self.epoch, "number": self.number,
        }  # fmt: skip
        db.execute(
            "INSERT INTO ack (epoch, number, noun, job, body) VALUES (?, ?, ?, ?, ?)",
            (self.epoch, self.number, entry.noun, row["job"], canonical(body)),
        )

    def add_action(self, db: sqlite3.Connection, row: sqlite3.Row, outcome: str, reason: str,
                   did: str | Mapping[str, str], seconds: float) -> None:  # fmt: skip
        """Part of a transaction of the ledger: acknowledges an action under the next number."""
        self.number += 1
        body = {
            "incarnation": row["incarnation"], "id": row["id"], "noun": row["noun"], "name": row["name"],
            "generation": 0, "action": row["job"], "outcome": outcome, "reason": wire.clean(reason, wire.MAX_TEXT),
            "difference": _parts({"it": did} if isinstance(did, str) and did else did or {}),
            "seconds": {"action": seconds},
            "at": time.time(), "epoch": self.epoch, "number": self.number,
        }  # fmt: skip
        db.execute(
            "INSERT INTO ack (epoch, number, noun, job, body) VALUES (?, ?, ?, ?, ?)",
            (self.epoch, self.number, row["noun"], row["job"], canonical(body)),
        )

    def unpublished(self, limit: int = AT_ONCE) -> list[sqlite3.Row]:
        """Those the broker does not have yet, in order."""
        return self._file.read(
            "SELECT epoch, number, noun, job, body FROM ack WHERE published = 0 ORDER BY rowid LIMIT ?", (limit,)
        )

    def published(self, keys: Iterable[tuple[int, int]]) -> None:
        """Marks what the broker has confirmed. It is kept until the manager says that it has it.

        Not durable, like `forget`: what is published twice is stored once, and what is held still is asked about.
        """
        self._file.write("UPDATE ack SET published = 1 WHERE epoch = ? AND number = ?", keys, durable=False)

    def forget(self, epoch: int, up_to: int) -> None:
        """Drops what is in the audit store."""
        self._file.write(FORGET, [(epoch, up_to)], durable=False)

    def publish_again(self, keys: Iterable[tuple[int, int]]) -> None:
        """The manager lacks these."""
        self._file.write("UPDATE ack SET published = 0 WHERE epoch = ? AND number = ?", keys)

    def held(self) -> list[list[int]]:
        """Ranges [epoch, first, last] of those that are still here."""
        ranges: list[list[int]] = []
        for epoch, number in self._file.read("SELECT epoch, number FROM ack ORDER BY epoch, number"):
            if ranges and ranges[-1][0] == epoch and ranges[-1][2] == number - 1:
                ranges[-1][2] = number
            else:
                ranges.append([epoch, number, number])
        return ranges

    def count(self) -> int:
        """How many are still here."""
        row = self._file.one("SELECT count(*) FROM ack")
        return int(row[0]) if row else 0


def _waited(result: Result, row: sqlite3.Row) -> float:
    """Seconds between its arrival and the start of its round."""
    return max(0.0, time.time() - float(row["arrived_at"]) - result.seconds.get("node", 0.0))


def _parts(difference: Mapping[str, str]) -> dict[str, str]:
    """A difference as it may travel."""
    rows = list(difference.items())[:MOST_PARTS]
    return {wire.clean(key, wire.MAX_WORD): wire.clean(text, LONGEST_WORD) for key, text in rows}
