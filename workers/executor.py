"""Applies what the ledger holds, in rounds: compare, write together, validate once, signal once, prove each, record.

A resource that cannot be applied fails alone: its files are put back and the rest of the round goes on. A daemon whose
live configuration is broken by another hand blocks what needs it and blames nobody.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..models.errors import Blocked, HostError, Pending, Temporary
from .entry import Difference, Entry
from .ledger import ROUND, Ledger, Result
from .reconcilers import Reconciler

if TYPE_CHECKING:
    from .host import Daemon, Host

log = logging.getLogger(__name__)

#: A resource that was alone in a round this often, and the worker died each time, is failed.
DEADLY_STARTS = 3
#: Waits between tries after a temporary failure, in seconds: first and longest.
FIRST_AGAIN_SECONDS, LONGEST_AGAIN_SECONDS = 1.0, 60.0
#: A drain is looked at again after this long, in seconds.
PENDING_SECONDS = 0.5
#: A blocked daemon is tried again after this long, in seconds.
BLOCKED_SECONDS = 3.0
#: Without an answer to hello for this long, in seconds, a node that was away serves what it last knew.
ALONE_SECONDS = 120.0


class Executor:
    """Runs rounds. `reported()` is called when acknowledgements wait.

    `ready()` is called once before the first round, when it is known what this node does; `serve()` once its daemons
    may run.
    """

    def __init__(self, ledger: Ledger, host: Host, reconcilers: Mapping[str, Reconciler], synced: threading.Event,
                 *, reported: Callable[[], None], ready: Callable[[], None],
                 serve: Callable[[], None]) -> None:  # fmt: skip
        self._ledger = ledger
        self._host = host
        self._reconcilers = reconcilers
        self._synced = synced
        self._reported = reported
        self._ready = ready
        self._start_serving = serve
        self._news = threading.Event()
        self._is_serving = False
        self.rounds = 0
        #: Signals sent so far, by daemon.
        self.signals: dict[str, int] = {}
        #: Daemons whose live configuration is broken, with the place.
        self.blocked: dict[str, str] = {}
        self.running = ""

    def wake(self) -> None:
        """Something has arrived, or this node is synced now."""
        self._news.set()

    def run(self, stop: threading.Event) -> None:
        """Runs rounds until `stop` is set. A round that has begun is ended."""
        self._wait_for_manager(stop)
        self._ready()
        for group in _halves(self._ledger.interrupted()):
            if not stop.is_set():
                self.round(self._ledger.take(len(group), only=group))
        while not stop.is_set():
            self._news.clear()
            entries = self._ledger.take(ROUND)
            if entries:
                self.round(entries)
            if not self._is_serving and not self._ledger.urgent_open():
                self._serve()
            if not entries:
                due = self._ledger.due_seconds()
                self._news.wait(min(due, 5.0) if due is not None else 5.0)

    def _wait_for_manager(self, stop: threading.Event) -> None:
        """No round before this start's hello is covered; a node cut off from the manager serves what it last knew."""
        alone_at = time.monotonic() + ALONE_SECONDS
        while not self._synced.is_set() and not stop.is_set():
            self._news.wait(1.0)
            self._news.clear()
            if time.monotonic() > alone_at and not self._is_serving:
                log.warning("no manager answers: serving what is on this disk", extra={"action": "alone"})
                self._serve()

    def _serve(self) -> None:
        """Daemons are started once removals and suspensions of the time away are applied."""
        self._start_serving()
        self._is_serving = True

    # ---- one round

    def round(self, entries: Sequence[Entry]) -> list[Result]:
        """Applies these entries together; gives what became of each, already recorded."""
        if not entries:
            return []
        self.rounds += 1
        self.running = f"round {self.rounds}: {len(entries)} resources"
        work = Round(self, entries)
        results = work.run()
        self._ledger.finish(results)
        self._reported()
        self.running = ""
        failed = sum(result.outcome == "failed" for result in results)
        log.info("round", extra={"action": "round", "number": self.rounds, "entries": len(entries), "failed": failed,
                                 "seconds": {key: round(value, 4) for key, value in work.seconds.items()}})  # fmt: skip
        return results

    def all(self, noun: str) -> list[Entry]:
        """What a reconciler may look at: other resources of this node."""
        return self._ledger.entries(noun)


