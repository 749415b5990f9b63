"""One round: entries applied together, with one validation and one signal for each daemon, each proved for itself.

A resource that cannot be applied fails alone: its files are put back and the rest of the round goes on. A daemon whose
live configuration is broken by another hand blocks what needs it and blames nobody.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..models.crash import crash_point
from ..models.errors import Blocked, HostError, Pending, Temporary
from . import drift
from .entry import Difference, Entry
from .host.kept import Kept
from .ledger import Ledger
from .outgoing import Result
from .reconcilers import Hurries, Reconciler

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


class Round:
    """The entries of one round and how far each has come."""

    def __init__(self, ledger: Ledger, host: Host, reconcilers: Mapping[str, Reconciler], entries: Sequence[Entry],
                 signals: dict[str, int], blocked: dict[str, str],
                 between: Callable[[], object] = lambda: None) -> None:  # fmt: skip
        self._ledger = ledger
        self._host = host
        self._reconcilers = reconcilers
        self._signals = signals
        self._blocked = blocked
        #: Called again and again, between the steps.
        self._between = between
        self._entries = list(entries)
        self._results: dict[int, Result] = {}
        self._differences: dict[int, Difference] = {}
        self._began = time.monotonic()
        #: Entries of which nothing has been begun since they were applied: what differs there, another hand did.
        self._untouched: frozenset[int] = frozenset()
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
        crash_point("round.verified")
        return list(self._results.values())

    def hurry(self) -> None:
        """Only what must not wait for the end of another round. What differs is noted before, for the own round.

        What another hand changed waits all the same: a look at it would forget what the other round has staged.
        """
        self._untouched = self._ledger.untouched(entry.id for entry in self._entries)
        self._entries = [entry for entry in self._entries if self._is_plain(entry)]
        self._compare()
        for entry in self._alive:
            if isinstance(reconciler := self._reconciler(entry), Hurries):
                self._try(entry, partial(reconciler.hurry, entry, self._host))

    def all(self, noun: str) -> list[Entry]:
        """What a reconciler may look at: other resources of this node."""
        return self._ledger.entries(noun)

    def _reconciler(self, entry: Entry) -> Reconciler:
        return self._reconcilers[entry.noun]

    def _compare(self) -> None:
        for entry in self._entries:
            if entry.needs or entry.noun not in self._reconcilers:
                self._end(entry, "failed", entry.needs or f"needs a worker that knows {entry.noun}")
            elif len(self._entries) == 1 and entry.starts >= DEADLY_STARTS:
                self._end(entry, "failed", f"worker died {DEADLY_STARTS} times while it was applying this")
        if not self._alive:
            return
        self._untouched = self._ledger.untouched(entry.id for entry in self._alive if entry.applied_spec is not None)
        self._ledger.start(self._alive)
        found: list[tuple[Entry, Difference]] = []
        for entry in self._alive:
            self._try(entry, partial(self._compare_one, entry, found))
        self._differences = self._ledger.keep(found)
        crash_point("round.started")

    def _compare_one(self, entry: Entry, found: list[tuple[Entry, Difference]]) -> None:
        difference = self._reconciler(entry).compare(entry, self._host, self)
        if difference and (words := self._by_hand(entry)):
            difference = {"by hand": words, **difference}
        found.append((entry, difference))

    def _by_hand(self, entry: Entry) -> str:
        """What another hand changed of it since it was applied: kept aside, as this round overwrites it, and said."""
        if not self._is_edited(entry):
            return ""
        before = _before(entry)
        ids, kept = self._ledger.ids(), Kept(self._host.machine)
        found = drift.look(self._host, self._reconcilers, [before], ids, entry.roles, self)
        found = [each for each in found if each.owner == entry.id]
        for each in found:
            if each.path:
                kept.keep(each.path)
        words = "; ".join(f"{each.path} {each.what}".strip() for each in found)
        return f"{words}; what was there is kept in {kept.folder}" if kept.is_used else words

    def _is_edited(self, entry: Entry) -> bool:
        if entry.id not in self._untouched or not self._host.daemons:
            return False
        return bool(self._reconciler(entry).compare(_before(entry), self._host, self))

    def _is_plain(self, entry: Entry) -> bool:
        """Whether no other hand has touched it. Where that cannot be told, its own round does it and says why."""
        try:
            return not self._is_edited(entry)
        except Exception as error:
            log.info(
                "not hurried", extra={"action": "hurry", "resource": f"{entry.noun}/{entry.name}", "why": str(error)}
            )
            return False

    def _stage(self) -> None:
        for step in ("prepare", "stage"):
            for entry in self._alive:
                self._step(entry, step)

    def _step(self, entry: Entry, step: str) -> None:
        self._between()
        self._try(entry, lambda: getattr(self._reconciler(entry), step)(entry, self._host, self))

    def _try(self, entry: Entry, act: Callable[[], Any]) -> None:
        """Runs a step of one entry. What it raises ends this entry alone, and what it staged is put back.

        Pending alone puts nothing back: the change is made and stands, it is only not over.
        """
        try:
            act()
        except Exception as error:
            if not isinstance(error, HostError | OSError):
                log.exception("a reconciler failed", extra={"action": "step", "resource": f"{entry.noun}/{entry.name}"})
            self._fail(entry, error)

    def _fail(self, entry: Entry, error: Exception) -> None:
        if not isinstance(error, Pending):
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
            self._validate_all()
            for daemon in self._host.daemons:
                self._commit_one(daemon)
            if not self._changed():
                return

    def _validate_all(self) -> None:
        """All before any is switched: what one daemon refuses, or cannot take now, is not made and undone at others."""
        passed: dict[str, frozenset[int]] = {}
        while waiting := [d for d in self._host.daemons if d.changed() and d.changed() != passed.get(d.name)]:
            daemon = waiting[0]
            self._timed(f"validate {daemon.name}", partial(self._validate, daemon, sorted(daemon.changed())))
            passed[daemon.name] = daemon.changed()

    def _commit_one(self, daemon: Daemon) -> None:
        changed = daemon.changed()
        if not changed:
            return
        try:
            self._timed("files", daemon.switch)
            crash_point("round.switched")
            self._timed(f"signal {daemon.name}", daemon.signal)
        except (HostError, OSError) as error:
            self._fail_all(changed, error)
            return
        self._signals[daemon.name] = self._signals.get(daemon.name, 0) + 1

    def _validate(self, daemon: Daemon, owners: Sequence[int]) -> None:
        try:
            daemon.validate()
            self._blocked.pop(daemon.name, None)
        except Blocked as error:
            self._blocked[daemon.name] = str(error)
            self._fail_all(owners, error)
        except (Temporary, OSError) as error:
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
        """Halves the group until the culprit stands alone.

        What passed stays staged and the next part is tried on top of it: two that only fail together are found too.
        """
        if len(owners) == 1:
            self._fail_all(owners, error)
            return
        for owner in owners:
            daemon.restore(owner)
        for half in halves(owners):
            self._stage_again(half)
            self._validate(daemon, half)

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
        self._between()
        began = time.monotonic()
        try:
            act()
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - began


def _before(entry: Entry) -> Entry:
    return replace(entry, spec=entry.applied_spec, generation=entry.applied)


def halves(ids: Sequence[int]) -> list[Sequence[int]]:
    """Two halves; a group of one as it is, of none nothing."""
    middle = len(ids) // 2
    return [part for part in (ids[:middle], ids[middle:]) if part]
