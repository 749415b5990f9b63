"""Which nodes a resource stands on, in which stage; and what changes when a node comes or goes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, delete, insert, select, update

from ..models import nouns, states
from ..models.store import (
    Action,
    Event,
    Hello,
    Job,
    NodeStatus,
    Pause,
    Placement,
    Resource,
    Revision,
    Target,
    bells,
    digests,
)
from . import claims, stages
from .events import Happened, record


@dataclass(frozen=True)
class Members:
    """The nodes of a job: node id to stage, and for each stage whether the next waits for all of it."""

    stage_of: Mapping[int, int]
    waits_for_all: list[bool]


@dataclass(frozen=True)
class Node:
    """A living node, as far as placing goes."""

    id: int
    name: str
    roles: frozenset[str]


def nodes(connection: Connection, names: Collection[str] | None = None) -> dict[int, Node]:
    """Every living node by id, or those of these names."""
    rows = connection.execute(ALIVE) if names is None else connection.execute(_NAMED, {"names": list(names)})
    return as_nodes(rows)


def as_nodes(rows: Iterable[Any]) -> dict[int, Node]:
    """By id, from what ALIVE gave."""
    return {row.id: Node(row.id, row.name, _roles(row.payload)) for row in rows}


#: The living nodes, to be read together with other things.
ALIVE = (
    select(Resource.id, Resource.name, Revision.payload)
    .join(Revision, and_(Revision.resource_id == Resource.id, Revision.generation == Resource.generation))
    .where(Resource.noun == "node", Resource.absent.is_(False))
)

_NAMED = ALIVE.where(Resource.name.in_(bindparam("names", expanding=True)))


@lru_cache(maxsize=4096)
def _roles(payload: bytes) -> frozenset[str]:
    return frozenset(json.loads(payload)["roles"])


def stage_on(noun: nouns.Noun, name: str, node: Node) -> int | None:
    """The stage in which `node` is opened for this resource; None if it does not belong there."""
    each = noun.stages()
    for number, stage in enumerate(each):
        if stage.roles & node.roles:
            return number
    return len(each) - 1 if node.name in noun.extra_nodes(name) else None


def belonging(noun: nouns.Noun, name: str, alive: Mapping[int, Node]) -> Members:
    """Where a resource belongs, and in which stages it gets there."""
    stage_of = {node.id: stage for node in alive.values() if (stage := stage_on(noun, name, node)) is not None}
    return Members(stage_of, [stage.waits_for_all for stage in noun.stages()])


def members(connection: Connection, noun: nouns.Noun, name: str, resource_id: int, spec: nouns.Spec | None,
            before: nouns.Spec | None) -> Members:  # fmt: skip
    """Where a job of this resource goes. A removal goes to all nodes that may hold it, stages backwards."""
    placed = connection.execute(
        select(Placement.node_id, Placement.wanted, Placement.applied).where(Placement.resource_id == resource_id)
    ).all()
    alive = nodes(connection)
    if spec is None:
        flags, stage_of = [stage.waits_for_all for stage in noun.stages()], belonging(noun, name, alive).stage_of
        held = {row.node_id for row in placed if row.wanted > 0}
        last = len(flags) - 1
        return Members({node: last - stage_of.get(node, last) for node in held}, flags[::-1])
    return staying(noun, name, spec, before, placed, alive)


def staying(noun: nouns.Noun, name: str, spec: nouns.Spec, before: nouns.Spec | None, placed: Iterable[Any],
            alive: Mapping[int, Node]) -> Members:  # fmt: skip
    """Where a job goes that removes nothing: to all nodes at once, where the order of stages does not matter."""
    found = belonging(noun, name, alive)
    settled = {row.node_id for row in placed if row.applied > 0}
    if before is not None and not noun.ordered(spec, before) and found.stage_of.keys() <= settled:
        return Members(dict.fromkeys(found.stage_of, 0), [False])
    return found


def on_node(connection: Connection, node_id: int, name: str, spec: nouns.Spec | None, *, is_new: bool,
            now: datetime) -> None:  # fmt: skip
    """Part of a wish about a node: what else changes when one comes or goes."""
    if spec is None:
        leave(connection, node_id, name, now)
    elif is_new:
        join(connection, Node(node_id, name, frozenset(spec["roles"])), now)


def join(connection: Connection, node: Node, now: datetime) -> None:
    """A new node is given everything that belongs on it; a job under way gets it as one more target."""
    current = and_(Job.resource_id == Resource.id, Job.generation == Resource.generation, Job.ended_at.is_(None))
    rows: Sequence[Any] = connection.execute(
        select(
            Resource.id,
            Resource.noun,
            Resource.name,
            Resource.generation,
            Job.id.label("job_id"),
            Job.stage,
            Job.stages,
        )
        .outerjoin(Job, current)
        .where(Resource.absent.is_(False), Resource.id != node.id)
        .order_by(Resource.id)
    ).all()
    belonging = [(row, _stage_in_job(row, node)) for row in rows]
    _place(connection, node, [(row, stage) for row, stage in belonging if stage is not None])
    connection.execute(
        insert(NodeStatus).values(node_id=node.id, state=states.NodeState.NEW, state_at=now, acked=0, reported=-1)
    )
    bells.ring(connection, bells.RELAY)


def _stage_in_job(row: Any, node: Node) -> int | None:
    """The stage for a node that joins, in the job under way if there is one: it may open all at once, or in batches.

    What belongs to a noun's last stage comes with the last batch.
    """
    noun = nouns.noun(row.noun)
    stage = stage_on(noun, row.name, node)
    if stage is None or row.job_id is None:
        return stage
    last = len(json.loads(row.stages)) - 1
    return last if stage == len(noun.stages()) - 1 else min(stage, last)


def _place(connection: Connection, node: Node, belonging: Sequence[tuple[Row[Any], int]]) -> None:
    """Where a job under way has not come to the node's stage yet, nothing is wanted until it does."""
    later = [(row, stage) for row, stage in belonging if row.job_id is not None and stage > row.stage]
    unopened = {row.id for row, _ in later}
    wanted = {row.id: 0 if row.id in unopened else row.generation for row, _ in belonging}
    if later:
        connection.execute(
            insert(Target), [{"job_id": row.job_id, "node_id": node.id, "stage": stage} for row, stage in later]
        )
        one_more = update(Job).where(Job.id == bindparam("job")).values(targets=Job.targets + 1)
        connection.execute(one_more, [{"job": row.job_id} for row, _ in later])
    if wanted:
        connection.execute(
            insert(Placement), [{"resource_id": each, "node_id": node.id, "wanted": wanted[each]} for each in wanted]
        )
    digests.changed(
        connection, [(node.id, each, None, digests.shown(wanted[each], 0, states.Outcome.OPEN)) for each in wanted]
    )


