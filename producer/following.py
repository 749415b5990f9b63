"""What follows from what: a change of a plan is brought to the accounts that name it, each by a job below its own."""

from __future__ import annotations

import json

from sqlalchemy import Connection, and_, exists, select

from ..models import nouns, states
from ..models.store import Placement, Resource, Revision
from .ownership import child
from .wish import Wish


def wishes(connection: Connection, noun: nouns.Noun, name: str, wish: Wish, job_id: int) -> list[Wish]:
    """The wishes that bring a change of this resource to what names it: each changes nothing if nothing follows.

    Another try of it is one for those that have failed somewhere.
    """
    verb = "retry" if wish.verb == "retry" else "set"
    failed = exists().where(Placement.resource_id == Resource.id, Placement.outcome == states.Outcome.FAILED)
    found = []
    for follower in nouns.followers(noun.name):
        which = select(Resource.name).where(Resource.noun == follower.name, Resource.absent.is_(False), failed)
        ill = set(connection.execute(which).scalars()) if verb == "retry" else set()
        names = naming(connection, follower, noun.name, name)
        found += [child(wish, job_id, follower.name, each, verb) for each in names if verb == "set" or each in ill]
    return found


def naming(connection: Connection, follower: nouns.Noun, noun: str, name: str) -> list[str]:
    """The resources of a noun that name this one, in the order of their ids."""
    rows = connection.execute(
        select(Resource.name, Revision.payload)
        .join(Revision, and_(Revision.resource_id == Resource.id, Revision.generation == Resource.generation))
        .where(Resource.noun == follower.name, Resource.absent.is_(False))
        .order_by(Resource.id)
    )
    return [row.name for row in rows if json.loads(row.payload).get(noun) == name]


def lock(connection: Connection, noun: nouns.Noun, name: str) -> None:
    """Locks what follows before it is locked itself, in the order of everybody who changes one of those."""
    for follower in nouns.followers(noun.name) if connection.dialect.name != "sqlite" else ():
        which = (Resource.noun == follower.name, Resource.absent.is_(False))
        ours = Resource.name.in_(naming(connection, follower, noun.name, name))
        locked = select(Resource.id).where(*which, ours).order_by(Resource.id).with_for_update(key_share=True)
        connection.execute(locked)
