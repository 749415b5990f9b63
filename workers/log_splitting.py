"""Splits Apache's one log by site, into the homes, and counts what each account sends; in its own thread.

No line is lost and none is written twice, wherever the process dies:

1. The log is set aside: one rename. Apache writes on into the renamed file.
2. Apache is told to open its logs anew, unless a round's own signal has done that since: as long as its main process
   has a renamed file open, it is asked again.
3. A renamed file is split only once no process of Apache has it open; from then on it never changes. A slow download
   may hold it for long: it then waits for a later time.
4. It is taken in parts, and the ledger says which part is at work. For each account of a part the ledger first keeps
   where its lines go (inode and size of each site log), then they are written and synced, then the ledger keeps that
   they are, and what was sent, in one commit. After a death in between, the account's logs are cut back to where they
   ended before, and the same lines are written again. One node writes a site log and nobody else.
5. A file all of whose parts are done is renamed once more, and deleted after a day.

A ledger that is lost while a file is being split has these lines written again, and begins to count anew.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models.errors import HostError, Temporary
from ..models.wire import LISTED_AT_ONCE
from .entry import Entry
from .host.site_log import SiteLogs
from .log_lines import Lines, Names, month, names, take_apart

if TYPE_CHECKING:
    from .host import Host
    from .ledger import Ledger

log = logging.getLogger(__name__)

#: How often the log's size is looked at, in seconds, and what is too large to wait any longer.
LOOK_SECONDS, LARGEST = 60.0, 256 << 20
#: What is taken apart at once.
PART_BYTES = 8 << 20
#: How often an account may fail where others do not.
TRIES = 3
#: How long a signal to Apache, and then its old children, are waited for.
SIGNAL_SECONDS, CHILDREN_SECONDS = 120.0, 10.0


class LogSplitting:
    """`between_rounds` runs something while no round is under way; `tell` is given what there is to publish."""

    def __init__(self, ledger: Ledger, host: Host, node: str, every_seconds: float,
                 between_rounds: Callable[[Callable[[], None]], None],
                 tell: Callable[[Sequence[dict[str, Any]]], None]) -> None:  # fmt: skip
        self._ledger = ledger
        self._host = host
        self._progress = ledger.log_progress
        self._node = node
        self._every_seconds = every_seconds
        self._between_rounds = between_rounds
        self._tell = tell
        self._news = threading.Event()
        #: How often an account of the part at work has failed.
        self._tries: Counter[int] = Counter()

    def run(self, stop: threading.Event) -> None:
        """Splits until `stop` is set; not at all if that is not wanted."""
        wait = min(LOOK_SECONDS, self._every_seconds) or None
        due_at = time.monotonic() + self._every_seconds * random.uniform(0.5, 1.0)
        self._try(self.tell)
        while not stop.wait(wait):
            if self._host.daemons and (time.monotonic() >= due_at or self._host.access_log.size() > LARGEST):
                due_at = time.monotonic() + self._every_seconds
                self._try(lambda: self.split(stop))
                self._try(self.tell)

    def wake(self) -> None:
        """Ends a wait for Apache's signal: this process is to stop."""
        self._news.set()

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except (HostError, OSError, sqlite3.Error) as error:
            log.warning("not split", extra={"action": "split", "why": str(error)[:500]})

    def split(self, stop: threading.Event) -> None:
        """Sets the log aside and splits what nobody writes to any more. Raises what went wrong; nothing is lost."""
        logs = self._host.access_log
        logs.set_aside(datetime.now(UTC))
        self._reopen(stop)
        for path in self._quiet(stop):
            if not self._split(path, stop):
                return
        logs.sweep(datetime.now(UTC))

    def tell(self) -> None:
        """What each account has sent, in this month and the last one: running totals, so what is lost comes again."""
        first = month(datetime.now(UTC).replace(day=1) - timedelta(days=1))
        sent = self._progress.sent(first)
        parts = range(0, len(sent), LISTED_AT_ONCE)
        self._tell([{"stored": [], "sent": sent[at : at + LISTED_AT_ONCE], "at": time.time()} for at in parts])

    def _reopen(self, stop: threading.Event) -> None:
        """Has Apache open its logs anew if it still writes to one that was set aside."""
        apache, logs = self._host.apache, self._host.access_log
        main = apache.main()
        if not main or not any(main in logs.writers(path) for path in logs.waiting()):
            return

        def act() -> None:
            try:
                apache.reopen()
            except (HostError, OSError) as error:
                log.warning("Apache keeps its log", extra={"action": "split", "why": str(error)[:500]})
            finally:
                self._news.set()

        self._news.clear()
        self._between_rounds(act)
        if not stop.is_set():  # after the clearing: a stop that wakes us in between is not slept through
            self._news.wait(SIGNAL_SECONDS)

    def _quiet(self, stop: threading.Event) -> list[Path]:
        """Logs set aside that Apache does not write to any more, waited for a little; first the one begun before."""
        logs, at_work = self._host.access_log, self._progress.at_work()
        # Apache tells nobody that a child has ended its last request: so it is looked for, now and then, not for long.
        until = time.monotonic() + CHILDREN_SECONDS
        while any(map(logs.writers, logs.waiting())) and time.monotonic() < until and not stop.wait(0.25):
            pass
        quiet = [path for path in logs.waiting() if not logs.writers(path)]
        return sorted(quiet, key=lambda path: (path.name != at_work, path.name))

    def _split(self, path: Path, stop: threading.Event) -> bool:
        """A file, from where it was left. Whether it is done: it is not if this process is to stop."""
        whose, accounts = names(self._ledger), {entry.id: entry for entry in self._ledger.entries("account")}
        if not self._host.homes.marked():
            raise Temporary("there is no home here: is the shared storage mounted?")
        start, end = self._progress.part(path.name)
        while data := _part(path, start, end):
            end = start + len(data)
            self._progress.begin(path.name, start, end)
            if not self._hand_out(data, whose, accounts, stop):
                return False
            self._progress.end(path.name, end)
            start, end = end, 0
        self._host.access_log.put_away(path)
        return True

    def _hand_out(self, data: bytes, whose: Names, accounts: Mapping[int, Entry], stop: threading.Event) -> bool:
        began, lines = time.monotonic(), take_apart(data, whose)
        failed: dict[int, str] = {}
        for account_id, pieces in lines.pieces.items():
            if stop.is_set():
                return False
            if account_id in accounts and not self._progress.is_written(account_id):
                try:
                    self._write(accounts[account_id], pieces, lines.sent[account_id])
                except Temporary as error:
                    failed[account_id] = str(error)
        self._judge(failed, lines)
        log.info("split", extra={"action": "split", "accounts": len(lines.pieces), "bytes": len(data),
                                 "unknown": lines.unknown, "seconds": time.monotonic() - began})  # fmt: skip
        return True

    def _judge(self, failed: Mapping[int, str], lines: Lines) -> None:
        """Raises Temporary if an account is to be tried again, and all with it.

        One that goes on failing where others do not is at it itself, say by killing what writes: it loses its lines.
        """
        for account_id in failed:
            self._tries[account_id] += 1
            if self._tries[account_id] >= TRIES and any(map(self._progress.is_written, lines.pieces)):
                self._progress.written(account_id, lines.sent[account_id])
                log.warning("lines are lost", extra={"action": "split", "id": account_id, "why": failed[account_id]})
        left = [why for account_id, why in failed.items() if not self._progress.is_written(account_id)]
        if left:
            raise Temporary(f"{len(left)} accounts must wait: {left[0]}")
        self._tries.clear()

    def _write(self, account: Entry, pieces: Mapping[str, bytearray], sent: Mapping[int, int]) -> None:
        """An account's lines of a part, in steps that a death between any two of them does not spoil."""
        spec, faults = account.spec or {}, {}
        if self._host.homes.owner(account.name) != account.id:
            faults = {"": "its home is not here"}
        else:
            who = (account.name, spec["uid"], spec["gid"])
            logs, places = SiteLogs(self._host.machine, self._node), self._progress.places(account.id)
            if places is None:
                places, faults = logs.places(*who, pieces)
                self._progress.settle(account.id, places)
            wanted = {site: (bytes(pieces[site]), place) for site, place in places.items() if site in pieces}
            faults |= logs.append(*who, wanted)
        self._progress.written(account.id, sent)
        if faults:
            (site, why), resource = next(iter(faults.items())), f"account/{account.name}"
            log.warning("lines of a site are lost", extra={"action": "split", "resource": resource, "site": site,
                                                           "faults": len(faults), "why": why})  # fmt: skip


def _part(path: Path, start: int, end: int) -> bytes:
    """Whole lines from `start`: up to `end` if a part was begun there; the last line of a file may lack its end."""
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(end - start if end else PART_BYTES)
    cut = data.rfind(b"\n") + 1
    return data if end or len(data) < PART_BYTES or not cut else data[:cut]
