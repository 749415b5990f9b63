"""What is left of older resources by a name: a removal that failed somewhere is tried again with the name's retry."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, and_, exists, insert, or_, select, update

from ..models import states
from ..models.store import Job, Placement, Resource, Revision
from . import numbers, stages


def remove_again(connection: Connection, noun: str, name: str, resource_id: int, now: datetime) -> None:
    """Wants older ids of this name removed wherever that failed or was halted. Their own jobs are outrun."""
    failed = Placement.outcome == states.Outcome.FAILED
    halted = and_(Placement.wanted > 0, Placement.wanted < Resource.generation,
                  ~exists().where(Job.resource_id == Resource.id, stages.is_going_on()))  # fmt: skip
    older = (
        select(Resource.id, Resource.generation).distinct()
        .join(Placement, Placement.resource_id == Resource.id)
        .where(Resource.noun == noun, Resource.name == name, Resource.id < resource_id, Resource.absent.is_(True),
               or_(failed, halted))
        .order_by(Resource.id)
    )  # fmt: skip
    for its_id, last in connection.execute(older).all():
        _remove(connection, its_id, numbers.next_generation(connection, last), now)


def _remove(connection: Connection, resource_id: int, generation: int, now: datetime) -> None:
    """On all its nodes, so that they agree on the generation."""
    raised = update(Resource).where(Resource.id == resource_id).values(generation=generation, changed_at=now)
    connection.execute(raised)
    revision = {"resource_id": resource_id, "generation": generation, "created_at": now}
    connection.execute(insert(Revision).values(payload=None, secrets=None, **revision))
    placed = select(Placement.node_id).where(Placement.resource_id == resource_id, Placement.wanted > 0)
    stages.want(connection, resource_id, generation, sorted(connection.execute(placed).scalars()))
