"""What belongs to whom: a wish names a living owner, and carries what only the manager can say of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, exists, select

from ..models import nouns
from ..models.errors import Invalid, NotFound, Refused
from ..models.store import Job, Placement, Resource
from .surroundings import Surroundings
from .wish import Parent, Wish


def inherit(noun: nouns.Noun, name: str, spec: nouns.Spec, before: nouns.Spec | None,
            around: Surroundings) -> nouns.Spec:  # fmt: skip
    """The spec with its owner's id and numbers. Raises NotFound, or Invalid where it is to change hands."""
    kind = noun.belongs_to
    if kind is None:
        return spec
    if before and before[kind] != spec[kind]:
        raise Invalid(f"{noun.name} {name} belongs to {kind} {before[kind]}", {kind: "cannot be changed"},
                      hint=f"onehost {noun.name} delete {name}, and make it again")  # fmt: skip
    if before:
        return spec
    owner = around.owner(kind, spec[kind])
    if owner is None:
        raise NotFound(f"no such {kind}: {spec[kind]}; {noun.name} {name} cannot belong to it",
                       hint=f"onehost {kind} list")  # fmt: skip
    owner_id, its = owner
    if spec.get(f"{kind}_id") not in (None, owner_id):
        raise Refused(f"{kind} {spec[kind]} is another one than {noun.name} {name} belonged to",
                      hint=f"make it again: onehost {noun.name} --help")  # fmt: skip
    return spec | {f"{kind}_id": owner_id} | {key: its[key] for key in noun.inherits}


def depth(noun: nouns.Noun) -> int:
    """How many resources stand above one of this noun: what it belongs to, what it follows."""
    above = [nouns.noun(each) for each in (noun.belongs_to, noun.follows) if each]
    return max((1 + depth(each) for each in above), default=0)


def turn(wish: Wish) -> int:
    """When a wish has its turn among others of one transaction: after what it names, or before that is removed."""
    noun = nouns.noun(wish.noun)
    verb = noun.verb(wish.verb)
    is_removal = wish.verb == "remove" or (verb is not None and verb.removes)
    deepest = max(map(depth, nouns.nouns().values()))
    return deepest + 1 if is_removal and nouns.followers(noun.name) else depth(noun)


def owner_id(noun: nouns.Noun, spec: nouns.Spec | None) -> int | None:
    """The id of the resource that a spec belongs to."""
    return spec[f"{noun.belongs_to}_id"] if spec is not None and noun.belongs_to else None


def owned(connection: Connection, resource_id: int) -> list[Row[Any]]:
    """What belongs to a resource and lives, in the order of ids."""
    living = (Resource.owner_id == resource_id, Resource.absent.is_(False))
    found = select(Resource.id, Resource.noun, Resource.name).where(*living).order_by(Resource.id)
    return [*connection.execute(found)]


def removals(connection: Connection, resource_id: int, wish: Wish, job_id: int,
             grace_until_at: datetime | None) -> list[Wish]:  # fmt: skip
    """The wishes that remove what belongs to a resource which is removed by this job."""
    return [
        child(wish, job_id, each.noun, each.name, "remove", grace_until_at=grace_until_at)
        for each in owned(connection, resource_id)
    ]


def cancels(connection: Connection, cancelled: int, wish: Wish, job_id: int) -> list[Wish]:
    """The wishes that bring back what a cancelled job was removing beside its own resource."""
    jobs = select(Job.id, Job.noun, Job.name).where(Job.parent_id == cancelled, Job.ended_at.is_(None))
    return [
        replace(child(wish, job_id, each.noun, each.name, "cancel"), fields={"job": each.id})
        for each in connection.execute(jobs.order_by(Job.id))
    ]


def retries(connection: Connection, resource_id: int, wish: Wish, job_id: int) -> list[Wish]:
    """The wishes that try again to remove what belonged to a removed resource and is left somewhere."""
    is_left = exists().where(Placement.resource_id == Resource.id, Placement.applied < Resource.generation)
    left = select(Resource.noun, Resource.name).where(
        Resource.owner_id == resource_id, Resource.absent.is_(True), is_left
    )
    return [
        child(wish, job_id, each.noun, each.name, "retry") for each in connection.execute(left.order_by(Resource.id))
    ]


def child(wish: Wish, job_id: int, noun: str, name: str, verb: str, *,
          grace_until_at: datetime | None = None) -> Wish:  # fmt: skip
    """A wish that follows from another one, for a job below that one's."""
    return replace(wish, noun=noun, name=name, verb=verb, fields={}, if_generation=None, idempotency_key=None,
                   batch=None, max_fail=None, parent=Parent(job_id, grace_until_at))  # fmt: skip
