"""What waits for the relay: letters, and placements with `sent < wanted`, each as it is to be published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, exists, or_, select
from sqlalchemy.orm import aliased

from ..broker_config import routing
from ..broker_config.publisher import Letter
from ..models import nouns, wire
from ..models.canonical import digest
from ..models.moment import now as time_now
from ..models.store import Action, Hello, Job, NodeStatus, Pause, Placement, Resource, Revision, answers
from . import actions, numbers, pause
from .membership import ALIVE, Node, as_nodes

#: Placements read and published together.
BATCH = 1000


@dataclass(frozen=True)
class Waiting:
    """One letter that waits, and what to mark when the broker has it."""

    letter: Letter
    resource_id: int = 0
    node_id: int = 0
    generation: int = 0
    job_id: int | None = None
    action_id: int = 0


@dataclass(frozen=True)
class Found:
    """What the relay finds when it looks."""

    alive: Mapping[int, Node]
    #: A hello waits for its answer.
    is_asked: bool
    life: Sequence[Any]
    actions: Sequence[Any]
    unsent: Sequence[Any]

    @property
    def nodes(self) -> frozenset[int]:
        """The living ones."""
        return frozenset(self.alive)

    def batch(self) -> list[Waiting]:
        """What is to be published next, rendered. Raises Refused as `numbers.incarnation`."""
        found = _letters(self.actions, self.alive)
        if self.unsent:
            found += _placements(self.unsent, self.alive, numbers.as_incarnation(self.life))
        return found


def find(connection: Connection) -> Found:
    """The living nodes and what waits, in one trip to the store."""
    hello, living, life, waiting, unsent = answers(
        connection, (_A_HELLO, {}), (ALIVE, {}), (numbers.INCARNATION, {}), (_ACTIONS, {}),
        (_UNSENT, {"now": time_now()}),
    )  # fmt: skip
    return Found(as_nodes(living), bool(hello), life, waiting, unsent)


def _letters(rows: Sequence[Any], alive: Mapping[int, Node]) -> list[Waiting]:
    found = [(row, _letter(row, alive[row.node_id])) for row in rows if row.node_id in alive]
    return [
        Waiting(letter, node_id=row.node_id, job_id=row.job_id, action_id=row.id) for row, letter in found if letter
    ]


def _letter(row: Any, node: Node) -> Letter | None:
    if row.job_id is not None:
        return actions.letter(row, time_now())
    return Letter(f"letter.{row.id}", routing.job_key("hello", node.name, row.form), row.body, type=row.form)


def _placements(rows: Sequence[Any], alive: Mapping[int, Node], life: int) -> list[Waiting]:
    return [_waiting(row, alive[row.node_id], life) for row in rows if row.node_id in alive]


def _is_free(node_id: Any) -> ColumnElement[bool]:
    """Whether a node is not paused."""
    return ~exists().where(or_(Pause.node_id == pause.EVERY, Pause.node_id == node_id))


_A_HELLO = select(Hello.id).limit(1)
#: A paused node is still told what belongs to hello, and its brake itself; what a job asks of it waits.
_ACTIONS = (
    select(Action)
    .where(or_(Action.job_id.is_(None), _is_free(Action.node_id)))
    .order_by(Action.id)
    .limit(BATCH)
)  # fmt: skip
_NEWEST = aliased(Revision)
#: Placements whose wanted generation was not sent yet, those of one node behind each other.
_UNSENT = (
    select(Placement.resource_id, Placement.node_id, Placement.wanted, Placement.leaving,
           Resource.noun, Resource.name, Resource.replaces, Revision.payload, _NEWEST.secrets,
           Job.id.label("job_id"), Job.kind, NodeStatus.epoch, NodeStatus.acked)
    .join(Resource, Resource.id == Placement.resource_id)
    .join(Revision, and_(Revision.resource_id == Placement.resource_id, Revision.generation == Placement.wanted))
    .join(_NEWEST, and_(_NEWEST.resource_id == Resource.id, _NEWEST.generation == Resource.generation))
    .outerjoin(Job, and_(Job.resource_id == Placement.resource_id, Job.generation == Placement.wanted))
    .outerjoin(NodeStatus, NodeStatus.node_id == Placement.node_id)
    .where(Placement.sent < Placement.wanted, _is_free(Placement.node_id),
           or_(Placement.not_before_at.is_(None), Placement.not_before_at <= bindparam("now")))
    .order_by(Placement.node_id, Placement.resource_id)
    .limit(BATCH)
)  # fmt: skip


def _waiting(row: Any, node: Node, life: int) -> Waiting:
    noun = nouns.noun(row.noun)
    payload = None if row.leaving else row.payload
    verb = row.kind.partition(".")[2] if row.kind else "apply"
    body = wire.apply_letter(
        payload, node=node.name, id=row.resource_id, noun=row.noun, version=list(noun.version), name=row.name,
        generation=row.wanted, incarnation=life, job=row.job_id, verb=verb, replaces=row.replaces,
        roles=sorted(node.roles), hash=digest(payload or b""), key=None, signature=None,
        # The newest revision is absent while a removal is on its way to the last stage: no secret is left, yet the
        # older generation still wanted there is to be a whole spec.
        secrets=dict.fromkeys(noun.secret_fields) | json.loads(row.secrets or b"{}") if payload else {},
        have=[row.epoch, row.acked] if row.epoch is not None else None,
    )  # fmt: skip
    letter = Letter(
        message_id=f"{row.resource_id}.{row.node_id}.{row.wanted}",
        routing_key=routing.job_key(row.noun, node.name, verb),
        body=body,
        correlation_id=str(row.job_id or ""),
        type=f"{row.noun}.{verb}",
    )
    return Waiting(letter, row.resource_id, row.node_id, row.wanted, row.job_id)
