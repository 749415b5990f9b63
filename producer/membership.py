"""Which nodes a resource stands on, in which stage; and what changes when a node comes or goes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, select, update

from ..models import nouns, states
from ..models.store import Action, Hello, Job, NodeStatus, Placement, Resource, Revision, Target, bells, digests
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


def nodes(connection: Connection) -> dict[int, Node]:
    """Every living node by id."""
    rows = connection.execute(
        select(Resource.id, Resource.name, Revision.payload)
        .join(Revision, and_(Revision.resource_id == Resource.id, Revision.generation == Resource.generation))
        .where(Resource.noun == "node", Resource.absent.is_(False))
    )
    return {row.id: Node(row.id, row.name, frozenset(json.loads(row.payload)["roles"])) for row in rows}


def stage_on(noun: nouns.Noun, name: str, node: Node) -> int | None:
    """The stage in which `node` is opened for this resource; None if it does not belong there."""
    each = noun.stages()
    for number, stage in enumerate(each):
        if stage.roles & node.roles:
            return number
    return len(each) - 1 if node.name in noun.extra_nodes(name) else None


def members(connection: Connection, noun: nouns.Noun, name: str, resource_id: int, spec: nouns.Spec | None,
            before: nouns.Spec | None) -> Members:  # fmt: skip
    """Where a job of this resource goes. A removal goes to all nodes that may hold it, stages backwards."""
    flags = [stage.waits_for_all for stage in noun.stages()]
    placed = connection.execute(
        select(Placement.node_id, Placement.wanted, Placement.applied).where(Placement.resource_id == resource_id)
    ).all()
    alive = nodes(connection)
    stage_of = {node.id: stage for node in alive.values() if (stage := stage_on(noun, name, node)) is not None}
    if spec is None:
        held = {row.node_id for row in placed if row.wanted > 0}
        last = len(flags) - 1
        return Members({node: last - stage_of.get(node, last) for node in held}, flags[::-1])
    settled = {row.node_id for row in placed if row.applied > 0}
    if before is not None and not noun.ordered(spec, before) and stage_of.keys() <= settled:
        return Members(dict.fromkeys(stage_of, 0), [False])
    return Members(stage_of, flags)


def on_node(connection: Connection, node_id: int, name: str, spec: nouns.Spec | None, *, is_new: bool,
            now: datetime) -> None:  # fmt: skip
    """Part of a wish about a node: what else changes when one comes or goes."""
    if spec is None:
        leave(connection, node_id, name, now)
    elif is_new:
        join(connection, Node(node_id, name, frozenset(spec["roles"])), now)


def join(connection: Connection, node: Node, now: datetime) -> None:
    """A new node is given everything that belongs on it; a job under way gets it as one more target."""
    rows = connection.execute(select(Resource).where(Resource.absent.is_(False), Resource.id != node.id)).all()
    for resource in rows:
        noun = nouns.noun(resource.noun)
        stage = stage_on(noun, resource.name, node)
        if stage is not None:
            _place(connection, resource, node, stage)
    connection.execute(insert(NodeStatus).values(node_id=node.id, state=states.NodeState.NEW, state_at=now, acked=0))
    bells.ring(connection, bells.RELAY)


def _place(connection: Connection, resource: Row[Any], node: Node, stage: int) -> None:
    current = (Job.resource_id == resource.id, Job.generation == resource.generation, Job.ended_at.is_(None))
    running = connection.execute(select(Job.id, Job.stage).where(*current)).one_or_none()
    wanted = resource.generation
    if running is not None and stage > running.stage:
        wanted = 0
        connection.execute(insert(Target).values(job_id=running.id, node_id=node.id, stage=stage))
        connection.execute(update(Job).where(Job.id == running.id).values(targets=Job.targets + 1))
    connection.execute(insert(Placement).values(resource_id=resource.id, node_id=node.id, wanted=wanted))
    digests.changed(connection, [(node.id, resource.id, None, digests.shown(wanted, 0, states.Outcome.OPEN))])


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
    digests.left(connection, node_id)
    for table in (NodeStatus, Action, Hello):
        connection.execute(delete(table).where(table.node_id == node_id))
    claims.release(connection, placed)
    stages.advance(connection, jobs, now)
    detail = {"placements": len(placed), "jobs": list(jobs)}
    record(connection, [Happened("node.leave", "onehost", now, "node", name, node_id, name, node_id, detail=detail)])
