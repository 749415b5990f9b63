"""Dead letters: what nobody could take in. Kept in the store until a person retries or drops each.

A letter for a node is published again by the relay, in a row of `action`; a letter from a node is handed to the audit
process again, under the name of the broker user that sent it. Neither gets a name by it that it did not have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from ..broker_config import routing
from ..broker_config.consumer import Delivery
from ..broker_config.permissions import RELAY_USER
from ..models import wire
from ..models.canonical import digest
from ..models.errors import Conflict, NotFound, Refused
from ..models.store import Action, Dead, Resource, bells
from .events import Happened, record

#: Letters of a page, unless the caller says otherwise.
PAGE = 50
#: Above so many letters that nobody has decided on, somebody floods us: bodies are cut to this many bytes.
FLOOD, SHORT_BYTES = 10_000, 1000
#: Letters that one turn of the audit process takes in again.
AGAIN_AT_ONCE = 100
#: Letters that one turn of the audit process forgets: others wait for its transaction.
FORGOTTEN_AT_ONCE = 1000
#: Letters read for one page of a bulk command.
ALL_AT_ONCE = 1000
KEPT, RETRYING, RETRIED, DROPPED = "kept", "retrying", "retried", "dropped"
STATES = (KEPT, RETRYING, RETRIED, DROPPED)


@dataclass(frozen=True)
class DeadFilter:
    """Which dead letters are asked for. Everything that is set must match."""

    #: Where it died, by the queue's name.
    queue: str | None = None
    #: Who sent it, by the broker user.
    user: str | None = None
    state: str | None = None
    #: Only letters before this id: the cursor of the next page.
    before_id: int | None = None


# ---- taken in


def keep(connection: Connection, deliveries: Sequence[Delivery], now: datetime) -> None:
    """Writes what came out of the dead-letter queue, with an event for each. Takes in whatever bytes there are."""
    is_flooded = bool(deliveries) and _is_flooded(connection)
    for delivery in deliveries:
        row = _row(delivery, now, SHORT_BYTES if is_flooded else wire.MAX_BODY_BYTES)
        if _was_too_late(delivery) or (delivery.redelivered and _is_known(connection, row)):
            continue
        dead_id = connection.execute(insert(Dead).values(**row).returning(Dead.id)).scalar_one()
        detail = {name: row[name] for name in ("queue", "why", "routing_key", "message_id", "size_bytes")}
        node = routing.node_of_user(row["user"]) or row["queue"].removeprefix(routing.NODE_QUEUE_PREFIX)
        record(connection, [Happened("dead.keep", row["user"] or "nobody", now, outcome=KEPT,
                                     node=node if node != row["queue"] else None,
                                     detail=detail | {"dead": dead_id})])  # fmt: skip


def _was_too_late(delivery: Delivery) -> bool:
    """Whether it is an action or a question of our own that nobody took in time: its job, or its asker, knows."""
    return delivery.user in ("relay", "ask") and _death(delivery.headers)[1] == "expired"


def _is_flooded(connection: Connection) -> bool:
    some = select(Dead.id).where(Dead.state == KEPT).order_by(Dead.id).offset(FLOOD).limit(1)
    return connection.execute(some).first() is not None


def _row(delivery: Delivery, now: datetime, longest: int) -> dict[str, Any]:
    queue, reason, count = _death(delivery.headers)
    times = f" after {count} deliveries" if reason == "delivery_limit" else ""
    problem = _problem(delivery)
    return {
        "at": now, "queue": wire.clean(queue, 255), "routing_key": wire.clean(delivery.routing_key, 255),
        "why": wire.clean(f"{reason}{times}{': ' if problem else ''}{problem}", wire.MAX_TEXT),
        "user": wire.clean(delivery.user, 255), "message_id": wire.clean(delivery.message_id, 255),
        "body": delivery.body[:longest], "size_bytes": len(delivery.body), "state": KEPT, "state_at": now,
    }  # fmt: skip


def _death(headers: Mapping[str, Any]) -> tuple[str, str, int]:
    """Queue, reason and count of the newest death. A sender can have written anything there: nothing is trusted."""
    deaths = headers.get("x-death")
    newest = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    count = newest.get("count")
    return (str(newest.get("queue") or routing.DEAD_QUEUE), str(newest.get("reason") or "sent here by hand"),
            count if isinstance(count, int) else 1)  # fmt: skip


def _problem(delivery: Delivery) -> str:
    """Why it is no letter, as whoever refused it saw it; empty if the bytes are good."""
    try:
        letter = wire.decode(delivery.body)
    except wire.Undecodable as error:
        return str(error)[:500]
    return f"a letter of form {letter.form} about node {letter.node}, sent by {delivery.user or 'nobody'}"


def _is_known(connection: Connection, row: Mapping[str, Any]) -> bool:
    """Whether it was written just before the connection broke, so that the broker gave it out once more."""
    same = (getattr(Dead, name) == row[name] for name in ("queue", "user", "routing_key", "message_id", "size_bytes"))
    rows = connection.execute(select(Dead.body).where(Dead.state == KEPT, *same).limit(ALL_AT_ONCE))
    return row["body"] in rows.scalars().all()


# ---- looked at


def letters(connection: Connection, which: DeadFilter, limit: int = PAGE) -> list[dict[str, Any]]:
    """A page of dead letters, newest first, without their bodies."""
    statement = _matching(select(*_SHOWN), which).order_by(Dead.id.desc()).limit(limit)
    return [_shown(row) for row in connection.execute(statement)]


def letter(connection: Connection, dead_id: int) -> dict[str, Any]:
    """One dead letter with its body as text, secrets masked. Raises NotFound."""
    row = _one(connection, select(Dead), dead_id)
    return _shown(row) | {"sha256": digest(row.body), "body": _text(row.body)}


def count(connection: Connection, which: DeadFilter) -> int:
    """How many there are."""
    return int(connection.execute(_matching(select(func.count()).select_from(Dead), which)).scalar_one())


_SHOWN = (Dead.id, Dead.at, Dead.queue, Dead.why, Dead.routing_key, Dead.user, Dead.message_id, Dead.size_bytes,
          Dead.state, Dead.state_at, Dead.actor)  # fmt: skip


def _matching(statement: Any, which: DeadFilter) -> Any:
    for column, value in ((Dead.queue, which.queue), (Dead.user, which.user), (Dead.state, which.state)):
        if value is not None:
            statement = statement.where(column == value)
    return statement if which.before_id is None else statement.where(Dead.id < which.before_id)


def _shown(row: Any) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in _SHOWN}


def _one(connection: Connection, statement: Any, dead_id: int) -> Any:
    row = connection.execute(statement.where(Dead.id == dead_id)).one_or_none()
    if row is None:
        raise NotFound(f"no such dead letter: {dead_id}", hint="onehost dead list")
    return row


def _text(body: bytes) -> str:
    """A body as a person may see it: a letter carries password hashes."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")
    if isinstance(given, dict) and isinstance(given.get("secrets"), dict):
        given["secrets"] = dict.fromkeys(given["secrets"], "(secret)")
    return json.dumps(given, ensure_ascii=False)


