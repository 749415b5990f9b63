"""Grace time: the last stage of a removal, which destroys, is opened late. Until then a cancel undoes all of it.

The secrets of the last living revision are kept as long, and forgotten when that stage opens.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, select, update

from ..models import nouns
from ..models.store import Job, Revision

#: Jobs whose grace time is ended in one transaction; the rest follows at once.
AT_ONCE = 200


def until(noun: nouns.Noun, spec: nouns.Spec | None, before: nouns.Spec | None, seconds: float,
          now: datetime) -> datetime | None:  # fmt: skip
    """When the last stage of this change may be opened; None: as soon as its turn comes."""
    if spec is not None or before is None or seconds <= 0 or not noun.has_grace():
        return None
    return now + timedelta(seconds=seconds)


def holds_back(job: Row[Any], now: datetime) -> bool:
    """Whether the last stage of a job is not to be opened yet."""
    return job.grace_until_at is not None and job.grace_until_at > now


def forget_secrets(connection: Connection, job: Row[Any]) -> None:
    """Part of opening a job's last stage: the secrets that its removal has left are of no use any more."""
    noun = nouns.noun(job.noun)
    verb = noun.verb(job.kind.partition(".")[2])
    if noun.secret_fields and not (verb and verb.makes):
        which = (Revision.resource_id == job.resource_id, Revision.generation < job.generation)
        connection.execute(update(Revision).where(*which, Revision.secrets.is_not(None)).values(secrets=None))


def running(connection: Connection, noun: str, name: str) -> int | None:
    """The job of this name whose grace time runs, if there is one."""
    which = (Job.noun == noun, Job.name == name, Job.ended_at.is_(None), Job.grace_until_at.is_not(None))
    return connection.execute(select(Job.id).where(*which)).scalar()


def next_due(connection: Connection) -> datetime | None:
    """When the first grace time ends; None: none is running."""
    running = select(Job.grace_until_at).where(Job.grace_until_at.is_not(None))
    return connection.execute(running.order_by(Job.grace_until_at).limit(1)).scalar()


def end_due(connection: Connection, now: datetime) -> list[int]:
    """Ends grace times that are over. Gives the jobs, whose last stage may open now."""
    due = select(Job.id).where(Job.grace_until_at.is_not(None), Job.grace_until_at <= now)
    return _end(connection, list(connection.execute(due.order_by(Job.grace_until_at).limit(AT_ONCE)).scalars()))


def end_of(connection: Connection, resource_id: int) -> list[int]:
    """Ends the grace time of a resource whose name is made again: there is no way back. Gives its job."""
    running = (Job.resource_id == resource_id, Job.ended_at.is_(None), Job.grace_until_at.is_not(None))
    return _end(connection, list(connection.execute(select(Job.id).where(*running)).scalars()))


def _end(connection: Connection, jobs: list[int]) -> list[int]:
    if jobs:
        connection.execute(update(Job).where(Job.id.in_(jobs)).values(grace_until_at=None))
    return jobs
