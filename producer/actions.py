"""Actions: done once on each node, soon or not at all. A job whose letters carry no state and are never sent again.

Such a job is of generation 0: no placement is raised by it, no wish supersedes it. A node acknowledges its number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from ..broker_config import routing
from ..broker_config.letters import Letter
from ..models import nouns, states, wire
from ..models.canonical import canonical
from ..models.errors import NotFound, Refused
from ..models.store import Action, Job, Placement, Resource, Target, bells
from . import membership, numbers, stages
from .events import Happened, record
from .wish import Receipt, Wish


def submit(connection: Connection, noun: nouns.Noun, name: str, action: nouns.Action, wish: Wish, mark: str,
           now: datetime) -> Receipt:  # fmt: skip
    """Makes the job of an action and its letters. Raises NotFound, Refused or Invalid."""
    given = action.load(wish.fields)
    which = (Resource.noun == noun.name, Resource.name == name, Resource.absent.is_(False))
    resource = connection.execute(select(Resource.id, Resource.generation).where(*which)).one_or_none()
    if resource is None:
        raise NotFound(f"no such {noun.name}: {name}", hint=f"onehost {noun.name} list")
    targets = _targets(connection, noun, name, action, resource.id)
    if not targets:
        raise Refused(f"{noun.name} {name} is on no node where that can be done")
    kind, expires_at = action.kind or f"{noun.name}.{action.name}", now + timedelta(seconds=action.deadline_seconds)
    job_id = connection.execute(
        insert(Job).values(
            kind=kind, resource_id=resource.id, noun=noun.name, name=name, generation=0, actor=wish.actor,
            source=wish.source, reason=wish.reason, idempotency_key=wish.idempotency_key, wish=mark,
            state=states.Job.RUNNING, stage=0, stages=b"[false]", targets=len(targets), submitted_at=now,
            deadline_at=expires_at,
        ).returning(Job.id)
    ).scalar_one()  # fmt: skip
    connection.execute(
        insert(Target), [{"job_id": job_id, "node_id": node.id, "stage": 0, "opened_at": now} for node in targets]
    )
    about = {"job": job_id, "incarnation": numbers.incarnation(connection), "noun": noun.name, "id": resource.id,
             "name": name, "verb": action.name, "given": given}  # fmt: skip
    rows = [{"node_id": node.id, "form": "action", "body": canonical(about | {"node": node.name}), "created_at": now,
             "job_id": job_id, "expires_at": expires_at} for node in targets]  # fmt: skip
    connection.execute(insert(Action), rows)
    detail = {"reason": wish.reason, "source": wish.source} | given
    record(connection, [Happened(kind, wish.actor, now, noun.name, name, resource.id, job_id=job_id,
                                 outcome="submitted", detail=detail)])  # fmt: skip
    bells.ring(connection, bells.RELAY)
    return Receipt(noun.name, name, resource.id, resource.generation, int(job_id), len(targets), {})


def _targets(connection: Connection, noun: nouns.Noun, name: str, action: nouns.Action,
             resource_id: int) -> Sequence[membership.Node]:  # fmt: skip
    placed = select(Placement.node_id).where(Placement.resource_id == resource_id, Placement.wanted > 0)
    holders = set(connection.execute(placed).scalars())
    own = noun.extra_nodes(name)
    return [
        node
        for node_id, node in sorted(membership.nodes(connection).items())
        if node_id in holders
        and (not action.roles or action.roles & node.roles)
        and (not action.on_itself or node.name in own)
    ]


def letter(row: Any, now: datetime) -> Letter | None:
    """The letter of a stored action with the time that is left for it; None: it is too late."""
    left = (row.expires_at - now).total_seconds()
    if left <= 0:
        return None
    about = json.loads(row.body)
    body = wire.encode(form="action", expires_seconds=left, **about)
    return Letter(f"letter.{row.id}", routing.job_key(about["noun"], about["node"], about["verb"]), body,
                  correlation_id=str(row.job_id), type=f"{about['noun']}.{about['verb']}",
                  expiration_ms=max(1, int(left * 1000)))  # fmt: skip


def came_back(connection: Connection, job_id: int, node_id: int, why: str, now: datetime) -> None:
    """The broker could not take it for this node: it is not tried again."""
    _close(connection, job_id, node_id, {"outcome": states.Target.FAILED, "reason": f"not sent: {why}"}, now)
    stages.advance(connection, [job_id], now)


def acknowledged(connection: Connection, acks: Iterable[tuple[membership.Node, wire.Letter]], now: datetime) -> None:
    """Nodes have said what became of actions. One of an earlier life of the store is an event, and no more."""
    life = numbers.incarnation(connection)
    for node, ack in acks:
        which = (Target.job_id == ack["action"], Target.node_id == node.id, Job.resource_id == ack["id"])
        target = select(Target.job_id).join(Job, Job.id == Target.job_id).where(*which, Job.generation == 0)
        is_ours = ack["incarnation"] == life and connection.execute(target).first() is not None
        detail = {"reason": ack["reason"][: wire.MAX_TEXT], "difference": ack["difference"], "seconds": ack["seconds"],
                  "action": ack["action"], "at": datetime.fromtimestamp(ack["at"], UTC).isoformat()}  # fmt: skip
        record(connection, [Happened(
            "acknowledgement", routing.node_user(node.name), now, ack["noun"], ack["name"], ack["id"], node.name,
            node.id, job_id=ack["action"] if is_ours else None, outcome=ack["outcome"] if is_ours else "strange",
            epoch=ack["epoch"], number=ack["number"], detail=detail,
        )])  # fmt: skip
        if is_ours and ack["outcome"] in ("applied", "failed"):
            values = {"outcome": states.Target(ack["outcome"]), "reason": ack["reason"][: wire.MAX_TEXT] or None,
                      "difference": canonical(ack["difference"]), "seconds": canonical(ack["seconds"])}  # fmt: skip
            _close(connection, ack["action"], node.id, values, now)
            stages.advance(connection, [ack["action"]], now)


def _close(connection: Connection, job_id: int, node_id: int, values: dict[str, Any], now: datetime) -> None:
    which = (Target.job_id == job_id, Target.node_id == node_id, Target.outcome.is_(None))
    connection.execute(update(Target).where(*which).values(ended_at=now, **values))


def expire(connection: Connection, job_ids: Iterable[int], now: datetime) -> None:
    """Part of the end of a deadline: what was not done by now is not to be done, and its nodes are told by name."""
    acting = connection.execute(select(Job.id).where(Job.id.in_(list(job_ids)), Job.generation == 0)).scalars().all()
    stages.close_targets(connection, acting, states.Target.EXPIRED, "no answer in time", now, only_unopened=False)
    connection.execute(delete(Action).where(Action.job_id.in_(acting)))
    stages.advance(connection, acting, now)  # counts them


def refuse(job: Any, done: str) -> None:
    """Raises Refused for a job that is an action: there is no state to go back to or to want again."""
    if job.kind in nouns.noun(job.noun).acting:
        action = nouns.noun(job.noun).action(job.kind.partition(".")[2])
        again = f"onehost {job.noun} {action.name} {job.name}" if action and not action.kind else ""
        raise Refused(f"job {job.id} is an action and cannot be {done}", hint=again)
