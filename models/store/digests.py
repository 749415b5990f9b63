"""The running digest of each node: sums of what the store knows of it, kept up with every change of a placement.

Whoever changes a placement says what it showed before and after. The sums are written once, at the end of the
transaction and in one order: their rows are shared by all resources of a node, and held for the commit alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, delete, select, text

from ..digest import BUCKETS, MODULUS, Digest, bucket, row_hash
from ..states import Outcome
from .tables import Bucket, Placement

#: What a placement shows in the digest: (wanted, outcome). None: nothing, it does not exist or no stage has opened it.
Shown = tuple[int, int] | None
#: (node id, resource id, shown before, shown after).
Change = tuple[int, int, Shown, Shown]

_ADD = """
INSERT INTO bucket (node_id, number, total) {rows}
ON CONFLICT (node_id, number) DO UPDATE SET total = (bucket.total + excluded.total) & {mask}
"""
_ADD_EACH = text(_ADD.format(rows="VALUES (:n, :b, :t)", mask=MODULUS - 1))
_ADD_ALL = text(
    _ADD.format(
        rows="SELECT * FROM unnest(CAST(:n AS bigint[]), CAST(:b AS bigint[]), CAST(:t AS bigint[]))",
        mask=MODULUS - 1,
    )
)
#: One wish shows the same on all its nodes.
_hash = lru_cache(maxsize=1024)(row_hash)


@dataclass
class _Pending:
    """What a transaction has changed and not written yet."""

    sums: dict[tuple[int, int], int] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)


def shown(wanted: int, done: int, outcome: int) -> Shown:
    """What a placement with these numbers shows."""
    if not wanted:
        return None
    return wanted, outcome if done == wanted else int(Outcome.OPEN)


def changed(connection: Connection, changes: Iterable[Change]) -> None:
    """Part of a transaction of `writing`: placements have changed. Lock their rows before reading what they show."""
    sums = _pending(connection).sums
    for node_id, resource_id, before, after in changes:
        key = (node_id, bucket(resource_id))
        more = (_hash(resource_id, *after) if after else 0) - (_hash(resource_id, *before) if before else 0)
        sums[key] = (sums.get(key, 0) + more) % MODULUS


def left(connection: Connection, node_id: int) -> None:
    """Part of a transaction of `writing`: a node has gone, with all its placements."""
    pending = _pending(connection)
    pending.gone.add(node_id)
    for key in [key for key in pending.sums if key[0] == node_id]:
        del pending.sums[key]


def read(connection: Connection, node_id: int) -> Digest:
    """The digest of what the store knows of a node, with what this transaction has changed."""
    found = Digest()
    for row in connection.execute(select(Bucket.number, Bucket.total).where(Bucket.node_id == node_id)):
        found.sums[row.number] = row.total
    for (node, number), more in _pending(connection).sums.items():
        if node == node_id:
            found.sums[number] = (found.sums[number] + more) % MODULUS
    return found


def rows(connection: Connection, node_id: int, numbers: Collection[int]) -> Sequence[Any]:
    """(resource_id, wanted, done, outcome) of what the digest counts in these buckets of a node."""
    which = [Placement.node_id == node_id, Placement.wanted > 0]
    if len(numbers) < BUCKETS:
        which.append((Placement.resource_id % BUCKETS).in_(sorted(numbers)))
    return connection.execute(
        select(Placement.resource_id, Placement.wanted, Placement.done, Placement.outcome)
        .where(*which)
        .order_by(Placement.resource_id)
    ).all()


def recount(connection: Connection, node_id: int, numbers: Collection[int]) -> list[int]:
    """Counts these buckets anew and writes those whose sums were wrong; gives which. A hand in the store does that."""
    counted = _count(connection, node_id, numbers)
    if not _wrong(connection, node_id, counted):
        return []
    # Only now with a lock: who has changed a placement and not yet its sum waits, and adds to what is written here.
    _write(connection)
    _add(connection, [(node_id, number, 0) for number in sorted(numbers)])
    counted = _count(connection, node_id, numbers)
    wrong = _wrong(connection, node_id, counted)
    _add(connection, [(node_id, number, more) for number, more in sorted(wrong.items())])
    return sorted(wrong)


def _count(connection: Connection, node_id: int, numbers: Collection[int]) -> dict[int, int]:
    found = Digest()
    for row in rows(connection, node_id, numbers):
        if shows := shown(row.wanted, row.done, row.outcome):
            found.add(row.resource_id, *shows)
    return {number: found.sums[number] for number in numbers}


def _wrong(connection: Connection, node_id: int, counted: dict[int, int]) -> dict[int, int]:
    """By bucket how much its sum lacks."""
    have = read(connection, node_id).sums
    return {number: (total - have[number]) % MODULUS for number, total in counted.items() if total != have[number]}


def begin(connection: Connection) -> None:
    """Part of `writing` and `reading`: what a transaction before this one has not committed is forgotten."""
    connection.info.pop("digests", None)


def kept(connection: Connection) -> _Pending | None:
    """What a transaction has changed so far, to be put back if a part of it is taken back."""
    pending: _Pending | None = connection.info.get("digests")
    return pending and _Pending(dict(pending.sums), set(pending.gone))


def put_back(connection: Connection, pending: _Pending | None) -> None:
    """Forgets what a part of the transaction has changed that was taken back."""
    connection.info.pop("digests", None)
    if pending:
        connection.info["digests"] = pending


def before_commit(connection: Connection) -> None:
    """Part of `writing`: writes the sums."""
    if "digests" in connection.info:
        _write(connection)


def _pending(connection: Connection) -> _Pending:
    pending: _Pending = connection.info.setdefault("digests", _Pending())
    return pending


def _write(connection: Connection) -> None:
    pending: _Pending = connection.info.pop("digests", _Pending())
    if pending.gone:
        connection.execute(delete(Bucket).where(Bucket.node_id.in_(pending.gone)))
    _add(connection, [(node, number, more) for (node, number), more in sorted(pending.sums.items()) if more])


def _add(connection: Connection, sums: Sequence[tuple[int, int, int]]) -> None:
    """Adds to buckets in the order given. All transactions have the same one: none waits for another in a ring."""
    if not sums:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(_ADD_EACH, [{"n": n, "b": b, "t": more} for n, b, more in sums])
    else:
        n, b, more = (list(column) for column in zip(*sums, strict=True))
        connection.execute(_ADD_ALL, {"n": n, "b": b, "t": more})
