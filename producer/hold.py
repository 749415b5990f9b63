"""The hold: removals and suspensions beyond a limit per hour and actor wait for a person. One mistake stays small.

A held wish is a job that has not begun: nothing of its resource is raised, so nobody else need know of it. Released,
it goes the way of any wish, and every rule is asked again. A newer wish for the same resource takes its place.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, literal_column, select, text, update

from ..models import nouns, states
from ..models.canonical import canonical
from ..models.errors import NotFound, Refused
from ..models.store import Job, bells
from .events import Happened, record
from .wish import Receipt, Wish

#: The limit counts what was begun within this time.
WINDOW = timedelta(hours=1)


def is_beyond(connection: Connection, limit: int, wish: Wish, now: datetime) -> bool:
    """Whether this actor has begun as many removals and suspensions as he may; held ones do not count."""
    if limit <= 0 or wish.verb == "cancel":
        return False
    if connection.dialect.name != "sqlite":
        # Two wishes at once would each count the others without seeing them.
        lock = text("SELECT pg_advisory_xact_lock(hashtext(:what))")
        connection.execute(lock, {"what": f"onehost hold {wish.actor}"})
    # The column by itself, as the partial index has it.
    counted: ColumnElement[bool] = literal_column("job.destroys")
    begun = select(Job.id).where(counted, Job.actor == wish.actor, Job.submitted_at > now - WINDOW).limit(limit)
    return connection.execute(select(func.count()).select_from(begun.subquery())).scalar_one() >= limit


def keep(connection: Connection, noun: nouns.Noun, name: str, living: Row[Any], wish: Wish, mark: str,
         changed: dict[str, str], now: datetime) -> Receipt:  # fmt: skip
    """Stores the wish as a held job instead of doing it."""
    words = {"fields": dict(wish.fields), "batch": wish.batch, "max_fail": wish.max_fail}
    job_id = connection.execute(
        insert(Job).values(
            kind=f"{noun.name}.{wish.verb}", resource_id=living.id, noun=noun.name, name=name, generation=0,
            actor=wish.actor, source=wish.source, reason=wish.reason, idempotency_key=wish.idempotency_key, wish=mark,
            state=states.Job.HELD, stage=0, stages=b"[]", targets=0, held_wish=canonical(words), submitted_at=now,
            deadline_at=now + wish.deadline,
        ).returning(Job.id)
    ).scalar_one()  # fmt: skip
    detail = {"difference": changed, "reason": wish.reason, "source": wish.source}
    record(connection, [Happened(f"{noun.name}.{wish.verb}", wish.actor, now, noun.name, name, living.id,
                                 job_id=job_id, outcome="held", detail=detail)])  # fmt: skip
    supersede(connection, living.id, job_id, now)
    bells.ring(connection, bells.JOBS)
    return Receipt(noun.name, name, living.id, living.generation, int(job_id), 0, changed, held=True)


def of(connection: Connection, resource_id: int) -> int | None:
    """The held job of a resource, if it has one."""
    return connection.execute(select(Job.id).where(*_held(resource_id))).scalar()


def _held(resource_id: int) -> tuple[Any, ...]:
    return (Job.resource_id == resource_id, Job.ended_at.is_(None), Job.state == states.Job.HELD)


def supersede(connection: Connection, resource_id: int, by: int, now: datetime) -> None:
    """Ends the held job of a resource for which job `by` was asked later."""
    ended = update(Job).where(*_held(resource_id), Job.id != by).values(
        state=states.Job.SUPERSEDED, ended_at=now, held_wish=None
    ).returning(Job.id, Job.kind, Job.noun, Job.name, Job.resource_id)  # fmt: skip
    _ended(connection, connection.execute(ended).all(), states.Job.SUPERSEDED, "onehost", {"by": by}, now)


def drop(connection: Connection, noun: nouns.Noun, name: str, wish: Wish, now: datetime) -> Receipt | None:
    """What a cancel does to a held job: it is over, and nothing had been done. None: the job is not held."""
    job_id = wish.fields.get("job")
    if not isinstance(job_id, int):
        return None
    which = (Job.id == job_id, Job.noun == noun.name, Job.name == name, Job.state == states.Job.HELD)
    ended = update(Job).where(*which).values(state=states.Job.CANCELLED, ended_at=now, held_wish=None)
    rows = connection.execute(ended.returning(Job.id, Job.kind, Job.noun, Job.name, Job.resource_id)).all()
    _ended(connection, rows, states.Job.CANCELLED, wish.actor, {"reason": wish.reason}, now)
    return next((Receipt(noun.name, name, row.resource_id, 0, None, 0, {}, dropped=row.id) for row in rows), None)


def _ended(connection: Connection, rows: Any, state: str, actor: str, detail: dict[str, Any],
           now: datetime) -> None:  # fmt: skip
    for row in rows:
        about = (row.noun, row.name, row.resource_id)
        record(connection, [Happened("job.end", actor, now, *about, job_id=row.id, outcome=state,
                                     detail={"kind": row.kind, "was": "held", **detail})])  # fmt: skip
        bells.ring(connection, bells.JOBS)


#: Makes a wish real as the job that was held: part of submit.
Begin = Callable[[Wish, Row[Any]], Receipt]


def release(connection: Connection, job_id: int, actor: str, reason: str | None, begin: Begin,
            now: datetime) -> Receipt:  # fmt: skip
    """Begins a held job; its deadline counts from now. Raises NotFound, or Refused: not held, or a rule says no."""
    job = connection.execute(select(Job).where(Job.id == job_id).with_for_update()).one_or_none()
    if job is None:
        raise NotFound(f"no such job: {job_id}", hint="onehost job list --state held")
    if job.state != states.Job.HELD:
        raise Refused(f"job {job_id} is not held ({job.state})", hint=f"onehost job show {job_id}")
    record(connection, [Happened("job.release", actor, now, job.noun, job.name, job.resource_id, job_id=job_id,
                                 outcome="submitted", detail={"reason": reason})])  # fmt: skip
    words = json.loads(job.held_wish)
    wish = Wish(job.noun, job.name, job.kind.partition(".")[2], words["fields"], job.actor, job.source, job.reason,
                deadline=job.deadline_at - job.submitted_at, batch=words["batch"],
                max_fail=words["max_fail"])  # fmt: skip
    return begin(wish, job)
