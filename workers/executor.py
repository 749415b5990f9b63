"""Applies what the ledger holds, in rounds: compare, write together, validate once, signal once, prove each, record.

A resource that cannot be applied fails alone: its files are put back and the rest of the round goes on. A daemon whose
live configuration is broken by another hand blocks what needs it and blames nobody.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ..models.crash import crash_point
from ..models.metrics import Tally
from . import metrics
from .entry import Entry
from .ledger import ROUND, Ledger
from .outgoing import Result
from .reconcilers import Hurries, Reconciler
from .round import Round, halves

if TYPE_CHECKING:
    from .host import Host

log = logging.getLogger(__name__)

#: Without an answer to hello for this long, in seconds, a node that was away serves what it last knew.
ALONE_SECONDS = 120.0
#: Suspensions and removals beyond these wait for the round under way: they are many, and each costs some files.
HURRIED = 10


class Executor:
    """Runs rounds. `reported()` is called when acknowledgements wait.

    `ready()` is called once before the first round, when it is known what this node does; `serve()` once its daemons
    may run; `on_pause()` when the brake takes hold and when it is let go; `act()` between rounds, for what is
    to be done once.
    """

    def __init__(self, ledger: Ledger, host: Host, reconcilers: Mapping[str, Reconciler], synced: threading.Event,
                 *, reported: Callable[[], None], ready: Callable[[], None],
                 serve: Callable[[], None], on_pause: Callable[[], None] = lambda: None,
                 act: Callable[[], None] = lambda: None) -> None:  # fmt: skip
        self._ledger = ledger
        self._host = host
        self._reconcilers = reconcilers
        self._synced = synced
        self._reported = reported
        self._ready = ready
        self._start_serving = serve
        self._on_pause = on_pause
        self._act = act
        #: The brake is pulled, and no round is under way.
        self.is_paused = ledger.brake.is_pulled
        self._news = threading.Event()
        #: Something has come that nobody has looked at for what is urgent.
        self._is_unread = False
        #: Questions that wait for the end of the round.
        self._questions: deque[Callable[[], None]] = deque()
        self._is_serving = False
        #: How long it sleeps at most while nothing arrives: as often may somebody look.
        self.idle_seconds = 5.0
        self.rounds = 0
        #: Signals sent so far, by daemon.
        self.signals: dict[str, int] = {}
        #: Daemons whose live configuration is broken, with the place.
        self.blocked: dict[str, str] = {}
        self.running = ""
        #: Urgent entries that were hurried, with their generation.
        self._hurried: dict[int, int] = {}
        self.tally = Tally()

    def wake(self) -> None:
        """Something has arrived, or this node is synced now."""
        self._is_unread = True
        self._news.set()

    def between_rounds(self, act: Callable[[], None]) -> None:
        """Calls `act` on the executor's thread when no round is under way: it may look at the machine."""
        self._questions.append(act)
        self._news.set()

    def run(self, stop: threading.Event) -> None:
        """Runs rounds until `stop` is set. A round that has begun is ended."""
        self._wait_for_manager(stop)
        self._ready()
        for group in self._ledger.interrupted():
            for half in halves(group):
                if self._pass_brake(stop):
                    self.round(self._ledger.take(len(half), only=half))
        while True:
            self._news.clear()
            if not self._pass_brake(stop):  # after the clearing: a stop that wakes us in between is not slept through
                return
            self._answer()
            self._act()
            entries = self._ledger.take(ROUND)
            if len(entries) > 1 and self._hurry():
                entries = self._ledger.take(ROUND)  # with what differed before
            if entries:
                self.round(entries)
            self._serve_if_clean()
            if len(entries) < ROUND:  # else there is more: it need not be asked when
                due = self._ledger.due_seconds()
                self._news.wait(min(due, self.idle_seconds) if due is not None else self.idle_seconds)

    def _answer(self) -> None:
        while self._questions:
            self._questions.popleft()()

    def _pass_brake(self, stop: threading.Event) -> bool:
        """Waits while the brake is pulled, answering questions. Whether a round may begin then."""
        self._look_at_brake()
        while self.is_paused and not stop.is_set():
            self._answer()
            self._serve_if_clean()
            self._news.wait(5.0)
            self._news.clear()
            self._look_at_brake()
        return not stop.is_set()

    def _look_at_brake(self) -> None:
        """From here on a beat says `paused`: this thread runs the rounds, and runs none now."""
        was, self.is_paused = self.is_paused, self._ledger.brake.is_pulled
        if was != self.is_paused:
            log.info("paused" if self.is_paused else "resumed", extra={"action": "pause"})
            self._on_pause()

    def _wait_for_manager(self, stop: threading.Event) -> None:
        """No round before this start's hello is covered; a node cut off from the manager serves what it last knew."""
        alone_at = time.monotonic() + ALONE_SECONDS
        while not self._synced.is_set() and not stop.is_set():
            self._look_at_brake()
            self._news.wait(1.0)
            self._news.clear()
            if time.monotonic() > alone_at and not self._is_serving:
                log.warning("no manager answers: serving what is on this disk", extra={"action": "alone"})
                self._serve()

    def _serve_if_clean(self) -> None:
        if not self._is_serving and not self._ledger.urgent_open():
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
        work = self._work(entries, partial(self._between, frozenset(entry.id for entry in entries)))
        results = work.run()
        self._ledger.finish(results)
        for entry in entries:
            self._hurried.pop(entry.id, None)
        self._count(work.seconds)
        crash_point("round.recorded")
        self._reported()
        self.running = ""
        failed = sum(result.outcome == "failed" for result in results)
        log.info("round", extra={"action": "round", "number": self.rounds, "entries": len(entries), "failed": failed,
                                 "seconds": {key: round(value, 4) for key, value in work.seconds.items()}})  # fmt: skip
        return results

    def _work(self, entries: Sequence[Entry], between: Callable[[], object] = lambda: None) -> Round:
        return Round(self._ledger, self._host, self._reconcilers, entries, self.signals, self.blocked, between)

    def _between(self, ids: frozenset[int]) -> None:
        """Between the steps of a round of these, which may take seconds."""
        if self._is_unread:
            self._is_unread = False  # before the look: what comes meanwhile is looked at next time
            self._hurry(ids)

    def _hurry(self, but: frozenset[int] = frozenset()) -> bool:
        """Locks out whom a suspension or removal is about that has just arrived. Whether there was any.

        An entry's own round does the rest.
        """
        found = [
            entry for entry in self._ledger.take(HURRIED, is_urgent=True)
            if entry.id not in but and self._hurried.get(entry.id) != entry.generation and self._locks_out(entry)
        ]  # fmt: skip
        if found:
            self._work(found).hurry()
            self._hurried |= {entry.id: entry.generation for entry in found}
        return bool(found)

    def _locks_out(self, entry: Entry) -> bool:
        is_taken = entry.applied_spec is not None and (entry.spec is None or entry.spec.get("suspended"))
        return bool(is_taken) and isinstance(self._reconcilers.get(entry.noun), Hurries)

    def _count(self, seconds: Mapping[str, float]) -> None:
        self.tally.count(metrics.ROUNDS)
        for phase, spent in seconds.items():
            self.tally.observe(metrics.PHASES, spent, phase)
