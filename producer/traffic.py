"""What is sent for accounts in a month: running totals of each node, summed over the nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, or_, select

from ..models import wire
from ..models.store import Placement, Resource, Traffic, together
from .membership import Node

#: Months that are kept, this one included.
MONTHS = 13
_KEY = ("resource_id", "node_id", "month")


def store(connection: Connection, letters: Sequence[tuple[Node, wire.Letter]], at: datetime) -> None:
    """Takes in totals of this month and the last one: of accounts that stand on the node. A total never falls.

    A letter that is lost, late or comes twice does no harm: the next one says all of it.
    """
    months = (month(at), month(at.replace(day=1) - timedelta(days=1)))
    told: dict[tuple[int, int, int], int] = {}
    for node, letter in letters:
        for owner, its, size in letter["sent"] if "web" in node.roles else ():
            if its in months:
                told[owner, node.id, its] = max(size, told.get((owner, node.id, its), 0))
    if not told:
        return
    _forget(connection, at)
    old, here = _known(connection, told)
    rows = [{"resource_id": owner, "node_id": node_id, "month": its, "bytes_out": size}
            for (owner, node_id, its), size in sorted(told.items()) if (owner, node_id) in here]  # fmt: skip
    is_old = [tuple(row[name] for name in _KEY) in old for row in rows]
    together.change(connection, Traffic, [row for row, known in zip(rows, is_old, strict=True) if known], _KEY, _rises)
    together.add(connection, Traffic, [row for row, known in zip(rows, is_old, strict=True) if not known])


def sent(connection: Connection, at: datetime) -> dict[int, int]:
    """Bytes sent in the month of `at`, by account; nothing for those of which no node has told any."""
    found = select(Traffic.resource_id, func.sum(Traffic.bytes_out)).where(Traffic.month == month(at))
    return {owner: int(total) for owner, total in connection.execute(found.group_by(Traffic.resource_id))}


def month(at: datetime) -> int:
    """The month of a time in UTC, as 202611."""
    return at.year * 100 + at.month


def _rises(new: Mapping[str, Any]) -> ColumnElement[bool]:
    rises: ColumnElement[bool] = Traffic.bytes_out < new["bytes_out"]
    return rises


def _known(connection: Connection, told: Mapping[tuple[int, int, int], int]
           ) -> tuple[set[tuple[int, int, int]], set[tuple[int, int]]]:  # fmt: skip
    """Totals that are in the store, and accounts that stand on nodes."""
    dialect, owners = connection.dialect.name, {owner for owner, _, _ in told}
    given = together.listed(dialect, owners)
    totals = select(Traffic.resource_id, Traffic.node_id, Traffic.month)
    totals = totals.where(together.among(dialect, Traffic.resource_id))
    placed = select(Placement.resource_id, Placement.node_id).join(Resource, Resource.id == Placement.resource_id)
    placed = placed.where(
        Resource.noun == "account", Resource.absent.is_(False), together.among(dialect, Placement.resource_id)
    )
    old = {(row[0], row[1], row[2]) for row in connection.execute(totals, given)}
    return old, {(row[0], row[1]) for row in connection.execute(placed, given)}


def _forget(connection: Connection, at: datetime) -> None:
    """Drops the totals of removed accounts and of months long ago."""
    gone = exists().where(Resource.id == Traffic.resource_id, Resource.absent.is_(True))
    years, months = divmod(at.year * 12 + at.month - MONTHS, 12)
    connection.execute(delete(Traffic).where(or_(gone, and_(Traffic.month <= years * 100 + months))))
