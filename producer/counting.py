"""Jobs are counted: each target once, when its job's generation is crossed by what a placement is done with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from typing import Any

from sqlalchemy import ColumnElement, Connection, Executable, bindparam, select

from ..models import states, wire
from ..models.canonical import canonical
from ..models.store import Job, Target, together
from . import stages


@dataclass(frozen=True)
class Change:
    """A placement that an acknowledgement has moved: it was done up to `was`, now up to `now`."""

    resource_id: int
    node_id: int
    was: int
    now: int
    ack: wire.Letter

    @cached_property
    def difference(self) -> bytes:
        """What the node changed, as it is kept."""
        return canonical(shortened(self.ack["difference"]))


def jobs(connection: Connection, acknowledged: Sequence[tuple[int, int, Any]]) -> Sequence[Any]:
    """The jobs that these (resource, generation, placement or None) are about, by the store's own word, oldest first.

    Those of generations that are crossed on the way are among them.
    """
    lowest = min(min(generation, placed.done + 1) if placed else generation for _, generation, placed in acknowledged)
    dialect = connection.dialect.name
    which = together.listed(dialect, {resource_id for resource_id, *_ in acknowledged})
    return connection.execute(_jobs(dialect), which | {"lowest": lowest}).all()


@cache
def _jobs(dialect: str) -> Executable:
    return (
        select(Job.id, Job.kind, Job.resource_id, Job.generation, stages.is_going_on().label("is_going_on"))
        .where(together.among(dialect, Job.resource_id), Job.generation >= bindparam("lowest"))
        .order_by(Job.id)
    )


def count(connection: Connection, jobs: Sequence[Any], changes: Sequence[Change], now: datetime) -> set[int]:
    """Gives the open targets of `jobs` their outcomes, each once, and the ids of the jobs concerned."""
    of_resource: dict[int, list[Any]] = {}
    for job in jobs:
        of_resource.setdefault(job.resource_id, []).append(job)
    ended = []
    for change in changes:
        crossed = [job for job in of_resource.get(change.resource_id, ()) if change.was < job.generation <= change.now]
        for job in crossed:
            if job.is_going_on:
                newer = next((other for other in crossed if job.generation < other.generation), None)
                ended.append({"job_id": job.id, "node_id": change.node_id, "ended_at": now, **_end(change, newer)})
    together.change(connection, Target, ended, ("job_id", "node_id"), _is_open)
    return {each["job_id"] for each in ended}


def _is_open(new: Mapping[str, Any]) -> ColumnElement[bool]:
    return Target.outcome.is_(None)


def _end(change: Change, newer: Any) -> dict[str, Any]:
    """A generation crossed by that of a `newer` job was never seen to apply; else the job takes the outcome."""
    ack = change.ack
    if newer:
        is_cancel = newer.kind.endswith(".cancel")
        return {"outcome": states.Target.CANCELLED if is_cancel else states.Target.SUPERSEDED,
                "reason": f"job {newer.id} came first", "difference": None, "seconds": None}  # fmt: skip
    return {"outcome": states.Target(ack["outcome"]), "reason": ack["reason"][: wire.MAX_TEXT] or None,
            "difference": change.difference, "seconds": canonical(ack["seconds"])}  # fmt: skip


def shortened(difference: Mapping[str, str]) -> dict[str, str]:
    """A difference as it is kept."""
    return {key: text[: wire.MAX_WORD * 5] for key, text in difference.items()}
