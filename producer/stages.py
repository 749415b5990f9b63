"""A job's way through its stages: opened one by one, judged on what its targets became, ended with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Executable, Row, and_, func, or_, select, update

from ..models import states
from ..models.store import Job, NodeStatus, Placement, Reading, Target, answers, bells, digests, pipelined, together
from . import grace
from .events import Happened, record

#: Words of a target that are counted as neither applied nor failed.
CLOSED = (
    states.Target.SUPERSEDED,
    states.Target.CANCELLED,
    states.Target.HALTED,
    states.Target.LOST,
    states.Target.EXPIRED,
)


def open_stage(
    connection: Connection, job_id: int, resource_id: int, generation: int, stage: int, now: datetime
) -> int:
    """Raises `wanted` on the placements of a stage and gives how many targets it has."""
    nodes = connection.execute(
        select(Target.node_id)
        .where(Target.job_id == job_id, Target.stage == stage, Target.outcome.is_(None))
        .order_by(Target.node_id)
    ).scalars().all()  # fmt: skip
    if not nodes:
        return 0
    want(connection, resource_id, generation, nodes)
    connection.execute(update(Target).where(Target.job_id == job_id, Target.stage == stage).values(opened_at=now))
    connection.execute(update(Job).where(Job.id == job_id).values(stage=stage))
    return len(nodes)


def want(connection: Connection, resource_id: int, generation: int, nodes: Sequence[int]) -> None:
    """Raises `wanted` of a resource on these nodes, given in the order of their ids. Wakes the relay."""
    have = {
        row.node_id: digests.shown(row.wanted, row.done, row.outcome)
        for row in connection.execute(
            select(Placement.node_id, Placement.wanted, Placement.done, Placement.outcome)
            .where(Placement.resource_id == resource_id, Placement.node_id.in_(nodes))
            .order_by(Placement.node_id)
            .with_for_update()
        )
    }
    missing = [
        {"resource_id": resource_id, "node_id": node, "wanted": generation} for node in nodes if node not in have
    ]
    together.add(connection, Placement, missing)
    before = {node: have.get(node) for node in nodes}
    digests.changed(connection, [(node, resource_id, was, (generation, int(states.Outcome.OPEN)))
                                 for node, was in before.items() if was is None or was[0] < generation])  # fmt: skip
    connection.execute(
        update(Placement)
        .where(Placement.resource_id == resource_id, Placement.node_id.in_(nodes), Placement.wanted < generation)
        .values(wanted=generation, outcome=0, reason=None, not_before_at=None)
    )
    bells.ring(connection, bells.RELAY)


def close_targets(connection: Connection, job_ids: Iterable[int], outcome: str, reason: str, now: datetime,
                  *, nodes: Iterable[int] | None = None, only_unopened: bool = True) -> None:  # fmt: skip
    """Closes targets that are still open, each with the reason."""
    ids = list(job_ids)
    if not ids:
        return
    which = [Target.job_id.in_(ids), Target.outcome.is_(None)]
    if only_unopened:
        which.append(Target.opened_at.is_(None))
    if nodes is not None:
        which.append(Target.node_id.in_(list(nodes)))
    connection.execute(update(Target).where(*which).values(outcome=outcome, reason=reason, ended_at=now))


def supersede(connection: Connection, resource_id: int, by: int, now: datetime) -> None:
    """A newer wish ends what older jobs of the resource have not opened yet, at once."""
    older = connection.execute(
        select(Job.id).join(Target, Target.job_id == Job.id).distinct()
        .where(Job.resource_id == resource_id, Job.id != by, is_going_on(), Target.outcome.is_(None))
    ).scalars().all()  # fmt: skip
    close_targets(connection, older, states.Target.SUPERSEDED, f"job {by} came first", now)
    advance(connection, older, now)


def cancel(connection: Connection, job_id: int, noun: str, name: str, resource_id: int, actor: str,
           now: datetime) -> None:  # fmt: skip
    """Part of the wish that takes a job's place: what it has not opened yet is closed as cancelled."""
    close_targets(connection, [job_id], states.Target.CANCELLED, f"cancelled by {actor}", now)
    connection.execute(update(Job).where(Job.id == job_id).values(grace_until_at=None))
    record(connection, [Happened("job.cancel", actor, now, noun, name, resource_id, job_id=job_id,
                                 outcome="submitted")])  # fmt: skip
    advance(connection, [job_id], now)