# ---- decided on


def retry(connection: Connection, dead_id: int, actor: str, now: datetime) -> dict[str, Any]:
    """Sends it on its way once more. Raises NotFound, Conflict if it is not kept, Refused if it can never arrive."""
    row = _kept(connection, dead_id)
    if row.size_bytes > len(row.body):
        raise Refused(
            f"dead letter {dead_id} is cut: {row.size_bytes} bytes arrived", hint=f"onehost dead drop {dead_id}"
        )
    if row.queue.startswith(routing.NODE_QUEUE_PREFIX):
        _publish_again(connection, row, now)
        state = RETRIED
    elif row.queue == routing.AUDIT_QUEUE and routing.node_of_user(row.user):
        state = RETRYING
    else:
        who = f"user {row.user}" if row.user else "a user that did not say who it is"
        raise Refused(f"dead letter {dead_id} was sent to {row.queue} by {who}: nobody would take it",
                      hint=f"onehost dead drop {dead_id}")  # fmt: skip
    return _decided(connection, row, state, actor, now)


def drop(connection: Connection, dead_id: int, actor: str, now: datetime) -> dict[str, Any]:
    """Gives it up: the row stays, its body goes. Raises NotFound, Conflict if it is not kept."""
    row = _kept(connection, dead_id)
    connection.execute(update(Dead).where(Dead.id == dead_id).values(body=b""))
    return _decided(connection, row, DROPPED, actor, now)