class Round:
    """The entries of one round and how far each has come."""

    def __init__(self, executor: Executor, entries: Sequence[Entry]) -> None:
        self._executor = executor
        self._ledger = executor._ledger
        self._host = executor._host
        self._entries = list(entries)
        self._results: dict[int, Result] = {}
        self._differences: dict[int, Difference] = {}
        self._began = time.monotonic()
        #: Seconds of each phase of the whole round.
        self.seconds: dict[str, float] = {}

    @property
    def _alive(self) -> list[Entry]:
        return [entry for entry in self._entries if entry.id not in self._results]

    def run(self) -> list[Result]:
        """The story of a round."""
        self._timed("compare", self._compare)
        self._timed("files", self._stage)
        self._commit()
        self._timed("verify", self._verify)
        if self._changed():
            self._commit()  # what was put back after a failed verification
        self._timed("settle", self._settle)
        for entry in self._alive:
            self._end(entry, "applied")
        return list(self._results.values())

    def _reconciler(self, entry: Entry) -> Reconciler:
        return self._executor._reconcilers[entry.noun]

    def _compare(self) -> None:
        found: list[tuple[Entry, Difference]] = []
        for entry in self._entries:
            if entry.needs or entry.noun not in self._executor._reconcilers:
                self._end(entry, "failed", entry.needs or f"needs a worker that knows {entry.noun}")
            elif len(self._entries) == 1 and self._ledger.starts(entry.id) >= DEADLY_STARTS:
                self._end(entry, "failed", f"worker died {DEADLY_STARTS} times while it was applying this")
            else:
                self._try(entry, partial(self._compare_one, entry, found))
        if found:
            self._differences = self._ledger.begin(found)

    def _compare_one(self, entry: Entry, found: list[tuple[Entry, Difference]]) -> None:
        found.append((entry, self._reconciler(entry).compare(entry, self._host, self._executor)))

    def _stage(self) -> None:
        for step in ("prepare", "stage"):
            for entry in self._alive:
                self._step(entry, step)

    def _step(self, entry: Entry, step: str) -> None:
        self._try(entry, lambda: getattr(self._reconciler(entry), step)(entry, self._host, self._executor))

    def _try(self, entry: Entry, act: Callable[[], Any]) -> None:
        """Runs a step of one entry. What it raises ends this entry alone, and what it staged is put back."""
        try:
            act()
        except Exception as error:
            if not isinstance(error, HostError | OSError):
                log.exception("a reconciler failed", extra={"action": "step", "resource": f"{entry.noun}/{entry.name}"})
            self._fail(entry, error)

    def _fail(self, entry: Entry, error: Exception) -> None:
        for daemon in self._host.daemons:
            daemon.restore(entry.id)
        words = str(error) if isinstance(error, HostError) else f"{type(error).__name__}: {error}"
        if isinstance(error, Pending):
            self._end(entry, "retrying", words, again_seconds=PENDING_SECONDS)
        elif isinstance(error, Blocked):
            self._end(entry, "retrying", f"blocked: {words}", again_seconds=BLOCKED_SECONDS)
        elif isinstance(error, Temporary | OSError) and not isinstance(error, FileExistsError | NotADirectoryError):
            longer = FIRST_AGAIN_SECONDS * 2 ** min(self._ledger.tries(entry.id), 10)
            self._end(entry, "retrying", words, again_seconds=min(longer, LONGEST_AGAIN_SECONDS))
        else:
            self._end(entry, "failed", words)

    def _end(self, entry: Entry, outcome: str, reason: str = "", again_seconds: float = 0.0) -> None:
        difference = self._differences.get(entry.id, {})
        seconds = {**self.seconds, "node": time.monotonic() - self._began}
        self._results[entry.id] = Result(entry, outcome, reason, difference, seconds, again_seconds)

    # ---- daemons

    def _changed(self) -> frozenset[int]:
        return frozenset().union(*(daemon.changed() for daemon in self._host.daemons))

    def _commit(self) -> None:
        """Validates, switches and signals each daemon that has something new; once more if a failure put files back."""
        for _ in range(2):
            for daemon in self._host.daemons:
                self._commit_one(daemon)
            if not self._changed():
                return

    def _commit_one(self, daemon: Daemon) -> None:
        if not daemon.changed():
            return
        self._timed(f"validate {daemon.name}", lambda: self._validate(daemon, sorted(daemon.changed())))
        changed = daemon.changed()
        if not changed:
            return
        self._timed("files", daemon.switch)
        try:
            self._timed(f"signal {daemon.name}", daemon.signal)
        except (HostError, OSError) as error:
            self._fail_all(changed, error)
            return
        signals = self._executor.signals
        signals[daemon.name] = signals.get(daemon.name, 0) + 1

    def _validate(self, daemon: Daemon, owners: Sequence[int]) -> None:
        try:
            daemon.validate()
            self._executor.blocked.pop(daemon.name, None)
        except Blocked as error:
            self._executor.blocked[daemon.name] = str(error)
            self._fail_all(owners, error)
        except HostError as error:
            named = [owner for owner in owners if str(owner) == error.culprit]
            if len(owners) == 1 or not named:
                self._isolate(daemon, owners, error)
            else:
                self._fail_all(named, error)
                rest = sorted(daemon.changed())
                if rest:
                    self._validate(daemon, rest)

    def _isolate(self, daemon: Daemon, owners: Sequence[int], error: HostError) -> None:
        """Halves the group until the culprit stands alone; the good ones are staged again."""
        if len(owners) == 1:
            self._fail_all(owners, error)
            return
        good: list[int] = []
        for half in _halves(owners):
            for owner in owners:
                daemon.restore(owner)
            self._stage_again(half)
            self._validate(daemon, half)
            good += [owner for owner in half if owner not in self._results]
        for owner in owners:
            daemon.restore(owner)
        self._stage_again(good)

    def _stage_again(self, owners: Iterable[int]) -> None:
        wanted = set(owners)
        for entry in self._alive:
            if entry.id in wanted:
                self._step(entry, "stage")

    def _fail_all(self, owners: Iterable[int], error: Exception) -> None:
        wanted = set(owners)
        for entry in self._alive:
            if entry.id in wanted:
                self._fail(entry, error)
                wanted.discard(entry.id)
        for owner in wanted:  # an entry that failed before and whose old files do not pass either
            for daemon in self._host.daemons:
                daemon.restore(owner)

    def _verify(self) -> None:
        for step in ("finish", "verify"):
            for entry in self._alive:
                self._step(entry, step)

    def _settle(self) -> None:
        for daemon in self._host.daemons:
            daemon.settle()

    def _timed(self, phase: str, act: Callable[[], None]) -> None:
        began = time.monotonic()
        try:
            act()
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - began


def _halves(ids: Sequence[int]) -> list[Sequence[int]]:
    """Two halves; a group of one as it is, of none nothing."""
    middle = len(ids) // 2
    return [part for part in (ids[:middle], ids[middle:]) if part]
