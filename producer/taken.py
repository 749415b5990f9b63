"""How much of its limits an owner has taken, counted in the store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection

from sqlalchemy import Connection, Executable, and_, select

from ..models import nouns
from ..models.store import Resource, Revision, together


def taken(connection: Connection, owner_ids: Collection[int]) -> dict[int, Counter[str]]:
    """By owner what everything that belongs to it takes of each limit, in one statement for all of them."""
    found: dict[int, Counter[str]] = {owner_id: Counter() for owner_id in owner_ids}
    dialect = connection.dialect.name
    for row in connection.execute(_owned(dialect), together.listed(dialect, owner_ids)):
        found[row.owner_id].update(nouns.noun(row.noun).takes(json.loads(row.payload)))
    return found


def _owned(dialect: str) -> Executable:
    return (
        select(Resource.owner_id, Resource.noun, Revision.payload)
        .join(Revision, and_(Revision.resource_id == Resource.id, Revision.generation == Resource.generation))
        .where(together.among(dialect, Resource.owner_id), Resource.absent.is_(False))
    )