def _kept(connection: Connection, dead_id: int) -> Any:
    row = _one(connection, select(Dead).with_for_update(), dead_id)
    if row.state != KEPT:
        raise Conflict(f"dead letter {dead_id} is {row.state} already", hint=f"onehost dead show {dead_id}")
    return row


def _publish_again(connection: Connection, row: Any, now: datetime) -> None:
    """The relay publishes it under its own name, so it must have been the relay's."""
    drop_hint = f"onehost dead drop {row.id}"
    if row.user != RELAY_USER:
        raise Refused(f"dead letter {row.id} was not sent by the relay but by {row.user or 'nobody'}", hint=drop_hint)
    try:
        letter = wire.decode(row.body)
    except wire.Undecodable as error:
        raise Refused(f"dead letter {row.id}: {error}", hint=drop_hint) from error
    node = row.queue.removeprefix(routing.NODE_QUEUE_PREFIX)
    living = (Resource.noun == "node", Resource.name == node, Resource.absent.is_(False), Resource.created_at <= row.at)
    node_id = connection.execute(select(Resource.id).where(*living)).scalar()
    if node_id is None or letter.node != node:
        raise Refused(f"dead letter {row.id} is for a node {node} that is gone", hint=drop_hint)
    connection.execute(insert(Action).values(node_id=node_id, form=letter.form, body=row.body, created_at=now))
    bells.ring(connection, bells.RELAY)


def _decided(connection: Connection, row: Any, state: str, actor: str, now: datetime) -> dict[str, Any]:
    values = {"state": state, "state_at": now, "actor": actor}
    connection.execute(update(Dead).where(Dead.id == row.id).values(**values))
    kind = "dead.drop" if state == DROPPED else "dead.retry"
    detail = {"dead": row.id, "queue": row.queue, "user": row.user, "sha256": digest(row.body)}
    record(connection, [Happened(kind, actor, now, outcome=state, detail=detail)])
    return _shown(row) | values


# ---- handed to the audit process again


def again(connection: Connection) -> list[tuple[int, Delivery]]:
    """Letters from nodes that wait to be taken in once more, oldest first, as they arrived."""
    rows = connection.execute(select(Dead).where(Dead.state == RETRYING).order_by(Dead.id).limit(AGAIN_AT_ONCE))
    return [
        (row.id, Delivery(row.queue, row.routing_key, row.user, row.message_id, row.body, redelivered=True))
        for row in rows
    ]


def taken_in(connection: Connection, dead_id: int, *, refused: bool, now: datetime) -> None:
    """What became of one of `again`: refused once more, it is kept as before."""
    state = KEPT if refused else RETRIED
    connection.execute(update(Dead).where(Dead.id == dead_id, Dead.state == RETRYING)
                       .values(state=state, state_at=now))  # fmt: skip


# ---- forgotten


def forget(connection: Connection, before: datetime) -> int:
    """Removes letters that were retried or dropped before then, at most FORGOTTEN_AT_ONCE. Gives how many.

    What nobody has decided on stays, and so do the events of all of them.
    """
    old = select(Dead.id).where(Dead.state.in_((RETRIED, DROPPED)), Dead.state_at < before).limit(FORGOTTEN_AT_ONCE)
    return connection.execute(delete(Dead).where(Dead.id.in_(old))).rowcount
