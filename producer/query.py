"""Answers: what is wanted, which of n nodes have applied it, who asked for what and when. Reads only, plain dicts."""

from __future__ import annotations

import difflib
import json
from typing import Any

from sqlalchemy import Connection, and_, case, func, select

from ..models import states
from ..models.errors import NotFound
from ..models.store import Job, NodeStatus, Placement, Resource, Revision, Target
from . import pause

#: Rows of a page, unless the caller says otherwise.
PAGE = 50


def resources(connection: Connection, noun: str) -> list[dict[str, Any]]:
    """Every living resource of a noun, with its spec (no secrets) and how many placements are behind."""
    behind = (
        select(Placement.resource_id, func.count().label("placements"),
               func.sum(_as_number(Placement.done < Placement.wanted)).label("open"),
               func.sum(_as_number(Placement.outcome == states.Outcome.FAILED)).label("failed"))
        .group_by(Placement.resource_id).subquery()
    )  # fmt: skip
    rows = connection.execute(
        select(Resource, Revision.payload, behind.c.placements, behind.c.open, behind.c.failed)
        .join(Revision, and_(Revision.resource_id == Resource.id, Revision.generation == Resource.generation))
        .outerjoin(behind, behind.c.resource_id == Resource.id)
        .where(Resource.noun == noun, Resource.absent.is_(False))
        .order_by(Resource.name)
    )
    return [
        {"noun": noun, "name": row.name, "id": row.id, "generation": row.generation, "spec": json.loads(row.payload),
         "placements": row.placements or 0, "open": int(row.open or 0), "failed": int(row.failed or 0)}
        for row in rows
    ]  # fmt: skip


def names(connection: Connection, noun: str, prefix: str, most: int) -> list[str]:
    """Names of living resources that begin so, in their order."""
    begins = func.substr(Resource.name, 1, len(prefix)) == prefix
    its = (Resource.noun == noun, Resource.absent.is_(False), begins)
    return list(connection.execute(select(Resource.name).where(*its).order_by(Resource.name).limit(most)).scalars())


def _as_number(condition: Any) -> Any:
    return case((condition, 1), else_=0)


def resource(connection: Connection, noun: str, name: str) -> dict[str, Any]:
    """One living resource with its placements. Raises NotFound with the nearest name."""
    found = next((each for each in resources(connection, noun) if each["name"] == name), None)
    if found is None:
        names = connection.execute(select(Resource.name).where(Resource.noun == noun, Resource.absent.is_(False)))
        near = difflib.get_close_matches(name, list(names.scalars()), 1)
        hint = f"did you mean {near[0]}?" if near else f"onehost {noun} list"
        raise NotFound(f"no such {noun}: {name}", hint=hint)
    machine = {"machine": heard(connection, found["id"])} if noun == "node" else {}
    return found | machine | {"nodes": placements(connection, found["id"])}


def heard(connection: Connection, node_id: int) -> dict[str, Any]:
    """What a node said last of its daemons and of its drift."""
    body = connection.execute(select(NodeStatus.beat).where(NodeStatus.node_id == node_id)).scalar()
    beat = json.loads(body) if body else {}
    return {key: beat.get(key, {}) for key in ("blocked", "down", "stopped", "drift")}


def placements(connection: Connection, resource_id: int) -> list[dict[str, Any]]:
    """The present of a resource on each node."""
    node = Resource.__table__.alias("node")
    rows = connection.execute(
        select(Placement, node.c.name.label("node"), NodeStatus.state.label("node_state"))
        .join(node, node.c.id == Placement.node_id)
        .outerjoin(NodeStatus, NodeStatus.node_id == Placement.node_id)
        .where(Placement.resource_id == resource_id)
        .order_by(node.c.name)
    )
    return [
        {"node": row.node, "node_state": row.node_state, "state": placement_state(row), "wanted": row.wanted,
         "sent": row.sent, "done": row.done, "applied": row.applied, "reason": row.reason}
        for row in rows
    ]  # fmt: skip


def placement_state(row: Any) -> str:
    """The word for where a placement stands."""
    if row.done < row.wanted or not row.wanted:
        return "sent" if row.sent == row.wanted and row.wanted else "waiting"
    return "applied" if row.outcome == states.Outcome.APPLIED else "failed"


def jobs(connection: Connection, *, state: str | None = None, kind: str | None = None, noun: str | None = None,
         name: str | None = None, actor: str | None = None, before_id: int | None = None,
         limit: int = PAGE) -> list[dict[str, Any]]:  # fmt: skip
    """A page of jobs, newest first. `kind` may end in `.*`."""
    statement = select(Job).order_by(Job.id.desc()).limit(limit)
    for column, value in ((Job.state, state), (Job.noun, noun), (Job.name, name), (Job.actor, actor)):
        if value is not None:
            statement = statement.where(column == value)
    statement = of_kind(statement, Job.kind, kind)
    if before_id is not None:
        statement = statement.where(Job.id < before_id)
    return [_job(row) for row in connection.execute(statement)]


def of_kind(statement: Any, column: Any, kind: str | None) -> Any:
    """The statement with only rows of this kind, which may end in `.*`."""
    if kind is None:
        return statement
    if kind.endswith(".*"):
        # A range instead of LIKE: both databases then use the index.
        start = kind[:-1]
        return statement.where(column >= start, column < start[:-1] + "/")
    return statement.where(column == kind)


