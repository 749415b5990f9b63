"""Numbers come from the manager and never twice: resource ids, generations, uids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, literal, select
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from ..models.errors import Refused
from ..models.store import Counter, NodeStatus, Resource

#: Ids and generations of one life of the store stand above this many bits, so that no two lives give out the same.
INCARNATION_BITS = 32


def incarnation(connection: Connection) -> int:
    """Which life of the store this is: 0 for the first, else the minutes from 2026 to the restore.

    Raises Refused if a backup was put back and its new life did not begin.
    """
    return as_incarnation(connection.execute(INCARNATION).all())


def as_incarnation(rows: Sequence[Any]) -> int:
    """The same, from what INCARNATION gave."""
    found: int = rows[0].value if rows else 0
    if found < 0:
        raise Refused("the store was put back, but its new life has not begun", hint="onehost restore FILE, again")
    return found


#: The life of the store, to be read together with other things.
INCARNATION = select(Counter.value).where(Counter.name == "incarnation")


def set_incarnation(connection: Connection, life: int) -> None:
    """Begins another life of the store."""
    _put(connection, "incarnation", life, literal(life))


def last_id(connection: Connection) -> int:
    """The resource id given out last."""
    found = connection.execute(select(Counter.value).where(Counter.name == "resource")).scalar()
    return max(found or 0, base(connection))


def base(connection: Connection) -> int:
    """What every id and generation of this life is above."""
    return incarnation(connection) << INCARNATION_BITS


def as_base(rows: Sequence[Any]) -> int:
    """The same, from what INCARNATION gave."""
    return as_incarnation(rows) << INCARNATION_BITS


def next_id(connection: Connection) -> int:
    """A resource id that was never given out."""
    return _next(connection, "resource", base(connection) + 1)


def next_ids(connection: Connection, count: int) -> int:
    """The first of so many resource ids in a row that were never given out."""
    return _next(connection, "resource", base(connection) + 1, count) - count + 1


def next_generation(connection: Connection, last: int) -> int:
    """The generation after `last`, in the range of this life of the store."""
    return max(last, base(connection)) + 1


def next_in_range(connection: Connection, kind: str, first: int, last: int, count: int = 1) -> range:
    """So many numbers in a row from `first` to `last` that were never given out.

    Raises Refused when none is left, or when a node may have one that was given after the backup of this store.
    """
    if waiting := unreported(connection):
        named = ", ".join(waiting[:5]) + (f" and {len(waiting) - 5} more" if len(waiting) > 5 else "")
        raise Refused(
            f"no {kind} can be given out before every node has said its highest, since the store was restored: "
            f"waiting for {named}",
            hint=f"onehost status; one that will not come back: onehost node remove {waiting[0]} --lost",
        )
    value = _next(connection, kind, first, count)
    if value > last:
        raise Refused(f"no {kind} is left between {first} and {last}: each is given out once and never returns")
    return range(value - count + 1, value + 1)


def give_back(connection: Connection, kind: str, last: int) -> None:
    """Of the numbers that this very transaction has taken, those above `last` were not given out."""
    _put(connection, kind, last, literal(last))


def unreported(connection: Connection) -> list[str]:
    """Nodes that have not said, in this life of the store, which numbers they were given. None in the first life."""
    if not (life := incarnation(connection)):
        return []
    return list(
        connection.execute(
            select(Resource.name)
            .join(NodeStatus, NodeStatus.node_id == Resource.id)
            .where(Resource.absent.is_(False), NodeStatus.reported >= 0, NodeStatus.reported < life)
            .order_by(Resource.name)
        ).scalars()
    )


def at_least(connection: Connection, name: str, value: int) -> None:
    """Raises a counter to `value`, if it is lower."""
    _put(connection, name, value, case((Counter.value < value, value), else_=Counter.value))


def _next(connection: Connection, name: str, first: int, count: int = 1) -> int:
    """The last of so many numbers after the one given out last, none below `first`."""
    beyond = first + count - 1
    return _put(connection, name, beyond, case((Counter.value < first, beyond), else_=Counter.value + count))


def _put(connection: Connection, name: str, if_new: int, else_: ColumnElement[int]) -> int:
    insert = sqlite_insert if connection.dialect.name == "sqlite" else pg_insert
    put = insert(Counter).values(name=name, value=if_new)
    put = put.on_conflict_do_update(index_elements=[Counter.name], set_={"value": else_})
    return int(connection.execute(put.returning(Counter.value)).scalar_one())
