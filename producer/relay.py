"""Publishes what waits: placements with `sent < wanted`, and letters of the hello exchange. One process per store.

Nothing is locked or leased. A crash between confirmation and mark, or a second relay, publishes a generation twice,
which is harmless: numbers only rise. No transaction is open while anything is published.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, func, select, update

from ..broker_config.publisher import Publisher, Report
from ..models import wire
from ..models.crash import crash_point
from ..models.metrics import SIZES, Tally
from ..models.moment import now as time_now
from ..models.store import Action, Hello, Placement, Target, bells, pipelined, reading, together, writing
from . import actions, lives, metrics, resync
from .events import Happened, record
from .repair import REPAIR_SECONDS, tell
from .waiting import BATCH, Found, Waiting, find

#: How long the relay sleeps at most when no bell rings, in seconds; also its heartbeat.
TICK_SECONDS = 1.0
#: A placement that came back is tried again after this long, in seconds, with jitter.
CAME_BACK_SECONDS = 5.0
#: Longest wait between two tries while broker or store is away, in seconds.
LONGEST_BACKOFF_SECONDS = 5.0
#: Hellos that their node has begun anew since: it passes over an answer to them. Of a thousand nodes that come back at
#: once, each answer to such a one would make the others wait until they ask again, too.
_NEWEST = select(func.max(Hello.id)).where(Hello.begins).group_by(Hello.node_id)
_VOID = delete(Hello).where(Hello.begins, Hello.id.not_in(_NEWEST))


@dataclass
class Relay:
    """The relay's loop. `repair()` makes the topology whole again and says what it changed."""

    engine: Engine
    publisher: Publisher
    repair: Callable[[], Sequence[str]] = lambda: ()
    on_state: Callable[[str], None] = lambda text: None
    repaired_at: float = field(default=-1e9)
    #: The nodes that the broker was last made to fit; None: nobody has looked since the relay began.
    fitted: frozenset[int] | None = None
    fitted_at: float = field(default=-1e9)
    backoff_seconds: float = field(default=0.5)
    tally: Tally = field(default_factory=Tally)

    def run(self, stop: threading.Event) -> None:
        """Publishes until `stop` is set."""
        listener: bells.Listener | None = None
        try:
            while not stop.is_set():
                if not self._turn(stop, is_listening=listener is not None):
                    listener = self._rest(listener, stop)
        finally:
            if listener:
                listener.close()
            self.publisher.close()

    def _rest(self, listener: bells.Listener | None, stop: threading.Event) -> bells.Listener | None:
        """Sleeps until the bell rings. A listener that the store has dropped is given up; the next one is new."""
        try:
            listener = listener or bells.Listener(self.engine, bells.RELAY)
            listener.wait(TICK_SECONDS)
        except Exception as error:  # psycopg and SQLAlchemy each have a tree of their own
            self.on_state(f"waiting for the store: {type(error).__name__}")
            if listener:
                listener.close()
            stop.wait(TICK_SECONDS * random.random())
            return None
        return listener

    def _turn(self, stop: threading.Event, *, is_listening: bool) -> bool:
        """Whether there may be more to do at once. Where the bell is heard, it has rung for what came meanwhile."""
        try:
            published, why = self.once()
        except Exception as error:  # the store is away or locked: nothing was marked, all of it waits
            published, why = 0, f"{type(error).__name__}: {error}"
        if why:
            self.on_state(f"waiting: {why}")
            stop.wait(self.backoff_seconds * (0.5 + random.random()))
            self.backoff_seconds = min(self.backoff_seconds * 2, LONGEST_BACKOFF_SECONDS)
            return True
        self.backoff_seconds = 0.5
        if not published:
            lost = self.publisher.tick()
            self.on_state(f"idle, lost the broker: {lost}" if lost else "idle")
        return published >= BATCH or bool(published and not is_listening)

    def once(self) -> tuple[int, str]:
        """Answers hellos, publishes one batch and marks it. Gives how many were taken and why some were not."""
        found = self._find()
        if found.is_asked:
            self._answer_hellos()
            found = self._find()
        self._fence(found.nodes)
        batch = found.batch()
        if not batch:
            return 0, ""
        crash_point("relay.read")
        began = time.monotonic()
        report = self.publisher.send([waiting.letter for waiting in batch])
        crash_point("relay.confirmed")
        self._count(report, len(batch), time.monotonic() - began)
        self._mark(batch, report)
        crash_point("relay.marked")
        if report.unroutable or report.code in (403, 404):
            self._repair(report)
        return len(batch), report.why

    def _find(self) -> Found:
        with reading(self.engine) as connection:
            return find(connection)

    def _fence(self, alive: frozenset[int]) -> None:
        """A node that was removed while the broker was away still has a user there: it is taken away now."""
        if self.fitted is not None and self.fitted <= alive:
            self.fitted = alive
        elif time.monotonic() - self.fitted_at > REPAIR_SECONDS:
            self.fitted_at = time.monotonic()
            if self._make_fit("a node was removed" if self.fitted else ""):
                self.fitted = alive

    def _count(self, report: Report, size: int, seconds: float) -> None:
        self.tally.observe(metrics.SENT_TOGETHER, size, bounds=SIZES)
        self.tally.observe(metrics.CONFIRMED, seconds)
        for name, which in ((metrics.PUBLISHED, report.sent), (metrics.UNROUTABLE, report.unroutable),
                              (metrics.NACKED, report.nacked)):  # fmt: skip
            self.tally.count(name, len(which))

    def _answer_hellos(self) -> None:
        with writing(self.engine) as connection:
            connection.execute(_VOID)
            for row in connection.execute(select(Hello).order_by(Hello.id).limit(64)).all():
                self._answer(connection, row)
                connection.execute(delete(Hello).where(Hello.id == row.id))

    def _answer(self, connection: Connection, row: Any) -> None:
        try:
            hello = wire.decode(row.body)
        except wire.Undecodable as error:  # stored by an older release; nobody else must wait behind it
            detail = {"why": str(error)[:500]}
            record(connection, [Happened("bus.refuse", "relay", time_now(), outcome="refused", detail=detail)])
            return
        lives.heard_of(connection, hello, time_now())
        resync.answer(connection, row.node_id, hello, time_now())

    def _mark(self, batch: Sequence[Waiting], report: Report) -> None:
        """Raises `sent` to what was published, never to what is wanted by now."""
        sent, now = set(report.sent), time_now()
        done = [waiting for waiting in batch if waiting.letter.message_id in sent]
        placed = [waiting for waiting in done if not waiting.action_id]
        back = {**report.unroutable, **dict.fromkeys(report.nacked, "refused by the broker: the node's queue is full")}
        returned = [waiting for waiting in batch if waiting.letter.message_id in back]
        with writing(self.engine) as connection:
            with pipelined(connection):
                if placed:
                    self._mark_placed(connection, placed, now)
                went = [waiting.action_id for waiting in done if waiting.action_id]
                if went:
                    connection.execute(delete(Action).where(Action.id.in_(went)))
                    _mark_targets(connection, [waiting for waiting in done if waiting.action_id], now)
            self._hold_back(connection, returned, back, now)

    def _mark_placed(self, connection: Connection, placed: list[Waiting], now: datetime) -> None:
        placed.sort(key=lambda waiting: (waiting.resource_id, waiting.node_id))
        sent = [{"resource_id": w.resource_id, "node_id": w.node_id, "sent": w.generation, "not_before_at": None,
                 "reason": None} for w in placed]  # fmt: skip
        together.change(connection, Placement, sent, ("resource_id", "node_id"), _is_news)
        _mark_targets(connection, placed, now)

    def _hold_back(self, connection: Any, returned: Sequence[Waiting], back: dict[str, str], now: datetime) -> None:
        for waiting in returned:
            if waiting.action_id:
                connection.execute(delete(Action).where(Action.id == waiting.action_id))
                if waiting.job_id is not None:
                    why = back[waiting.letter.message_id]
                    actions.came_back(connection, waiting.job_id, waiting.node_id, why, now)
                continue
            later = now + timedelta(seconds=CAME_BACK_SECONDS * (0.5 + random.random()))
            connection.execute(
                update(Placement)
                .where(Placement.node_id == waiting.node_id, Placement.resource_id == waiting.resource_id)
                .values(not_before_at=later, reason=f"not sent: {back[waiting.letter.message_id]}")
            )

    def _repair(self, report: Report) -> None:
        if time.monotonic() - self.repaired_at < REPAIR_SECONDS:
            return
        self.repaired_at = time.monotonic()
        self._make_fit(report.why or next(iter(report.unroutable.values()), ""))

    def _make_fit(self, because: str) -> bool:
        """Whether the broker is now as it should be. An event tells of it, if there was a cause or a change."""
        try:
            steps = list(self.repair())
        except Exception as error:  # the broker may be half up; asked again after REPAIR_SECONDS
            self.on_state(f"cannot repair the broker's topology: {error}")
            return False
        if because or steps:
            tell(self.engine, "relay", because, steps)
        return True


def _mark_targets(connection: Connection, sent: Sequence[Waiting], now: datetime) -> None:
    targets = [{"job_id": w.job_id, "node_id": w.node_id, "sent_at": now} for w in sent if w.job_id is not None]
    together.change(connection, Target, targets, ("job_id", "node_id"), _is_unsent)


def _is_news(new: Mapping[str, Any]) -> ColumnElement[bool]:
    return and_(Placement.sent < new["sent"], Placement.wanted >= new["sent"])


def _is_unsent(new: Mapping[str, Any]) -> ColumnElement[bool]:
    return Target.sent_at.is_(None)
