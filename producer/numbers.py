"""Numbers come from the manager and never twice: resource ids, generations, uids."""

from __future__ import annotations

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from ..models.errors import Refused
from ..models.store import Counter

#: Ids and generations of one life of the store stand above this many bits, so that no two lives give out the same.
INCARNATION_BITS = 32


def incarnation(connection: Connection) -> int:
    """Which life of the store this is: 0 for the first, else the minutes from 2026 to the restore."""
    return connection.execute(select(Counter.value).where(Counter.name == "incarnation")).scalar() or 0


def base(connection: Connection) -> int:
    """What every id and generation of this life is above."""
    return incarnation(connection) << INCARNATION_BITS


def next_id(connection: Connection) -> int:
    """A resource id that was never given out."""
    return _next(connection, "resource", base(connection) + 1)


def next_generation(connection: Connection, last: int) -> int:
    """The generation after `last`, in the range of this life of the store."""
    return max(last, base(connection)) + 1


def next_in_range(connection: Connection, kind: str, first: int, last: int) -> int:
    """A number from `first` to `last` that was never given out. Raises Refused when none is left."""
    value = _next(connection, kind, first)
    if value > last:
        raise Refused(f"no {kind} is left between {first} and {last}: each is given out once and never returns")
    return value


def _next(connection: Connection, name: str, at_least: int) -> int:
    insert = sqlite_insert if connection.dialect.name == "sqlite" else pg_insert
    start = insert(Counter).values(name=name, value=0).on_conflict_do_nothing()
    connection.execute(start)
    raised = update(Counter).where(Counter.name == name).values(value=Counter.value + 1).returning(Counter.value)
    value = connection.execute(raised).scalar_one()
    if value < at_least:
        connection.execute(update(Counter).where(Counter.name == name).values(value=at_least))
        return at_least
    return value
