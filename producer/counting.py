"""Jobs are counted: each target once, when its job's generation is crossed by what a placement is done with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, or_, select

from ..models import states, wire
from ..models.canonical import canonical
from ..models.store import Job, Placement, Question, Reading, Target, together
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


def question(dialect: str, keys: Sequence[tuple[int, int]], generation: int) -> Question:
    """What asks for the jobs that acknowledgements on these placements may be about, oldest first.

    Those from the least of their generations on, and those of generations that are crossed on the way there.
    """
    given = {"generation": generation} | together.listed(dialect, {resource_id for resource_id, _ in keys})
    return _jobs(dialect), given | together.keys(dialect, ("r", "n"), keys)


@cache
def _jobs(dialect: str) -> Reading:
    given = together.keyed(dialect, ("r", "n"))
    same = and_(Placement.resource_id == given.c.r, Placement.node_id == given.c.n)
    done = select(func.min(Placement.done)).join_from(given, Placement, same).scalar_subquery()
    return (
        select(Job, stages.is_going_on().label("is_going_on"))
        .where(together.among(dialect, Job.resource_id),
               or_(Job.generation > done, Job.generation >= bindparam("generation")))
        .order_by(Job.id)
    )  # fmt: skip


def count(connection: Connection, jobs: Sequence[Any], changes: Sequence[Change], now: datetime) -> list[Any]:
    """Gives the open targets of `jobs` their outcomes, each once, and the jobs concerned."""
    of_resource: dict[int, list[Any]] = {}
    for job in jobs:
        of_resource.setdefault(job.resource_id, []).append(job)
    ended, counted = [], {}
    for change in changes:
        crossed = [job for job in of_resource.get(change.resource_id, ()) if change.was < job.generation <= change.now]
        for job in crossed:
            if job.is_going_on:
                newer = next((other for other in crossed if job.generation < other.generation), None)
                ended.append({"job_id": job.id, "node_id": change.node_id, "ended_at": now, **_end(change, newer)})
                counted[job.id] = job
    together.change(connection, Target, ended, ("job_id", "node_id"), _is_open)
    return [counted[job_id] for job_id in sorted(counted)]


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
