"""Hello, from the node's side: until its answer is covered by the ledger, no round runs.

The node says what it holds (`hello` with a digest); the manager names the buckets that differ (`welcome`); the node
lists those (`hello` with rows); the manager sends what is missing and says what must have arrived (`cover`).
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from .. import __version__
from ..models import wire
from ..models.digest import BUCKETS, bucket
from .ledger import Ledger


class Sync:
    """Where this node stands with the manager. `wake()` is called when something waits to be said."""

    def __init__(self, ledger: Ledger, again_seconds: float, wake: Callable[[], None]) -> None:
        self._ledger = ledger
        self._again_seconds = again_seconds
        self._wake = wake
        self._mutex = threading.Lock()
        self._hello = ""
        self._said_at = -1e9
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
            self._waiting = [
                self._body(digest=self._ledger.digest.text(), held=self._ledger.outgoing.held(), last=last)
            ]
        self._wake()

    def _body(self, **more: Any) -> dict[str, Any]:
        return {
            "form": "hello", "hello": self._hello, "epoch": self._ledger.outgoing.epoch, "version": __version__,
            "incarnation": self._ledger.incarnation(), **more,
        }  # fmt: skip

    def to_say(self) -> list[dict[str, Any]]:
        """Takes the letters that wait; says hello again if nobody has answered for too long."""
        unanswered = not self.synced.is_set() and time.monotonic() - self._said_at > self._again_seconds
        if unanswered:
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
        for epoch, up_to in (letter["have"], *letter["kept"]):
            self._ledger.outgoing.forget(epoch, up_to)
        self._ledger.outgoing.publish_again((epoch, number) for epoch, number in letter["lacking"])
        with self._mutex:
            self._uncovered = {number for number in letter["differing"] if number < BUCKETS}
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
        self._ledger.drop_unknown(letter["orphans"])
        self._ledger.repeat(letter["again"])
        with self._mutex:
            if self._uncovered is not None:
                self._uncovered -= set(letter["buckets"])
            self._wanted |= dict(letter["wanted"])
        self._wake()

    def look(self) -> None:
        """Sets `synced` if everything that was listed has arrived. Called after each batch that arrives."""
        with self._mutex:
            listed = self._uncovered is not None and not self._uncovered
            done = listed and self._ledger.holds(self._wanted)
        if done and not self.synced.is_set():
            self.synced.set()
            self._wake()
