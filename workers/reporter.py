"""Publishes what the ledger has to report, in order, until the broker confirms it; says hello; gives signs of life."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..broker_config import routing
from ..broker_config.publisher import Letter, Publisher
from ..models import wire
from ..models.crash import crash_point
from .outgoing import AT_ONCE

if TYPE_CHECKING:
    from .ledger import Ledger
    from .sync import Sync

log = logging.getLogger(__name__)

#: Longest sleep without a reason, in seconds: the connection wants a tick.
TICK_SECONDS = 2.5
#: Shortest time between two of those, in seconds.
BETWEEN_TICKS_SECONDS = 1.0
#: A broker that is away is tried again after this long at first, in seconds.
BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 5.0


class Reporter:
    """`status()` gives what a beat says beside the ledger's counts."""

    def __init__(self, publisher: Publisher, node: str, ledger: Ledger, beat_seconds: float,
                 status: Callable[[], dict[str, Any]]) -> None:  # fmt: skip
        self._publisher = publisher
        self._node = node
        self._ledger = ledger
        self._beat_seconds = beat_seconds
        self._status = status
        self._news = threading.Event()
        self._answers: deque[tuple[str, dict[str, Any]]] = deque()
        self._usage: dict[str, Sequence[dict[str, Any]]] = {}
        self._beat_at = 0.0
        self._ticked_at = 0.0
        self._backoff_seconds = BACKOFF_SECONDS
        self.state = "starting"

    def wake(self) -> None:
        """Something waits to be reported."""
        self._news.set()

    def beat(self) -> None:
        """Gives a sign of life at once: something has changed that the manager waits for."""
        self._beat_at = -1e9
        self.wake()

    def usage(self, kind: str, bodies: Sequence[dict[str, Any]]) -> None:
        """Publishes what accounts use, instead of what was said of this kind before and could not be published."""
        self._usage[kind] = bodies
        self.wake()

    def answer(self, asker: str, body: dict[str, Any]) -> None:
        """Publishes an answer, once; whoever asked may be gone by now."""
        self._answers.append((asker, body))
        self.wake()

    def run(self, sync: Sync, stop: threading.Event) -> None:
        """Reports until `stop` is set; then once more, so that what is done is known."""
        unsent: list[dict[str, Any]] = []
        while not stop.is_set():
            self._news.wait(max(0.0, min(TICK_SECONDS, self._beat_at + self._beat_seconds - time.monotonic())))
            self._news.clear()
            unsent += sync.to_say()
            why = self._turn(unsent)
            if why:
                self.state = f"waiting for the broker: {why}"
                log.warning("cannot report", extra={"action": "report", "why": why})
                stop.wait(self._backoff_seconds * (0.5 + random.random()))
                self._backoff_seconds = min(self._backoff_seconds * 2, LONGEST_BACKOFF_SECONDS)
            else:
                self.state, self._backoff_seconds = "reporting", BACKOFF_SECONDS
                unsent.clear()
        self._turn(unsent)
        self._publisher.close()

    def _turn(self, hellos: list[dict[str, Any]]) -> str:
        """Publishes everything that waits. Gives why the rest could not be."""
        letters = [self._letter(f"hello.{number}", routing.hello_key(self._node), "hello", body)
                   for number, body in enumerate(hellos)]  # fmt: skip
        if time.monotonic() - self._beat_at >= self._beat_seconds:
            letters.append(self._letter("beat", routing.beat_key(self._node), "beat", self._beat()))
        measured = dict(self._usage)
        # By the way of beats: what is lost comes again.
        letters += [self._letter(f"usage.{kind}.{number}", routing.beat_key(self._node), "usage", body)
                    for kind, bodies in measured.items() for number, body in enumerate(bodies)]  # fmt: skip
        if letters:
            report = self._publisher.send(letters)
            if report.why or report.unroutable or report.nacked:
                return report.why or next(iter(report.unroutable.values()), "a queue of the manager is full")
            if any(letter.message_id == "beat" for letter in letters):
                self._beat_at = time.monotonic()
            for kind, bodies in measured.items():
                if self._usage[kind] is bodies:  # else there is news
                    self._usage[kind] = ()
        self._send_answers()
        return self._acknowledgements() or self._tick()

    def _tick(self) -> str:
        """Looks after the connection; not after each of many letters, as it takes a wait that comes to nothing."""
        if time.monotonic() - self._ticked_at < BETWEEN_TICKS_SECONDS:
            return ""
        self._ticked_at = time.monotonic()
        return self._publisher.tick()

    def _send_answers(self) -> None:
        letters = []
        while self._answers:
            asker, body = self._answers.popleft()
            key = routing.answer_key(self._node, asker)
            try:
                letters.append(self._letter(body["question"], key, "answer", body))
            except ValueError as error:  # more than a letter may hold
                less = {"question": body["question"], "reason": f"the answer cannot travel: {error}"}
                letters.append(self._letter(body["question"], key, "answer", less))
        if letters:
            self._publisher.send(letters)

    def _acknowledgements(self) -> str:
        while rows := self._ledger.outgoing.unpublished():
            letters = [
                Letter(f"{row['epoch']}.{row['number']}", routing.ack_key(self._node, row["noun"]),
                       wire.joined(row["body"], form="ack", node=self._node), str(row["job"] or ""), "ack")
                for row in rows
            ]  # fmt: skip
            crash_point("reporter.read")
            report = self._publisher.send(letters)
            crash_point("reporter.confirmed")
            done = [(int(epoch), int(number)) for epoch, _, number in (each.partition(".") for each in report.sent)]
            self._ledger.outgoing.published(done)
            if report.why or report.unroutable or report.nacked:
                return report.why or next(iter(report.unroutable.values()), "a queue of the manager is full")
            if len(rows) < AT_ONCE:
                break  # what has come meanwhile has rung
        return ""

    def _letter(self, message_id: str, key: str, kind: str, body: dict[str, Any]) -> Letter:
        data = wire.encode(**{"form": kind, **body, "node": self._node})
        return Letter(message_id, key, data, type=kind)

    def _beat(self) -> dict[str, Any]:
        return {
            "epoch": self._ledger.outgoing.epoch, "version": __version__, "root": self._ledger.digest.root(),
            "last": self._ledger.outgoing.number, "at": time.time(), **self._ledger.counts(), **self._status(),
        }  # fmt: skip
