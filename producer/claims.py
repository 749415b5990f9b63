"""Names and numbers that one resource alone may hold, until what dropped them is applied everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Delete, delete, exists, insert, select, tuple_, update

from ..models import nouns
from ..models.errors import Conflict
from ..models.store import Claim, Placement, Resource, together

#: Claims looked up in one statement.
AT_ONCE = 1000


def take(
    connection: Connection, resource_id: int, generation: int, wanted: Iterable[nouns.Claim], replaces: int
) -> None:
    """Makes `wanted` the claims of a resource; those it held beside them begin to be released. Raises Conflict.

    A resource made again under its name takes over what its predecessor is still releasing: on every node the old one
    is removed completely before the new one is made.
    """
    claims = {(claim.kind, claim.value): claim for claim in wanted}
    held = {
        (row.kind, row.value): row for row in connection.execute(select(Claim).where(Claim.resource_id == resource_id))
    }
    for key in held.keys() - claims.keys():
        _update(connection, key, releasing=generation)
    for key in claims.keys() & held.keys():
        if held[key].releasing is not None:
            _update(connection, key, releasing=None)
    for key in claims.keys() - held.keys():
        _take_one(connection, resource_id, claims[key], replaces)


def _take_one(connection: Connection, resource_id: int, claim: nouns.Claim, replaces: int) -> None:
    row = connection.execute(
        select(Claim.resource_id, Claim.releasing, Resource.noun, Resource.name)
        .join(Resource, Resource.id == Claim.resource_id)
        .where(Claim.kind == claim.kind, Claim.value == claim.value)
    ).one_or_none()
    if row is None:
        connection.execute(
            insert(Claim).values(kind=claim.kind, value=claim.value, resource_id=resource_id, forever=claim.forever)
        )
    elif row.releasing is not None and replaces and row.resource_id == replaces:
        _update(connection, (claim.kind, claim.value), resource_id=resource_id, releasing=None)
    elif row.releasing is not None:
        raise Conflict(
            f"{claim.kind} {claim.value} is still being released by {row.noun} {row.name}",
            hint=f"it is free once every node has applied that; see: onehost job list --resource {row.noun}/{row.name}",
        )
    else:
        raise Conflict(f"{claim.kind} {claim.value} is held by {row.noun} {row.name}")


def take_new(connection: Connection, wanted: Sequence[tuple[int, str, Iterable[nouns.Claim]]]) -> None:
    """Gives new resources, each with its id and how it is called, their claims. Raises Conflict."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    holders: dict[tuple[str, str], str] = {}
    for resource_id, called, claims in wanted:
        for claim in claims:
            key = (claim.kind, claim.value)
            if key in rows and holders[key] != called:
                raise Conflict(f"{claim.kind} {claim.value} is held by {holders[key]}")
            holders[key] = called
            rows[key] = {"kind": claim.kind, "value": claim.value, "resource_id": resource_id, "forever": claim.forever}
    keys = sorted(rows)
    for at in range(0, len(keys), AT_ONCE):
        which = tuple_(Claim.kind, Claim.value).in_(keys[at : at + AT_ONCE])
        for held in connection.execute(select(Claim.kind, Claim.value).where(which).limit(1)):
            _take_one(connection, rows[held.kind, held.value]["resource_id"], nouns.Claim(held.kind, held.value), 0)
    together.add(connection, Claim, list(rows.values()))


def drop(connection: Connection, resource_id: int, generation: int) -> None:
    """Begins to release all claims of a removed resource but those that never return."""
    connection.execute(
        update(Claim).where(Claim.resource_id == resource_id, Claim.forever.is_(False)).values(releasing=generation)
    )


def release(connection: Connection, resource_ids: Iterable[int]) -> None:
    """Frees claims whose dropping is applied (not merely done) on every placement of their resource."""
    ids = list(resource_ids)
    if not ids:
        return
    dialect = connection.dialect.name
    connection.execute(_release(dialect), together.listed(dialect, ids))


@cache
def _release(dialect: str) -> Delete:
    behind = exists().where(
        Placement.resource_id == Claim.resource_id, Placement.wanted > 0, Placement.applied < Claim.releasing
    )
    its = (together.among(dialect, Claim.resource_id), Claim.releasing.is_not(None), Claim.forever.is_(False))
    return delete(Claim).where(*its, ~behind)


def _update(connection: Connection, key: tuple[str, str], **values: int | None) -> None:
    connection.execute(update(Claim).where(tuple_(Claim.kind, Claim.value) == key).values(**values))
