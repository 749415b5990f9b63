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
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, select

from ..models.canonical import canonical
from ..models.crash import crash_point
from ..models.moment import EPOCH, MICROSECOND
from ..models.store import Event, Seal

#: Events sealed in one transaction.
AT_ONCE = 10_000
#: An event that commits later than this many ids behind the newest seal is not looked for.
LATE_IDS = 100_000
#: Rows of the chain that are in memory together while it is verified.
FETCHED = 5000


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


def seal(connection: Connection, *, look_back: bool = True) -> int:
    """Seals what is not sealed yet, at most AT_ONCE. Gives how many. Only one process may do this at a time.

    An id that was given out before the newest sealed one may have been committed after it: `look_back` looks for such.
    """
    last = head(connection)
    newest = _newest(connection)
    statements = [select(Event.id, Event.body).where(Event.id > newest).order_by(Event.id).limit(AT_ONCE)]
    if look_back:
        statements.insert(0, select(Event.id, Event.body).where(*_late(newest)).order_by(Event.id).limit(AT_ONCE))
    rows = [row for statement in statements for row in connection.execute(statement)][:AT_ONCE]
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


def _newest(connection: Connection) -> int:
    """The highest id that is sealed."""
    return connection.execute(select(func.max(Seal.event_id))).scalar() or 0


def _late(newest: int) -> tuple[ColumnElement[bool], ...]:
    """Events that were committed after one with a higher id was sealed."""
    sealed = select(Seal.event_id).where(Seal.event_id == Event.id).exists()
    return Event.id > newest - LATE_IDS, Event.id <= newest, ~sealed


def link(before: str, position: int, body: bytes) -> str:
    """The hash of one place in the chain."""
    return hashlib.sha256(b"%s\n%d\n%s\n" % (before.encode(), position, body)).hexdigest()


def unsealed(connection: Connection) -> int:
    """How many events wait for their seal: its lag."""
    newest = _newest(connection)
    new = connection.execute(select(func.count()).select_from(Event).where(Event.id > newest)).scalar_one()
    return int(new + connection.execute(select(func.count()).select_from(Event).where(*_late(newest))).scalar_one())


def verify(connection: Connection, anchor: Head | None = None) -> Verdict:
    """Goes through the whole chain and names the first row that does not hold. Reads at flat memory."""
    position, chain, problem = 0, "", ""
    with closing(_chain(connection)) as rows:
        for row in rows:
            if problem := _problem(row, position + 1, chain):
                return Verdict(position, row[0], row[1], unsealed(connection), problem)
            position, chain = row[0], row[1]
            if anchor and anchor.position == position and anchor.hash != chain:
                problem = f"position {position} has another hash than the anchor"
                return Verdict(position, position, chain, unsealed(connection), problem)
    if anchor and anchor.position > position:
        problem = f"the chain ends at {position}, the anchor stands at {anchor.position}: its end was cut off"
    return Verdict(position, position, chain, unsealed(connection), problem)


#: Columns of a row of the chain after (position, hash, event_id, body), in this order.
_COLUMNS = ("actor", "at", "epoch", "job_id", "kind", "name", "node", "node_id", "noun", "number", "outcome",
            "resource_id")  # fmt: skip
_CHAIN = f"""SELECT s.position, s.hash, s.event_id, e.body, {", ".join(f"e.{name}" for name in _COLUMNS)}
FROM seal s LEFT JOIN event e ON e.id = s.event_id ORDER BY s.position"""


def _chain(connection: Connection) -> Generator[tuple[Any, ...]]:
    """Rows as the driver gives them: a row of SQLAlchemy's, a million times, costs more than its hash."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        cursor = driver.cursor()
        cursor.row_factory = None
        cursor.execute(_CHAIN)
    else:
        cursor = driver.cursor("chain", binary=True)
        cursor.execute(_CHAIN)
    with closing(cursor):
        while rows := cursor.fetchmany(FETCHED):
            yield from rows


def _problem(row: tuple[Any, ...], expected: int, chain: str) -> str:
    position, its_hash, event_id, body, *columns = row
    if position != expected:
        return f"position {expected} is missing: the next one is {position}"
    if body is None:
        return f"position {position}: its event {event_id} was removed"
    if link(chain, position, body) != its_hash:
        return f"position {position}: event {event_id} was changed or moved"
    begin, end = _spelled(*columns)
    if body.startswith(begin) and body.endswith(end):
        return ""
    said, found = json.loads(body), dict(zip(_COLUMNS, columns, strict=True))
    found["at"] = (EPOCH + found["at"] * MICROSECOND).isoformat()
    wrong = [name for name, value in found.items() if said.get(name) != value]
    return f"position {position}: column {wrong[0]} was changed" if wrong else ""


def _spelled(actor: str, at: int, epoch: int | None, job_id: int | None, kind: str, name: str | None, node: str | None,
             node_id: int | None, noun: str | None, number: int | None, outcome: str | None,
             resource_id: int | None) -> tuple[bytes, bytes]:  # fmt: skip
    """How a body with these columns begins and ends. Sealed bytes are canonical: no other columns do."""
    when = (EPOCH + at * MICROSECOND).isoformat()
    end = (
        f',"epoch":{_number(epoch)},"job_id":{_number(job_id)},"kind":{_text(kind)},"name":{_text(name)}'
        f',"node":{_text(node)},"node_id":{_number(node_id)},"noun":{_text(noun)},"number":{_number(number)}'
        f',"outcome":{_text(outcome)},"resource_id":{_number(resource_id)}}}'
    )
    return f'{{"actor":{_text(actor)},"at":"{when}","detail":'.encode(), end.encode()


def _number(value: int | None) -> int | str:
    return "null" if value is None else value


@lru_cache(maxsize=65536)
def _text(value: str | None) -> str:
    return canonical(value).decode()
