"""Ends the wait for jobs whose time is over. The resource goes on converging; only the job stops counting."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select, update

from ..models import states
from ..models.store import Job, bells
from .events import Happened, record

#: How often it is looked, in seconds.
LOOK_SECONDS = 10.0


def expire(connection: Connection, now: datetime) -> int:
    """Ends every running job past its deadline, by this clock. Gives how many."""
    jobs = connection.execute(select(Job).where(Job.ended_at.is_(None), Job.deadline_at <= now).limit(1000)).all()
    for job in jobs:
        values = {"state": states.Job.EXPIRED, "ended_at": now}
        connection.execute(update(Job).where(Job.id == job.id).values(**values))
    record(
        connection,
        [Happened("job.end", "onehost", now, job.noun, job.name, job.resource_id, job_id=job.id,
                  outcome=states.Job.EXPIRED, detail={"kind": job.kind}) for job in jobs],
    )  # fmt: skip
    if jobs:
        bells.ring(connection, bells.JOBS)
    return len(jobs)
