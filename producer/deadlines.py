"""Ends the wait for jobs whose time is over. The resource goes on converging; only the job stops counting."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, select, update

from ..models import states
from ..models.store import Job, Resource, Target, bells
from . import actions
from .events import Happened, record

#: How often it is looked, in seconds.
LOOK_SECONDS = 10.0
#: Nodes named in the event of one expired job.
NAMED = 50


def expire(connection: Connection, now: datetime) -> int:
    """Ends every running job past its deadline, by this clock. Gives how many."""
    overdue = (Job.ended_at.is_(None), Job.state != states.Job.HELD, Job.deadline_at <= now)
    jobs = connection.execute(select(Job).where(*overdue).limit(1000)).all()
    for job in jobs:
        values = {"state": states.Job.EXPIRED, "ended_at": now}
        connection.execute(update(Job).where(Job.id == job.id).values(**values))
    missing = _missing(connection, [job.id for job in jobs])
    actions.expire(connection, [job.id for job in jobs], now)
    record(
        connection,
        [Happened("job.end", "onehost", now, job.noun, job.name, job.resource_id, job_id=job.id,
                  outcome=states.Job.EXPIRED, detail={"kind": job.kind, "missing": missing.get(job.id, [])[:NAMED]})
         for job in jobs],
    )  # fmt: skip
    if jobs:
        bells.ring(connection, bells.JOBS)
    return len(jobs)


def _missing(connection: Connection, job_ids: Sequence[int]) -> dict[int, list[str]]:
    """By job the nodes that have not said what became of it, in the order of their names."""
    found: dict[int, list[str]] = {}
    rows = connection.execute(
        select(Target.job_id, Resource.name)
        .join(Resource, Resource.id == Target.node_id)
        .where(Target.job_id.in_(job_ids), Target.outcome.is_(None))
        .order_by(Resource.name)
    )
    for row in rows:
        found.setdefault(row.job_id, []).append(row.name)
    return found
