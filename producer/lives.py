"""A store that was put back begins a new life: a new incarnation, and nothing it knows of nodes is taken for granted.

Numbers given out after the backup are on nodes and not in the store. Ids and generations come from a range of the new
life; uids wait until every node has said its highest; what else a node has beyond the store shows at its hello.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, update

from ..models import states, wire
from ..models.store import Action, Hello, NodeStatus, Placement, bells
from . import membership, numbers, resync
from .events import Happened, record

#: Lives of a store are told apart by the minutes since then.
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


#: A node that has heard of a later life than this is not believed: the clock of no restore was so far ahead.
AHEAD_MINUTES = 24 * 60


def heard_of(connection: Connection, hello: wire.Letter, now: datetime) -> None:
    """A node knows a later life: this backup was restored before, or by a clock ahead. One above both begins."""
    theirs = hello["incarnation"]
    if numbers.incarnation(connection) < theirs <= _minutes(now) + AHEAD_MINUTES:
        begin(connection, theirs, "onehost", now, "store.life", {"heard_of": theirs, "node": hello.node})


def _minutes(now: datetime) -> int:
    return int((now - BEGINNING).total_seconds()) // 60


def begin(connection: Connection, above: int, actor: str, now: datetime, kind: str,
          detail: Mapping[str, Any]) -> int:  # fmt: skip
    """Begins a life above any that is known; all nodes are asked to say hello. Gives its incarnation."""
    life = max(_minutes(now), above + 1, 1)
    numbers.set_incarnation(connection, life)
    connection.execute(update(NodeStatus).values(state=states.NodeState.NEW, state_at=now, beat=None, reported=0,
                                                 orphans=None))  # fmt: skip
    connection.execute(update(Placement).where(Placement.not_before_at.is_not(None)).values(not_before_at=None))
    for table in (Action, Hello):
        connection.execute(delete(table))
    for node in membership.nodes(connection).values():
        resync.hail(connection, node.id, node.name, now)
    record(connection, [Happened(kind, actor, now, outcome="applied",
                                 detail={"incarnation": life, **detail})])  # fmt: skip
    bells.ring(connection, bells.RELAY, bells.JOBS)
    return life