def leave(connection: Connection, node_id: int, name: str, now: datetime) -> None:
    """A removed node holds nothing up: running jobs count it as lost, its placements and claims are closed."""
    jobs = connection.execute(
        select(Job.id).join(Target, Target.job_id == Job.id)
        .where(Target.node_id == node_id, Target.outcome.is_(None), stages.is_going_on())
    ).scalars().all()  # fmt: skip
    reason = f"node {name} was removed"
    stages.close_targets(connection, jobs, states.Target.LOST, reason, now, nodes=[node_id], only_unopened=False)
    placed = connection.execute(select(Placement.resource_id).where(Placement.node_id == node_id)).scalars().all()
    connection.execute(delete(Placement).where(Placement.node_id == node_id))
    _close_numbers(connection, node_id, name, now)
    digests.left(connection, node_id)
    for table in (NodeStatus, Action, Hello, Pause):
        connection.execute(delete(table).where(table.node_id == node_id))
    claims.release(connection, placed)
    stages.advance(connection, jobs, now)
    detail = {"placements": len(placed), "jobs": list(jobs)}
    record(connection, [Happened("node.leave", "onehost", now, "node", name, node_id, name, node_id, detail=detail)])


def _close_numbers(connection: Connection, node_id: int, name: str, now: datetime) -> None:
    """Acknowledgements of a removed node that never came will not come: an event names the gaps."""
    status = connection.execute(select(NodeStatus.epoch, NodeStatus.acked).where(NodeStatus.node_id == node_id))
    row = status.one_or_none()
    if row is None or row.epoch is None:
        return
    which = (Event.node_id == node_id, Event.epoch == row.epoch, Event.number > row.acked)
    gaps, last = [], row.acked
    numbers = connection.execute(select(Event.number).where(*which).order_by(Event.number)).scalars()
    for number in [number for number in numbers if number is not None]:
        if number > last + 1:
            gaps.append([last + 1, number - 1])
        last = number
    if gaps:
        about = ("node", name, node_id, name, node_id)
        record(connection, [Happened("acknowledgement.lost", "onehost", now, *about, outcome="lost",
                                     detail={"epoch": row.epoch, "numbers": gaps[:200]})])  # fmt: skip
