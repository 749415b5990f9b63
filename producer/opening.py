"""A job begins: its stages with their nodes are written, and the first one is opened."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, update

from ..models import nouns, states
from ..models.store import Job, Placement, Target, together
from . import batches, membership, stages
from .wish import Wish


@dataclass(frozen=True)
class Change:
    """What is wanted of a resource from this generation on, and what was wanted before it. None: absent."""

    noun: nouns.Noun
    name: str
    resource_id: int
    generation: int
    spec: nouns.Spec | None
    before: nouns.Spec | None
    #: The last stage is not opened before; None: as soon as its turn comes.
    grace_until_at: datetime | None = None
    #: Counted by the hold.
    destroys: bool = False


@dataclass(frozen=True)
class Opened:
    """A job that has begun."""

    job_id: int
    targets: int
    #: Its first stage waits for acknowledgements; else there may be more to do at once.
    is_waiting: bool


def open_job(connection: Connection, change: Change, wish: Wish, mark: str, now: datetime,
             released: Row[Any] | None = None) -> Opened:  # fmt: skip
    """Makes the job of a wish, or begins the one that was held and is `released`."""
    noun, resource_id = change.noun, change.resource_id
    members = membership.members(connection, noun, change.name, resource_id, change.spec, change.before)
    if wish.batch is not None:
        name_of = {node.id: node.name for node in membership.nodes(connection).values()}
        members = batches.cut(members, wish.batch, name_of)
    if change.grace_until_at and len(members.waits_for_all) == 1:
        # It waits with what it belongs to: a stage of no nodes ends it, and until then a cancel undoes it.
        members = membership.Members(members.stage_of, [*members.waits_for_all, False])
    if change.spec is None:
        connection.execute(delete(Placement).where(Placement.resource_id == resource_id, Placement.wanted == 0))
    values = {
        "generation": change.generation, "state": states.Job.RUNNING, "stage": 0,
        "stages": json.dumps(members.waits_for_all).encode(), "targets": len(members.stage_of),
        "max_fail": batches.limit(wish.batch, wish.max_fail), "grace_until_at": change.grace_until_at,
        "destroys": change.destroys, "held_wish": None,
        "deadline_at": (change.grace_until_at or now) + wish.deadline,
    }  # fmt: skip
    job_id = released.id if released else _insert(connection, change, wish, mark, now, values)
    if released:
        connection.execute(update(Job).where(Job.id == job_id).values(**values))
    stage_of = sorted(members.stage_of.items())
    together.add(connection, Target, [
        {"job_id": job_id, "node_id": node, "stage": stage, "opened_at": None if stage else now}
        for node, stage in stage_of
    ])  # fmt: skip
    if first := [node for node, stage in stage_of if stage == 0]:
        stages.want(connection, resource_id, change.generation, first)
    is_waiting = bool(first) and (members.waits_for_all[0] or len(members.waits_for_all) == 1)
    return Opened(int(job_id), len(stage_of), is_waiting)


def _insert(connection: Connection, change: Change, wish: Wish, mark: str, now: datetime,
            values: dict[str, Any]) -> int:  # fmt: skip
    made = insert(Job).values(
        kind=f"{change.noun.name}.{wish.verb}", resource_id=change.resource_id, noun=change.noun.name,
        name=change.name, actor=wish.actor, source=wish.source, reason=wish.reason,
        idempotency_key=wish.idempotency_key, wish=mark, submitted_at=now,
        parent_id=wish.parent.job_id if wish.parent else None, **values,
    )  # fmt: skip
    return int(connection.execute(made.returning(Job.id)).scalar_one())
