"""The broker made fit again by a process that finds something missing: a queue that somebody deleted, say."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine, update

from ..models.moment import now as time_now
from ..models.store import Placement, writing
from .events import Happened, record

#: The topology is repaired at most this often by one process, in seconds.
REPAIR_SECONDS = 10.0


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


def tell(engine: Engine, actor: str, because: str, steps: Sequence[str]) -> None:
    """An event says that the broker was made fit, and why. What was held back for it is tried again at once."""
    with writing(engine) as connection:
        late = Placement.sent < Placement.wanted
        connection.execute(update(Placement).where(late).values(not_before_at=None))
        detail = {"because": because, "steps": list(steps)[:50]}
        record(connection, [Happened("broker.repair", actor, time_now(), outcome="applied", detail=detail)])
