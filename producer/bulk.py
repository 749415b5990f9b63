"""Another try, an end or a release for many jobs at once: each with a receipt or a refusal of its own.

A chunk of jobs is one transaction, in which what is refused is taken back by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Engine, exists, select
from sqlalchemy.orm import aliased

from ..models import states
from ..models.errors import Refused
from ..models.moment import now as time_now
from ..models.settings import Manager
from ..models.store import Job, Resource, Target, part, retried, writing
from . import query, submit
from .surroundings import Surroundings
from .wish import Receipt, Wish

#: Jobs of one transaction: others wait for it.
CHUNK = 50
Verb = Literal["retry", "cancel", "release"]


@dataclass(frozen=True)
class Where:
    """Which jobs are meant. Everything that is set must match."""

    state: str | None = None
    #: May end in `.*`.
    kind: str | None = None
    noun: str | None = None
    name: str | None = None
    actor: str | None = None
    #: Only jobs that this node has not applied.
    node: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Done:
    """What became of one job of many: a receipt, or why it was refused."""

    job_id: int
    receipt: Receipt | None = None
    refused: Refused | None = None


def matching(connection: Connection, verb: Verb, which: Where) -> list[int]:
    """The jobs that are meant, oldest first. What a newer job has overtaken is passed over: that one counts.

    Retried is what has ended badly, cancelled what goes on, released what is held.
    """
    statement: Any = select(Job.id).where(_can_be(verb))
    for name in ("state", "noun", "name", "actor"):
        if getattr(which, name) is not None:
            statement = statement.where(getattr(Job, name) == getattr(which, name))
    statement = query.of_kind(statement, Job.kind, which.kind)
    if which.since is not None:
        statement = statement.where(Job.submitted_at >= which.since)
    if which.until is not None:
        statement = statement.where(Job.submitted_at < which.until)
    if which.node is not None:
        open_there = (Target.job_id == Job.id, Target.outcome.is_distinct_from(states.Target.APPLIED))
        node = select(Resource.id).where(Resource.noun == "node", Resource.name == which.node)
        statement = statement.where(exists().where(*open_there, Target.node_id.in_(node)))
    return list(connection.execute(statement.order_by(Job.id)).scalars())


def _can_be(verb: Verb) -> ColumnElement[bool]:
    newer = aliased(Job)
    is_newest = ~exists().where(newer.resource_id == Job.resource_id, newer.id > Job.id)
    if verb == "release":
        return Job.ended_at.is_(None) & (Job.state == states.Job.HELD)
    if verb == "cancel":
        return Job.ended_at.is_(None) & is_newest
    badly = (states.Job.FAILED, states.Job.PARTIAL, states.Job.HALTED, states.Job.EXPIRED)
    return Job.state.in_(badly) & is_newest


def each(engine: Engine, settings: Manager, verb: Verb, job_ids: Sequence[int], actor: str, source: str,
         reason: str | None) -> Iterator[Done]:  # fmt: skip
    """Does it to each of these jobs, chunk by chunk; gives what became of each once its chunk is committed."""

    def chunk_done(chunk: Sequence[int]) -> list[Done]:
        with writing(engine) as connection:
            return [_one(connection, settings, verb, job_id, actor, source, reason) for job_id in chunk]

    for at in range(0, len(job_ids), CHUNK):
        chunk = job_ids[at : at + CHUNK]
        yield from retried(lambda chunk=chunk: chunk_done(chunk))  # type: ignore[misc]


def _one(connection: Connection, settings: Manager, verb: Verb, job_id: int, actor: str, source: str,
         reason: str | None) -> Done:  # fmt: skip
    try:
        with part(connection):
            if verb == "release":
                return Done(job_id, submit.release(connection, settings, job_id, actor, reason))
            job = query.job_row(connection, job_id)
            wish = Wish(job.noun, job.name, verb, {"job": job_id}, actor, source, reason)
            return Done(job_id, submit.submit_one(connection, Surroundings(connection, settings), wish, time_now()))
    except Refused as error:
        return Done(job_id, refused=error)