def advance(connection: Connection, job_ids: Iterable[int], now: datetime) -> None:
    """Opens the next stage of each job, halts it, or ends it, whatever its targets say. Safe to repeat."""
    ids = sorted(set(job_ids))
    if not ids:
        return
    jobs = connection.execute(_going_on(connection.dialect.name), together.listed(connection.dialect.name, ids)).all()
    go_on(connection, jobs, became(connection, [job.id for job in jobs]), now)
    bells.ring(connection, bells.JOBS)


def go_on(connection: Connection, jobs: Sequence[Any], became: Mapping[int, Sequence[Any]], now: datetime) -> None:
    """The same for jobs that go on, with what their targets have `became`."""
    counted = []
    for job in jobs:
        if _may_go_on(job, became[job.id]):
            _advance_one(connection, job, now)
        else:
            counted.append(job)
    _end_if_final(connection, counted, became, now)


def became(connection: Connection, job_ids: Sequence[int]) -> dict[int, list[Any]]:
    """By job what its targets have become: each stage, outcome and state of a node once, with how many."""
    found: dict[int, list[Any]] = {job_id: [] for job_id in job_ids}
    if found:
        dialect = connection.dialect.name
        for row in answers(connection, (_outcomes(dialect), together.listed(dialect, job_ids)))[0]:
            found[row.job_id].append(row)
    return found


@cache
def _outcomes(dialect: str) -> Reading:
    return (
        select(Target.job_id, Target.stage, Target.outcome, NodeStatus.state, func.count().label("targets"))
        .outerjoin(NodeStatus, NodeStatus.node_id == Target.node_id)
        .where(together.among(dialect, Target.job_id))
        .group_by(Target.job_id, Target.stage, Target.outcome, NodeStatus.state)
    )


@cache
def _going_on(dialect: str) -> Executable:
    return select(Job).where(together.among(dialect, Job.id), is_going_on()).order_by(Job.id)


def _may_go_on(job: Row[Any], became: Sequence[Any]) -> bool:
    """Whether a stage may be opened or no more of them: else there is only to be counted, for many jobs at once."""
    waits_for_all: list[bool] = json.loads(job.stages)
    its = [row for row in became if row.stage == job.stage]
    # A limit of failures counts those of all stages: an earlier batch may have one that comes late.
    if any(row.outcome == states.Target.FAILED for row in (its if job.max_fail is None else became)):
        return True
    waits = waits_for_all[job.stage] if job.stage < len(waits_for_all) else False
    is_open = any(row.outcome is None and (waits or row.state != states.NodeState.OFFLINE) for row in its)
    return not is_open and job.stage < len(waits_for_all) - 1


def is_going_on() -> ColumnElement[bool]:
    """Whether a job still opens stages and counts. An expired one does: only the wait for it is over."""
    return or_(and_(Job.ended_at.is_(None), Job.state != states.Job.HELD), Job.state == states.Job.EXPIRED)


def _advance_one(connection: Connection, job: Row[Any], now: datetime) -> None:
    waits_for_all: list[bool] = json.loads(job.stages)
    stage, last = job.stage, len(waits_for_all) - 1
    while stage <= last:
        targets = _targets(connection, job.id, stage)
        if why := _halts(connection, job, stage, waits_for_all, targets):
            close_targets(connection, [job.id], states.Target.HALTED, why, now)
            break
        if any(t.outcome is None and (waits_for_all[stage] or t.state != states.NodeState.OFFLINE) for t in targets):
            break
        if stage == last or (stage + 1 == last and grace.holds_back(job, now)):
            break
        stage += 1
        if stage == last:
            grace.forget_secrets(connection, job)
        # Looked at again at once: it may be empty, or of offline nodes only.
        open_stage(connection, job.id, job.resource_id, job.generation, stage, now)
    _end_if_final(connection, [job], became(connection, [job.id]), now)


