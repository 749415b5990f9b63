"""What is to be done once on this node: kept in the ledger by the job's number, so that it is never done twice.

A job is marked as started before anything of it is done. If the worker ends in the middle, nobody knows whether it was
done: that is what it says, and it does not try again.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ..models import wire
from ..models.canonical import canonical
from ..models.crash import crash_point
from ..models.errors import HostError, Permanent
from .reconcilers import Acts, Reconciler

if TYPE_CHECKING:
    from .host import Host
    from .ledger import Ledger
    from .ledger_file import LedgerFile
    from .outgoing import Outgoing

log = logging.getLogger(__name__)

#: What was done, in words; or by part.
Did = str | Mapping[str, str]
#: A job's number is remembered this long after it was too late for it, in seconds: no letter lives as long.
REMEMBERED_SECONDS = 7 * 86400.0


class Actions:
    """The ledger's part: which there are, and how far each has come."""

    def __init__(self, file: LedgerFile, outgoing: Outgoing,
                 changing: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> None:  # fmt: skip
        self._file = file
        self._outgoing = outgoing
        self._changing = changing
        #: False only where none waits to be done.
        self.may_wait = True

    def store(self, letters: Iterable[wire.Letter]) -> int:
        """Takes in letters of form action in one durable commit. Gives how many were news."""
        now, news = time.time(), 0
        with self._changing() as db:
            for letter in letters:
                row = tuple(letter[key] for key in ("incarnation", "job", "noun", "id", "name", "verb"))
                news += db.execute(
                    """INSERT INTO action (incarnation, job, noun, id, name, verb, expires_at, state, given)
                       VALUES (?, ?, ?, ?, ?, ?, ?, 'waiting', ?) ON CONFLICT DO NOTHING""",
                    (*row, now + letter["expires_seconds"], canonical(letter["given"])),
                ).rowcount
            db.execute("DELETE FROM action WHERE state = 'done' AND expires_at < ?", (now - REMEMBERED_SECONDS,))
        self.may_wait = True
        return news

    def find(self, state: str) -> list[sqlite3.Row]:
        """Those in this state, in the order in which they came."""
        return self._file.read("SELECT * FROM action WHERE state = ? ORDER BY rowid", (state,))

    def start(self, row: sqlite3.Row) -> None:
        """Marks that it begins."""
        self._file.write("UPDATE action SET state = 'started' WHERE incarnation = ? AND job = ?",
                         [(row["incarnation"], row["job"])])  # fmt: skip

    def finish(self, row: sqlite3.Row, outcome: str, reason: str = "", did: Did = "", seconds: float = 0.0) -> None:
        """Writes what became of it, and its acknowledgement, in one commit."""
        with self._changing() as db:
            db.execute("UPDATE action SET state = 'done' WHERE incarnation = ? AND job = ?",
                       (row["incarnation"], row["job"]))  # fmt: skip
            self._outgoing.add_action(db, row, outcome, reason, did, seconds)


class Performer:
    """The executor's part: does them between rounds. `own`: what is no business of a reconciler, by (noun, verb)."""

    def __init__(self, ledger: Ledger, host: Host, reconcilers: Mapping[str, Reconciler],
                 own: Mapping[tuple[str, str], Callable[[Mapping[str, Any]], Did]],
                 reported: Callable[[], None]) -> None:  # fmt: skip
        self._ledger = ledger
        self._host = host
        self._reconcilers = reconcilers
        self._own = own
        self._reported = reported

    def recover(self) -> None:
        """At start: those that an earlier life of the worker began and did not end."""
        for row in self._ledger.actions.find("started"):
            self._ledger.actions.finish(row, "failed", "unknown: the worker ended in the middle; it may have been done")

    def run(self) -> None:
        """Does all that wait."""
        if not self._ledger.actions.may_wait:
            return
        self._ledger.actions.may_wait = False
        for row in self._ledger.actions.find("waiting"):
            self._one(row)
            self._reported()

    def _one(self, row: sqlite3.Row) -> None:
        if time.time() > row["expires_at"]:
            self._ledger.actions.finish(row, "failed", "it came too late and was not done")
            return
        began = time.monotonic()
        self._ledger.actions.start(row)
        crash_point("action.started")
        try:
            did = self._perform(row)
        except HostError as error:
            did = getattr(error, "did", "")
            self._ledger.actions.finish(row, "failed", str(error), did, seconds=time.monotonic() - began)
        except Exception as error:
            log.exception("an action failed", extra={"action": "act", "job": row["job"]})
            self._ledger.actions.finish(row, "failed", f"{type(error).__name__}: {error}")
        else:
            self._ledger.actions.finish(row, "applied", did=did, seconds=time.monotonic() - began)

    def _perform(self, row: sqlite3.Row) -> Did:
        if own := self._own.get((row["noun"], row["verb"])):
            return own(json.loads(row["given"] or b"{}"))
        reconciler: Any = self._reconcilers.get(row["noun"])
        if not isinstance(reconciler, Acts):
            raise Permanent(f"needs a worker that knows {row['noun']}.{row['verb']}")
        entry = next((each for each in self._ledger.entries(row["noun"]) if each.id == row["id"]), None)
        if entry is None or not entry.applied:
            raise Permanent(f"{row['noun']} {row['name']} is not on this node")
        return reconciler.act(row["verb"], entry, self._host)
