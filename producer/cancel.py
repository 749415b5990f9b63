"""What a cancel asks for: the spec that was wanted before the job. It is an ordinary wish, with its own stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from ..models import nouns, states
from ..models.errors import Invalid, NotFound, Refused
from ..models.store import Job, Resource, Revision
from . import actions, grace
from .surroundings import wanted_spec


@dataclass(frozen=True)
class Cancel:
    """A running job that is to be ended, its resource (it may be absent) and the spec to go back to."""

    job_id: int
    resource: Row[Any]
    spec: nouns.Spec | None


def cancel(connection: Connection, noun: nouns.Noun, name: str, job_id: Any) -> Cancel:
    """Looks up what a cancel of this job means. Raises Invalid, NotFound or Refused."""
    if not isinstance(job_id, int):
        raise Invalid("a cancel names the job it ends", {"job": "missing"})
    job = connection.execute(select(Job).where(Job.id == job_id)).one_or_none()
    if job is None or (job.noun, job.name) != (noun.name, name):
        raise NotFound(f"no such job of {noun.name} {name}: {job_id}", hint="onehost job list")
    actions.refuse(job, "cancelled")
    locked = select(Resource).where(Resource.id == job.resource_id).with_for_update(key_share=True)
    resource = connection.execute(locked).one()
    refuse_outrun(connection, job, "cancelled")
    ended = connection.execute(select(Job.ended_at, Job.state).where(Job.id == job_id)).one()
    if ended.ended_at is not None:
        raise Refused(f"job {job_id} has ended ({ended.state}); there is nothing to cancel")
    if noun.name == "node" and resource.absent:
        raise Refused(f"node {name} has left the cluster; that cannot be cancelled", hint="onehost node add")
    before = connection.execute(
        select(Revision.generation)
        .where(Revision.resource_id == resource.id, Revision.generation < job.generation)
        .order_by(Revision.generation.desc()).limit(1)
    ).scalar()  # fmt: skip
    spec = wanted_spec(connection, resource.id, before) if before else None
    current = wanted_spec(connection, resource.id, resource.generation) or {}
    given = noun.manager_fields - noun.following_fields - noun.secret_fields
    if spec and current and any(spec.get(key) not in (None, current.get(key)) for key in given):
        raise Refused(f"job {job_id} cannot be cancelled: what it replaced is kept nowhere",
                      hint=f"onehost {noun.name} show {name}")  # fmt: skip
    kept = {key: value for key, value in current.items() if key in noun.secret_fields}
    if spec is not None:
        spec = noun.load(kept | {key: value for key, value in spec.items() if key not in noun.following_fields})
    return Cancel(job_id, resource, spec)


def refuse_retry(connection: Connection, noun: nouns.Noun, name: str, fields: Mapping[str, Any]) -> None:
    """Raises Refused where another try makes no sense; NotFound if the job it names is none of this resource."""
    if running := grace.running(connection, noun.name, name):
        raise Refused(f"job {running} waits out its grace time; it needs no other try",
                      hint=f"onehost job cancel {running}")  # fmt: skip
    if "job" not in fields:
        return
    job_id = fields["job"]
    if not isinstance(job_id, int):
        raise Invalid("a retry names the job that is tried again, or none", {"job": "no number"})
    job = connection.execute(select(Job).where(Job.id == job_id)).one_or_none()
    if job is None or (job.noun, job.name) != (noun.name, name):
        raise NotFound(f"no such job of {noun.name} {name}: {job_id}", hint="onehost job list")
    actions.refuse(job, "retried")
    if job.state == states.Job.HELD:
        raise Refused(f"job {job_id} is held; it has not been tried yet", hint=f"onehost job release {job_id}")
    refuse_outrun(connection, job, "retried")


def refuse_outrun(connection: Connection, job: Any, done: str) -> None:
    """Raises Refused if anything was wanted of the job's resource, or of its name, after it."""
    acting = nouns.noun(job.noun).acting
    which = (Job.noun == job.noun, Job.name == job.name, Job.id > job.id, Job.kind.not_in(acting))
    newer = connection.execute(select(Job.id).where(*which).order_by(Job.id).limit(1)).scalar()
    if newer:
        raise Refused(f"job {job.id} cannot be {done}: job {newer} came after it", hint=f"onehost job show {newer}")
