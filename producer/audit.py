"""What nodes say is taken in, one transaction per batch: acknowledgements, beats, hellos, and what nobody could read.

Identity is the broker user of the sender, which the broker has checked, never a routing key or a field of the body.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, Engine, insert

from ..broker_config import routing
from ..broker_config.consumer import Delivery
from ..models import wire
from ..models.canonical import canonical
from ..models.crash import crash_point
from ..models.metrics import SIZES, Tally
from ..models.moment import now as time_now
from ..models.store import Hello, bells, retried, writing
from . import acknowledgements, metrics, traffic, usage
from . import dead as dead_letters
from .events import Happened, record
from .membership import Node, nodes
from .presence import Presence

#: What the audit process takes in: letters of nodes, their beats, and what nobody else could take in.
QUEUES = (routing.AUDIT_QUEUE, routing.BEAT_QUEUE, routing.DEAD_QUEUE)


class Audit:
    """Stores batches of what nodes say. `store` is durable when it returns."""

    def __init__(self, engine: Engine, presence: Presence) -> None:
        self._engine = engine
        self._presence = presence
        self.tally = Tally()

    def store(self, batch: Sequence[Delivery]) -> list[Delivery]:
        """Writes a batch; gives the deliveries that belong in the dead-letter queue."""
        letters, dead = [], []
        died = [delivery for delivery in batch if delivery.queue == routing.DEAD_QUEUE]
        for delivery in batch:
            if delivery.queue == routing.DEAD_QUEUE:
                continue
            try:
                letters.append((delivery, wire.decode(delivery.body)))
            except wire.Undecodable as error:
                dead.append((delivery, str(error)))
        began = time.monotonic()
        refused = retried(lambda: self._write(letters, dead, died, time_now()))
        crash_point("audit.committed")
        self.tally.observe(metrics.WRITTEN, time.monotonic() - began)
        self.tally.observe(metrics.TAKEN_TOGETHER, len(batch), bounds=SIZES)
        self.tally.count(metrics.ACKNOWLEDGED, sum(letter.form == "ack" for _, letter in letters))
        self.tally.count(metrics.REFUSED, len(refused))
        return refused

    def _write(self, letters: Sequence[tuple[Delivery, wire.Letter]], undecodable: Sequence[tuple[Delivery, str]],
               died: Sequence[Delivery], now: datetime) -> list[Delivery]:  # fmt: skip
        """One transaction; gives what was refused."""
        dead = list(undecodable)
        with self._presence.unless_it_fails(), writing(self._engine) as connection:
            alive = {node.name: node for node in nodes(connection, {letter.node for _, letter in letters}).values()}
            good = []
            for delivery, letter in letters:
                node = alive.get(letter.node)
                if node is None or delivery.user != routing.node_user(letter.node):
                    dead.append((delivery, f"says it is {letter.node!r}, but user {delivery.user!r} sent it"))
                else:
                    good.append((node, letter))
            _refuse(connection, dead, now)
            dead_letters.keep(connection, died, now)
            _hellos(connection, good, now)
            self._presence.hear(connection, [(n, each) for n, each in good if each.form in ("beat", "hello")], now)
            used = [(n, each) for n, each in good if each.form == "usage"]
            usage.store(connection, used, now)
            traffic.store(connection, used, now)
            acknowledgements.store(connection, [(n, each) for n, each in good if each.form == "ack"], now)
            crash_point("audit.written")
        return [delivery for delivery, _ in dead]


def _refuse(connection: Connection, dead: Iterable[tuple[Delivery, str]], now: datetime) -> None:
    record(
        connection,
        [Happened("bus.refuse", delivery.user or "nobody", now, outcome="refused",
                  detail={"queue": delivery.queue, "key": delivery.routing_key, "why": why[:500]})
         for delivery, why in dead],
    )  # fmt: skip


def _hellos(connection: Connection, letters: Iterable[tuple[Node, wire.Letter]], now: datetime) -> None:
    rows = [
        {
            "node_id": node.id,
            "body": canonical(dict(letter.body)),
            "arrived_at": now,
            "begins": letter["digest"] is not None,
        }
        for node, letter in letters
        if letter.form == "hello"
    ]
    if rows:
        connection.execute(insert(Hello), rows)
        bells.ring(connection, bells.RELAY)
