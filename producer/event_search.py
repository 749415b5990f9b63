"""Finds events, newest first, by an index whatever is asked for and however many there are.

Every index ends in the time, so a filter that names its columns is a *strand*: one range of the index, in the wanted
order, out of which a page is read and no more. A filter that leaves a column open (`account.*`, any outcome) is several
strands, merged. Of several filters the rarest leads, and the others are looked at on what it gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, TextClause, func, literal, select, text, tuple_, union_all

from ..models.errors import NotFound
from ..models.moment import Moment
from ..models.store import Event, Seal
from ..models.store.records import BY_TIME

#: Rows of a page, unless the caller says otherwise.
PAGE = 50
#: A longer page is no page but an export: read in one go, at flat memory.
LONGEST_PAGE = 1000
#: How far rows are counted to find the rarest filter.
COUNTED = 10_000

Condition = ColumnElement[bool] | TextClause
Strand = list[Condition]


@dataclass(frozen=True)
class EventFilter:
    """Which events are asked for. Everything that is set must match."""

    noun: str | None = None
    name: str | None = None
    node: str | None = None
    actor: str | None = None
    #: A whole kind, or all of a noun: `account.*`.
    kind: str | None = None
    outcome: str | None = None
    job_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    #: Only events before this one: the cursor of the next page.
    before_id: int | None = None


def events(connection: Connection, which: EventFilter, limit: int | None = PAGE) -> Iterator[dict[str, Any]]:
    """Events, newest first, read at flat memory."""
    when = _when(connection, which)
    newest = (Event.at.desc(), Event.id.desc())
    statement = select(Event.id, Event.body, Seal.position).outerjoin(Seal, Seal.event_id == Event.id)
    if limit is None or limit > LONGEST_PAGE:
        statement = statement.where(text(BY_TIME), *when, *_rest(which, ())).order_by(*newest).limit(limit)
    else:
        strands, named = _leading(connection, which, when)
        if not strands:
            return
        rest = _rest(which, named)
        parts = [
            select(Event.id, Event.at).where(*strand, *when, *rest).order_by(*newest).limit(limit).subquery()
            for strand in strands
        ]
        page = union_all(*[select(part.c.id, part.c.at) for part in parts]).subquery()
        first = select(page.c.id).order_by(page.c.at.desc(), page.c.id.desc()).limit(limit).scalar_subquery()
        statement = statement.where(Event.id.in_(first)).order_by(*newest)
    with connection.execution_options(yield_per=1000).execute(statement) as rows:
        for row in rows:
            yield {"id": row.id, "position": row.position, **json.loads(row.body)}


def event(connection: Connection, event_id: int) -> dict[str, Any]:
    """One event with its seal. Raises NotFound."""
    row = connection.execute(
        select(Event.id, Event.body, Seal.position, Seal.hash)
        .outerjoin(Seal, Seal.event_id == Event.id)
        .where(Event.id == event_id)
    ).one_or_none()
    if row is None:
        raise NotFound(f"no such event: {event_id}", hint="onehost audit list")
    return {"id": row.id, "position": row.position, "hash": row.hash, **json.loads(row.body)}


def _when(connection: Connection, which: EventFilter) -> list[Condition]:
    """The part of every strand that is asked for."""
    found: list[Condition] = []
    if which.since is not None:
        found.append(Event.at >= which.since)
    if which.until is not None:
        found.append(Event.at < which.until)
    if which.before_id is not None:
        at = connection.execute(select(Event.at).where(Event.id == which.before_id)).scalar()
        if at is None:
            found.append(Event.id < which.before_id)
        else:
            found.append(Event.at <= at)
            found.append(tuple_(Event.at, Event.id) < tuple_(literal(at, Moment()), literal(which.before_id)))
    return found


def _rest(which: EventFilter, named: Sequence[str]) -> list[Condition]:
    """What the strands do not name, in words that no index answers: a planner must not leave the strands for it."""
    found: list[Condition] = []
    for word in ("noun", "name", "node", "actor", "outcome"):
        value = getattr(which, word)
        if value is not None and word not in named:
            found.append(_plain(word) == value)
    if which.kind is not None and "kind" not in named:
        if which.kind.endswith(".*"):
            start = which.kind[:-1]
            found.append(func.substr(Event.kind, 1, len(start)) == start)
        else:
            found.append(_plain("kind") == which.kind)
    if which.job_id is not None and "job_id" not in named:
        found.append(Event.job_id + 0 == which.job_id)
    return found


def _plain(word: str) -> ColumnElement[str]:
    column: ColumnElement[str] = getattr(Event, word)
    return column.concat("")


def _leading(
    connection: Connection, which: EventFilter, when: Sequence[Condition]
) -> tuple[list[Strand], Sequence[str]]:
    """The strands to read, and the filters that they answer."""
    if which.job_id is not None:
        return [[Event.job_id == which.job_id]], ("job_id",)
    if which.noun is not None and which.name is not None:
        return [[Event.noun == which.noun, Event.name == which.name]], ("noun", "name")
    ways: list[tuple[list[Strand], Sequence[str]]] = []
    for word in ("node", "actor", "noun"):
        value = getattr(which, word)
        if value is not None:
            ways.append(([[getattr(Event, word) == value]], (word,)))
    if which.kind is not None or which.outcome is not None:
        ways.append((_words(connection, which), ("kind", "outcome")))
    if not ways:
        return [[text(BY_TIME)]], ()
    if len(ways) == 1:
        return ways[0]
    return min(ways, key=lambda way: _size(connection, way[0], when))


def _size(connection: Connection, strands: Sequence[Strand], when: Sequence[Condition]) -> int:
    """How many events stand on these strands, counted up to COUNTED."""
    if not strands:
        return 0
    parts = [select(literal(1).label("one")).where(*strand, *when).limit(COUNTED).subquery() for strand in strands]
    some = union_all(*[select(part.c.one) for part in parts]).limit(COUNTED).subquery()
    return int(connection.execute(select(func.count()).select_from(some)).scalar_one())


def _words(connection: Connection, which: EventFilter) -> list[Strand]:
    """The strands of a kind and an outcome, either of which may be left open: all that there are."""
    if which.kind is not None and not which.kind.endswith(".*") and which.outcome is not None:
        return [[Event.kind == which.kind, Event.outcome == which.outcome]]
    pairs = connection.execute(_PAIRS)
    return [
        [Event.kind == kind, Event.outcome == outcome]
        for kind, outcome in pairs
        if _is_kind(kind, which.kind) and which.outcome in (None, outcome)
    ]


def _is_kind(kind: str, asked: str | None) -> bool:
    if asked is None or not asked.endswith(".*"):
        return asked in (None, kind)
    return kind.startswith(asked[:-1])


#: Each kind with each of its outcomes and with none, from one look into the index for each instead of all its rows.
_PAIRS = text("""
WITH RECURSIVE kinds (kind) AS (
    SELECT min(kind) FROM event
    UNION ALL SELECT (SELECT min(event.kind) FROM event WHERE event.kind > kinds.kind) FROM kinds WHERE kind IS NOT NULL
), pairs (kind, outcome) AS (
    SELECT kind, (SELECT min(event.outcome) FROM event WHERE event.kind = kinds.kind)
    FROM kinds WHERE kind IS NOT NULL
    UNION ALL SELECT kind, (SELECT min(event.outcome) FROM event
                            WHERE event.kind = pairs.kind AND event.outcome > pairs.outcome)
    FROM pairs WHERE outcome IS NOT NULL
) SELECT kind, outcome FROM pairs
""")
