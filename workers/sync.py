"""Hello, from the node's side: until its answer is covered by the ledger, no round runs.

The node says what it holds (`hello` with a digest); the manager names the buckets that differ (`welcome`); the node
lists those (`hello` with rows); the manager sends what is missing and says what must have arrived (`cover`).
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from .. import __version__
from ..models import wire
from ..models.digest import BUCKETS, Digest, bucket
from .ledger import Ledger

#: Orphans named in one letter: a name is up to 253 characters.
NAMED_AT_ONCE = 500
#: Longest wait before an unanswered hello is said again, in seconds; each wait is twice the one before. A manager to
#: which a thousand nodes come back at once must get to each before it asks anew.
LONGEST_AGAIN_SECONDS = 30.0


class Sync:
    """Where this node stands with the manager. `wake()` is called when something waits to be said."""

    def __init__(self, ledger: Ledger, again_seconds: float, wake: Callable[[], None]) -> None:
        self._ledger = ledger
        self._again_seconds = again_seconds
        self._wake = wake
        self._mutex = threading.Lock()
        self._hello = ""
        self._said = ""
        self._said_at = -1e9
        #: Seconds to wait for an answer to this one.
        self._patience_seconds = again_seconds
        #: Letters that wait to be published, as bodies.
        self._waiting: list[dict[str, Any]] = []
        #: Buckets that differ and are not covered yet; None before the welcome.
        self._uncovered: set[int] | None = None
        self._wanted: dict[int, int] = {}
        #: Set once this process's first hello is covered by the ledger; rounds may run.
        self.synced = threading.Event()

    def say_hello(self) -> None:
        """Begins anew: at start, after each reconnection, when the manager asks, when nobody answered."""
        with self._mutex:
            self._hello, self._said_at = uuid.uuid4().hex, time.monotonic()
            self._uncovered, self._wanted = None, {}
            # The last number first: one that is given out in between must not look as if nobody held it.
            last = self._ledger.outgoing.number
            self._said = self._ledger.digest.text()
            self._waiting = [each for each in self._waiting if "orphans" in each]
            self._waiting += [
                self._body(digest=self._said, held=self._ledger.outgoing.held(), last=last,
                           highest=self._ledger.highest.numbers())
            ]  # fmt: skip
        self._wake()

    def _body(self, **more: Any) -> dict[str, Any]:
        return {
            "form": "hello", "hello": self._hello, "epoch": self._ledger.outgoing.epoch, "version": __version__,
            "incarnation": self._ledger.incarnation(), **more,
        }  # fmt: skip

    def to_say(self) -> list[dict[str, Any]]:
        """Takes the letters that wait; says hello again if nobody has answered for too long."""
        unanswered = not self.synced.is_set() and time.monotonic() - self._said_at > self._patience_seconds
        if unanswered:
            longer = min(self._patience_seconds * 2, LONGEST_AGAIN_SECONDS)
            self._patience_seconds = longer * random.uniform(0.75, 1.0)
            self.say_hello()
        with self._mutex:
            waiting, self._waiting = self._waiting, []
        return waiting

    def hear(self, letter: wire.Letter) -> None:
        """Takes in a welcome, a cover or a hail. Answers to an older hello are passed over."""
        if letter.form == "hail":
            self.say_hello()
        elif letter["hello"] == self._hello:
            self._welcome(letter) if letter.form == "welcome" else self._cover(letter)
        self.look()

    def _welcome(self, letter: wire.Letter) -> None:
        self._ledger.brake.put(letter["is_paused"])
        for epoch, up_to in (letter["have"], *letter["kept"]):
            self._ledger.outgoing.forget(epoch, up_to)
        self._ledger.outgoing.publish_again((epoch, number) for epoch, number in letter["lacking"])
        with self._mutex:
            self._uncovered = {number for number in letter["differing"] if number < BUCKETS}
            if not self.synced.is_set():
                # What lay in the queue came after the hello, and may be of a life of the store that is over.
                self._uncovered |= set(Digest.parse(self._said).differing(self._ledger.digest))
            self._waiting += [self._body(**part) for part in self._parts()]
        self._wake()

    def _parts(self) -> list[dict[str, Any]]:
        """The differing buckets with their rows, cut so that each letter stays small."""
        rows = self._ledger.rows(self._uncovered or ())
        by_bucket: dict[int, list[list[int]]] = {number: [] for number in sorted(self._uncovered or ())}
        for row in rows:
            by_bucket[bucket(row[0])].append(row)
        parts: list[dict[str, Any]] = []
        for number, its in by_bucket.items():
            if not parts or len(parts[-1]["rows"]) + len(its) > wire.LISTED_AT_ONCE:
                parts.append({"buckets": [], "rows": []})
            parts[-1]["buckets"].append(number)
            parts[-1]["rows"] += its
        return parts

    def _cover(self, letter: wire.Letter) -> None:
        orphans = self._ledger.drop_unknown(letter["orphans"])
        self._ledger.repeat(letter["again"])
        with self._mutex:
            for at in range(0, len(orphans), NAMED_AT_ONCE):
                self._waiting.append(self._body(buckets=[], orphans=orphans[at : at + NAMED_AT_ONCE]))
            if self._uncovered is not None:
                self._uncovered -= set(letter["buckets"])
            self._wanted |= dict(letter["wanted"])
        self._wake()

    def look(self) -> None:
        """Sets `synced` if everything that was listed has arrived. Called after each batch that arrives."""
        with self._mutex:
            listed = self._uncovered is not None and not self._uncovered
            if self.synced.is_set() or not listed:
                return
            self._wanted = self._ledger.lacking(self._wanted)
            if self._wanted:
                return
            self.synced.set()
            self._patience_seconds = self._again_seconds
        self._wake()