def _job(row: Any) -> dict[str, Any]:
    return {
        "id": row.id, "kind": row.kind, "noun": row.noun, "name": row.name, "resource_id": row.resource_id,
        "generation": row.generation, "actor": row.actor, "source": row.source, "reason": row.reason,
        "state": row.state,
        "targets": row.targets, "applied": row.applied, "failed": row.failed, "closed": row.closed,
        "submitted_at": row.submitted_at, "ended_at": row.ended_at, "deadline_at": row.deadline_at,
        "grace_until_at": row.grace_until_at, "max_fail": row.max_fail, "parent": row.parent_id,
    }  # fmt: skip


def job(connection: Connection, job_id: int) -> dict[str, Any]:
    """One job with its targets, and what it asked for of other resources. Raises NotFound."""
    row = job_row(connection, job_id)
    return _job(row) | {"nodes": _targets(connection, row), "children": _children(connection, job_id)}


def _children(connection: Connection, job_id: int) -> list[dict[str, Any]]:
    """Jobs below this one, with what failed first."""
    failed = (Target.job_id == Job.id, Target.outcome == states.Target.FAILED)
    reason = select(Target.reason).where(*failed).limit(1).scalar_subquery()
    node = select(Resource.name).join(Target, Target.node_id == Resource.id).where(*failed).limit(1).scalar_subquery()
    is_open = (Target.job_id == Job.id, Target.outcome.is_(None), Target.opened_at.is_not(None))
    is_there = and_(NodeStatus.node_id == Target.node_id, NodeStatus.state != states.NodeState.OFFLINE)
    awaited = select(func.count()).select_from(Target).join(NodeStatus, is_there).where(*is_open).scalar_subquery()
    rows = connection.execute(
        select(Job, reason.label("why"), node.label("node"), awaited.label("awaited"))
        .where(Job.parent_id == job_id)
        .order_by(Job.id)
    )
    return [
        {key: value for key, value in _job(row).items() if key in _CHILD}
        | {"failed_on": row.node, "why": row.why, "awaited": row.awaited}
        for row in rows
    ]


_CHILD = ("id", "kind", "noun", "name", "state", "targets", "applied", "failed", "ended_at", "grace_until_at")


def job_row(connection: Connection, job_id: int) -> Any:
    """The row of a job. Raises NotFound."""
    row = connection.execute(select(Job).where(Job.id == job_id)).one_or_none()
    if row is None:
        raise NotFound(f"no such job: {job_id}", hint="onehost job list")
    return row


def _targets(connection: Connection, job: Any) -> list[dict[str, Any]]:
    node = Resource.__table__.alias("node")
    rows = connection.execute(
        select(Target, node.c.name.label("node"), NodeStatus.state.label("node_state"), NodeStatus.state_at,
               Placement.sent, Placement.wanted, Placement.reason.label("present"))
        .join(node, node.c.id == Target.node_id)
        .outerjoin(NodeStatus, NodeStatus.node_id == Target.node_id)
        .outerjoin(Placement, and_(Placement.node_id == Target.node_id, Placement.resource_id == job.resource_id))
        .where(Target.job_id == job.id)
        .order_by(Target.stage, node.c.name)
    )  # fmt: skip
    held = pause.paused(connection)
    return [_target(row, job) | {"node_paused": pause.is_paused(row.node_id, held)} for row in rows]


def _target(row: Any, job: Any) -> dict[str, Any]:
    is_action = job.generation == 0
    is_sent = row.sent_at is not None if is_action else row.sent is not None and row.sent >= job.generation
    state = row.outcome or (states.Target.SENT if is_sent else states.Target.WAITING)
    began = job.submitted_at if row.opened_at is None else row.opened_at
    return {
        "node": row.node, "stage": row.stage + 1, "state": str(state), "node_state": row.node_state,
        "node_state_at": row.state_at, "reason": row.reason or (None if row.outcome or is_action else row.present),
        "opened_at": row.opened_at, "sent_at": row.sent_at, "ended_at": row.ended_at,
        "seconds": (row.ended_at - began).total_seconds() if row.ended_at else None,
        "phases": json.loads(row.seconds) if row.seconds else {},
        "difference": json.loads(row.difference) if row.difference else {},
    }  # fmt: skip


def nodes(connection: Connection) -> list[dict[str, Any]]:
    """Every node: what is wanted of it, what is heard of it, what it lacks."""
    lacking = (
        select(Placement.node_id, func.count().label("open"))
        .where(Placement.done < Placement.wanted).group_by(Placement.node_id).subquery()
    )  # fmt: skip
    rows = connection.execute(
        select(Resource.name, Resource.id, Resource.generation, Revision.payload, NodeStatus.state, NodeStatus.state_at,
               NodeStatus.seen_at, NodeStatus.beat, lacking.c.open)
        .join(Revision, and_(Revision.resource_id == Resource.id, Revision.generation == Resource.generation))
        .outerjoin(NodeStatus, NodeStatus.node_id == Resource.id)
        .outerjoin(lacking, lacking.c.node_id == Resource.id)
        .where(Resource.noun == "node", Resource.absent.is_(False))
        .order_by(Resource.name)
    )  # fmt: skip
    return [
        {"name": row.name, "id": row.id, "generation": row.generation, **json.loads(row.payload), "state": row.state,
         "state_at": row.state_at, "seen_at": row.seen_at, "open": row.open or 0,
         "beat": json.loads(row.beat) if row.beat else {}}
        for row in rows
    ]  # fmt: skip