def _halts(connection: Connection, job: Row[Any], stage: int, waits_for_all: Sequence[bool],
           targets: Sequence[Any]) -> str:  # fmt: skip
    """Why no later stage may be opened; empty: it may."""
    failed = next((t for t in targets if t.outcome == states.Target.FAILED), None)
    if failed and waits_for_all[stage]:
        return f"stage {stage + 1} failed: {failed.reason}"
    if job.max_fail is None:
        return ""
    # Of all stages: who was offline when its batch was passed over may fail later.
    which = (Target.job_id == job.id, Target.outcome == states.Target.FAILED)
    count, reason = connection.execute(select(func.count(), func.max(Target.reason)).where(*which)).one()
    if count <= job.max_fail:
        return ""
    return f"{count} failed, more than {job.max_fail} (--max-fail); one of them: {reason}"


def _targets(connection: Connection, job_id: int, stage: int) -> Sequence[Any]:
    """What the targets of a stage have become, each outcome and state of a node once, with a reason of one of them."""
    return connection.execute(
        select(Target.outcome, func.min(Target.reason).label("reason"), NodeStatus.state)
        .outerjoin(NodeStatus, NodeStatus.node_id == Target.node_id)
        .where(Target.job_id == job_id, Target.stage == stage)
        .group_by(Target.outcome, NodeStatus.state)
    ).all()


def _end_if_final(connection: Connection, jobs: Sequence[Row[Any]], became: Mapping[int, Sequence[Any]],
                  now: datetime) -> None:  # fmt: skip
    """Counts the targets of these jobs, and ends those that have no open one left."""
    going_on, ended, happened = [], [], []
    for job in jobs:
        count: dict[str | None, int] = {}
        for row in became[job.id]:
            count[row.outcome] = count.get(row.outcome, 0) + row.targets
        numbers = {
            "applied": count.get(states.Target.APPLIED, 0),
            "failed": count.get(states.Target.FAILED, 0),
            "closed": sum(count.get(word, 0) for word in CLOSED),
        }
        if count.get(None, 0) or job.state == states.Job.EXPIRED or _waits(job, count, now):
            going_on.append({"id": job.id, **numbers})
            continue
        state = verdict(count)
        if state == states.Job.HALTED:
            grace.forget_secrets(connection, job)  # it cannot be cancelled any more
        ended.append({"id": job.id, **numbers, "state": state, "ended_at": now, "grace_until_at": None})
        happened.append(Happened("job.end", "onehost", now, job.noun, job.name, job.resource_id, job_id=job.id,
                                 outcome=state, detail={"kind": job.kind, **numbers}))  # fmt: skip
    if not jobs:
        return
    with pipelined(connection):
        together.change(connection, Job, going_on, ("id",))
        together.change(connection, Job, ended, ("id",))
        record(connection, happened)


def _waits(job: Row[Any], count: Mapping[str | None, int], now: datetime) -> bool:
    """Whether a job whose targets are all closed is kept open by its grace time: its last stage has no nodes."""
    return grace.holds_back(job, now) and not count.get(states.Target.HALTED)


def verdict(count: dict[str | None, int]) -> states.Job:
    """How a job ended whose targets ended so often with each word."""
    for target, state in (
        (states.Target.CANCELLED, states.Job.CANCELLED),
        (states.Target.SUPERSEDED, states.Job.SUPERSEDED),
        (states.Target.HALTED, states.Job.HALTED),
    ):
        if count.get(target):
            return state
    others = count.get(states.Target.FAILED, 0) + count.get(states.Target.LOST, 0)
    if not others:
        return states.Job.APPLIED
    return states.Job.PARTIAL if count.get(states.Target.APPLIED) else states.Job.FAILED


def on_node_change(connection: Connection, node_id: int, now: datetime) -> None:
    """Judges the stages of every running job that has this node as a target: it went offline, or came back."""
    jobs = connection.execute(
        select(Job.id)
        .join(Target, and_(Target.job_id == Job.id, Target.node_id == node_id))
        .where(is_going_on(), Target.outcome.is_(None))
    ).scalars().all()  # fmt: skip
    advance(connection, jobs, now)
