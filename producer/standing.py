"""How things stand, in numbers out of the store: what waits and for whom, what is held, paused, dead or not sealed."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, select

from ..models import moment, nouns, states
from ..models.store import Dead, Event, Job, NodeStatus, Pause, Placement, Resource, Revision, Seal, Target
from . import dead, expiry, query


def standing(connection: Connection) -> dict[str, Any]:
    """Everything of the store that a verdict is made of, by node where it belongs to one."""
    nodes = query.nodes(connection)
    oldest, sent, strange = _oldest(connection), _sent(connection), _orphans(connection)
    for node in nodes:
        node |= {
            "oldest": oldest.get(node["id"]),
            "sent_at": sent.get(node["id"]),
            "orphans": strange.get(node["id"], 0),
        }
    failed = connection.execute(
        select(func.count()).select_from(Placement)
        .where(Placement.outcome == states.Outcome.FAILED, Placement.done == Placement.wanted)
    ).scalar_one()  # fmt: skip
    return {
        "nodes": nodes, "resources": _resources(connection), "jobs_running": _jobs(connection, states.Job.RUNNING),
        "jobs_held": _jobs(connection, states.Job.HELD), "placements_open": sum(node["open"] for node in nodes),
        "oldest_open_at": min((each["since_at"] for each in oldest.values()), default=None),
        "placements_failed": failed, "dead_letters": kept(connection), "pauses": _pauses(connection),
        "certificates": expiry.expiring(connection, moment.now()),
    } | seal_lag(connection)  # fmt: skip


def _resources(connection: Connection) -> dict[str, int]:
    rows = connection.execute(
        select(Resource.noun, func.count()).where(Resource.absent.is_(False)).group_by(Resource.noun)
    )
    found = {row[0]: int(row[1]) for row in rows}
    return {noun: found.get(noun, 0) for noun in nouns.nouns()}


def _jobs(connection: Connection, state: states.Job) -> int:
    open_ones = select(func.count()).select_from(Job).where(Job.ended_at.is_(None), Job.state == state)
    return int(connection.execute(open_ones).scalar_one())


def open_since() -> Any:
    """Subquery: each open placement, and since when a generation is wanted that it is not done with."""
    return (
        select(Placement.node_id, Placement.resource_id, Placement.sent, Placement.done,
               func.min(Revision.created_at).label("since_at"))
        .join(Revision, and_(Revision.resource_id == Placement.resource_id, Revision.generation > Placement.done,
                             Revision.generation <= Placement.wanted))
        .where(Placement.done < Placement.wanted)
        .group_by(Placement.node_id, Placement.resource_id)
        .subquery()
    )  # fmt: skip


def _oldest(connection: Connection) -> dict[int, dict[str, Any]]:
    """For each node the placement that waits longest, and whose it is."""
    each = open_since()
    turn = func.row_number().over(partition_by=each.c.node_id, order_by=(each.c.since_at, each.c.resource_id))
    ranked = select(each, turn.label("turn")).subquery()
    rows = connection.execute(
        select(ranked, Resource.noun, Resource.name)
        .join(Resource, Resource.id == ranked.c.resource_id)
        .where(ranked.c.turn == 1)
    )
    return {
        row.node_id: {"noun": row.noun, "name": row.name, "since_at": row.since_at, "is_sent": row.sent > row.done}
        for row in rows
    }


def _sent(connection: Connection) -> dict[int, datetime]:
    """For each node when the oldest letter was sent that it is not done with."""
    rows = connection.execute(
        select(Target.node_id, func.min(Target.sent_at))
        .join(Job, Job.id == Target.job_id)
        .join(Placement, and_(Placement.resource_id == Job.resource_id, Placement.node_id == Target.node_id,
                              Job.generation > Placement.done, Job.generation <= Placement.sent))
        .where(Placement.done < Placement.wanted, Target.sent_at.is_not(None))
        .group_by(Target.node_id)
    )  # fmt: skip
    return {row[0]: row[1] for row in rows if row[1]}


def _orphans(connection: Connection) -> dict[int, int]:
    rows = connection.execute(select(NodeStatus.node_id, NodeStatus.orphans).where(NodeStatus.orphans.is_not(None)))
    return {row.node_id: len(json.loads(row.orphans)) for row in rows}


def kept(connection: Connection) -> int:
    """Dead letters that nobody has decided on."""
    return int(connection.execute(select(func.count()).select_from(Dead).where(Dead.state == dead.KEPT)).scalar_one())


def _pauses(connection: Connection) -> list[dict[str, Any]]:
    """Brakes that are pulled; `node` is None for all of them."""
    rows = connection.execute(
        select(Pause, Resource.name.label("node")).outerjoin(Resource, Resource.id == Pause.node_id).order_by(Pause.at)
    )
    return [{"node": row.node, "actor": row.actor, "reason": row.reason, "at": row.at} for row in rows]


def seal_lag(connection: Connection) -> dict[str, Any]:
    """How many events are newer than the newest sealed one, and since when the oldest of them waits.

    Asks the ends of two indexes, however long the audit store is.
    """
    newest = select(func.coalesce(func.max(Seal.event_id), 0)).scalar_subquery()
    row = connection.execute(select(func.count(), func.min(Event.at)).where(Event.id > newest)).one()
    return {"unsealed": row[0], "unsealed_at": row[1]}
