"""Gives every event its place and a hash over all before it; finds any edit, removal or reordering.

hash(n) = SHA-256(hash(n-1), n, body), each ended by a line feed; hash(0) is empty. Ids may have gaps and may commit
late; positions never do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select

from ..models.crash import crash_point
from ..models.store import Event, Seal
from .events import INDEXED

#: Events sealed in one transaction.
AT_ONCE = 10_000
#: An event that commits later than this many ids behind the newest seal is not looked for.
LATE_IDS = 100_000


@dataclass(frozen=True)
class Head:
    """The newest seal. Kept elsewhere, it shows later whether the end of the chain was cut off."""

    position: int
    hash: str


@dataclass(frozen=True)
class Verdict:
    """What `verify` found. `problem` is empty if the chain holds; else `position` is the first bad place."""

    events: int
    position: int
    hash: str
    unsealed: int
    problem: str = ""


def head(connection: Connection) -> Head:
    """The newest seal; position 0 if there is none."""
    row = connection.execute(select(Seal.position, Seal.hash).order_by(Seal.position.desc()).limit(1)).one_or_none()
    return Head(row.position, row.hash) if row else Head(0, "")


def seal(connection: Connection) -> int:
    """Seals what is not sealed yet, at most AT_ONCE. Gives how many. Only one process may do this at a time."""
    last = head(connection)
    sealed = select(Seal.event_id).where(Seal.event_id == Event.id).exists()
    floor = (connection.execute(select(func.max(Seal.event_id))).scalar() or 0) - LATE_IDS
    rows = connection.execute(
        select(Event.id, Event.body).where(Event.id > floor, ~sealed).order_by(Event.id).limit(AT_ONCE)
    ).all()
    position, chain, new = last.position, last.hash, []
    for row in rows:
        position += 1
        chain = link(chain, position, row.body)
        new.append({"position": position, "event_id": row.id, "hash": chain})
    if new:
        crash_point("seal.read")
        connection.execute(insert(Seal), new)
        crash_point("seal.written")
    return len(new)


def link(before: str, position: int, body: bytes) -> str:
    """The hash of one place in the chain."""
    return hashlib.sha256(b"%s\n%d\n%s\n" % (before.encode(), position, body)).hexdigest()


def unsealed(connection: Connection) -> int:
    """How many events wait for their seal: its lag."""
    events = connection.execute(select(func.count()).select_from(Event)).scalar_one()
    return int(events - connection.execute(select(func.count()).select_from(Seal)).scalar_one())


def verify(connection: Connection, anchor: Head | None = None) -> Verdict:
    """Goes through the whole chain and names the first row that does not hold. Reads at flat memory."""
    position, chain, problem = 0, "", ""
    with closing(_chain(connection)) as rows:
        for row in rows:
            if problem := _problem(row, position + 1, chain):
                return Verdict(position, row.position, row.hash, unsealed(connection), problem)
            position, chain = row.position, row.hash
            if anchor and anchor.position == position and anchor.hash != chain:
                problem = f"position {position} has another hash than the anchor"
                return Verdict(position, position, chain, unsealed(connection), problem)
    if anchor and anchor.position > position:
        problem = f"the chain ends at {position}, the anchor stands at {anchor.position}: its end was cut off"
    return Verdict(position, position, chain, unsealed(connection), problem)


def _chain(connection: Connection) -> Generator[Any]:
    columns = [getattr(Event, name) for name in INDEXED]
    statement = (
        select(Seal.position, Seal.hash, Seal.event_id, Event.body, Event.at, *columns)
        .outerjoin(Event, Event.id == Seal.event_id)
        .order_by(Seal.position)
    )
    with connection.execution_options(yield_per=5000).execute(statement) as rows:
        yield from rows


def _problem(row: Any, expected: int, chain: str) -> str:
    position, body = row.position, row.body
    if position != expected:
        return f"position {expected} is missing: the next one is {position}"
    if body is None:
        return f"position {position}: its event {row.event_id} was removed"
    if link(chain, position, body) != row.hash:
        return f"position {position}: event {row.event_id} was changed or moved"
    said = json.loads(body)
    columns = {name: getattr(row, name) for name in INDEXED} | {"at": row.at.isoformat()}
    wrong = [name for name, value in columns.items() if said.get(name) != value]
    return f"position {position}: column {wrong[0]} was changed" if wrong else ""
