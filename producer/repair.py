"""The broker made fit again by a process that finds something missing: a queue that somebody deleted, say."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine, update

from ..models.moment import now as time_now
from ..models.store import Placement, writing
from .events import Happened, record

log = logging.getLogger(__name__)

#: The topology is repaired at most this often by one process, in seconds.
REPAIR_SECONDS = 10.0
#: Between two looks at the broker, in seconds, however often one is asked for.
BETWEEN_LOOKS_SECONDS = 1.0


@dataclass
class Repair:
    """What the audit process does when a queue of its own is not there. `act` makes it fit and says its steps."""

    engine: Engine
    actor: str
    act: Callable[[], Sequence[str]]
    repaired_at: float = field(default=-1e9)

    def __call__(self, because: str) -> None:
        """Repairs, unless it has just been done. Raises what `act` raises."""
        if time.monotonic() - self.repaired_at < REPAIR_SECONDS:
            return
        self.repaired_at = time.monotonic()
        tell(self.engine, self.actor, because, list(self.act()))

    def look(self) -> None:
        """Repairs what needs it, and says nothing if nothing does. Raises what `act` raises."""
        steps = list(self.act())
        if steps:
            tell(self.engine, self.actor, "the broker was away", steps)


@dataclass
class Look:
    """Looks the broker over whenever it may have been away, on a thread of its own: it may have come back unfit.

    Consumers and publishers cannot find that out: a queue without a leader leaves them waiting. Whoever connects asks
    for a look, so one comes soon after the broker is back.
    """

    repair: Repair
    _is_due: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        """The broker may have been away."""
        self._is_due.set()

    def run(self, stop: threading.Event) -> None:
        """Looks when asked to, and again after a while if it could not; ends soon after `stop`."""
        last, again_at = "", math.inf
        while not stop.is_set():
            if not self._is_due.wait(BETWEEN_LOOKS_SECONDS) and time.monotonic() < again_at:
                continue
            self._is_due.clear()
            why, again_at = "", math.inf
            try:
                self.repair.look()
            except Exception as error:  # broker or store is still away, or half up
                why, again_at = str(error), time.monotonic() + REPAIR_SECONDS
                if why != last:
                    log.warning("cannot look the broker over", extra={"action": "look", "why": why})
            last = why
            stop.wait(BETWEEN_LOOKS_SECONDS)


def tell(engine: Engine, actor: str, because: str, steps: Sequence[str]) -> None:
    """An event says that the broker was made fit, and why. What was held back for it is tried again at once."""
    with writing(engine) as connection:
        late = Placement.sent < Placement.wanted
        connection.execute(update(Placement).where(late).values(not_before_at=None))
        detail = {"because": because, "steps": list(steps)[:50]}
        record(connection, [Happened("broker.repair", actor, time_now(), outcome="applied", detail=detail)])
