"""What a revert asks for: the spec that was wanted before a job that has ended. Secrets stay as they are now."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from ..models import nouns, states
from ..models.errors import Invalid, NotFound, Refused
from ..models.store import Job, Revision
from . import actions
from .cancel import refuse_outrun
from .surroundings import wanted_spec


def revert(connection: Connection, noun: nouns.Noun, name: str, job_id: Any, current: nouns.Spec | None) -> nouns.Spec:
    """The spec to go back to; `current` is what is wanted now, None: absent. Raises Invalid, NotFound or Refused."""
    if not isinstance(job_id, int):
        raise Invalid("a revert names the job that it takes back", {"job": "missing"})
    job = connection.execute(select(Job).where(Job.id == job_id)).one_or_none()
    if job is None or (job.noun, job.name) != (noun.name, name):
        raise NotFound(f"no such job of {noun.name} {name}: {job_id}", hint="onehost job list")
    actions.refuse(job, "reverted")
    if job.ended_at is None and job.state != states.Job.HELD:
        raise Refused(f"job {job_id} goes on", hint=f"onehost job cancel {job_id}")
    refuse_outrun(connection, job, "reverted")
    if why := _no_way_back(noun, name, job):
        raise Refused(f"job {job_id} ({job.kind}) cannot be reverted: {why}")
    before = _before(connection, job)
    if before is None:
        raise Refused(f"job {job_id} cannot be reverted: {noun.name} {name} was not there before it",
                      hint=f"remove it: onehost {noun.name} --help")  # fmt: skip
    # What is made again is given numbers again; what follows from others is worked out anew.
    theirs = noun.secret_fields | (noun.following_fields if current else noun.manager_fields)
    kept = {key: value for key, value in (current or {}).items() if key in noun.secret_fields}
    spec = noun.load({key: value for key, value in before.items() if key not in theirs} | kept)
    if current is not None and spec == current | dict.fromkeys(noun.following_fields):
        raise Refused(f"job {job_id} changed nothing but secrets, and a secret never comes back")
    return spec


def _no_way_back(noun: nouns.Noun, name: str, job: Any) -> str:
    word = job.kind.partition(".")[2]
    verb = noun.verb(word)
    if verb and verb.makes:
        return f"it made {noun.name} {name}, and the way back is to remove it"
    if job.state == states.Job.HELD:
        return "it is held, so it has changed nothing"
    return noun.no_way_back.get(word) or (noun.no_way_back.get("delete", "") if word == "remove" else "")


def _before(connection: Connection, job: Any) -> nouns.Spec | None:
    which = (Revision.resource_id == job.resource_id, Revision.generation < job.generation)
    last = select(Revision.generation).where(*which).order_by(Revision.generation.desc()).limit(1)
    generation = connection.execute(last).scalar()
    return None if generation is None else wanted_spec(connection, job.resource_id, generation)
