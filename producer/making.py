"""Resources that never were are made together: however many wishes, about as many statements as one takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, tuple_

from ..models import nouns, states
from ..models.errors import Refused
from ..models.store import Job, Placement, Resource, Revision, Target, bells, digests, together
from . import claims, membership, numbers, stages
from .difference import difference
from .events import Happened, record
from .payload import rendered
from .surroundings import Surroundings
from .wish import Receipt, Wish, mark

#: Names looked up in one statement.
AT_ONCE = 1000


@dataclass(frozen=True)
class Making:
    """A wish that makes a resource, on its way."""

    wish: Wish
    mark: str
    noun: nouns.Noun
    name: str
    resource_id: int
    generation: int
    spec: nouns.Spec


def make(connection: Connection, around: Surroundings, wishes: Sequence[Wish], now: datetime) -> list[Receipt] | None:
    """In the caller's transaction. Gives None, with nothing done, where one of them is more than that.

    Raises Refused.
    """
    named = [(nouns.noun(wish.noun), nouns.noun(wish.noun).check_name(wish.name)) for wish in wishes]
    if not all(_only_makes(noun, wish) for (noun, _), wish in zip(named, wishes, strict=True)):
        return None
    names = {(noun.name, name) for noun, name in named}
    if not wishes or len(names) < len(wishes) or _any_known(connection, sorted(names)):
        return None
    marks = [mark(noun, name, wish) for (noun, name), wish in zip(named, wishes, strict=True)]
    first, generation = numbers.next_ids(connection, len(wishes)), numbers.next_generation(connection, 0)
    with around.together(len(wishes)):
        makings = [
            Making(wish, marks[at], noun, name, first + at, generation, _spec(noun, name, wish, around))
            for at, ((noun, name), wish) in enumerate(zip(named, wishes, strict=True))
        ]
    _write(connection, makings, now)
    return _begin(connection, makings, now)


def _only_makes(noun: nouns.Noun, wish: Wish) -> bool:
    verb = noun.verb(wish.verb)
    plain = (wish.if_generation, wish.idempotency_key, wish.batch, wish.max_fail) == (None, None, None, None)
    # A node that comes changes what else stands where.
    return plain and noun.name != "node" and bool(wish.verb == "apply" or (verb and verb.makes))


def _any_known(connection: Connection, names: Sequence[tuple[str, str]]) -> bool:
    """Whether a name is there, or ever was: what is made again waits for what was."""
    for at in range(0, len(names), AT_ONCE):
        which = tuple_(Resource.noun, Resource.name).in_(names[at : at + AT_ONCE])
        if connection.execute(select(Resource.id).where(which).limit(1)).first():
            return True
    return False


def _spec(noun: nouns.Noun, name: str, wish: Wish, around: Surroundings) -> nouns.Spec:
    spec = noun.load(wish.fields)
    noun.check(name, spec, None, around)
    spec = noun.number(keep_manager_fields(noun, spec, None), None, around)
    around.note(noun.name, name, spec)
    return spec


def keep_manager_fields(noun: nouns.Noun, spec: nouns.Spec, before: nouns.Spec | None) -> nouns.Spec:
    """The spec with what the manager has given before. Raises Refused where it asks for something else."""
    for key in noun.manager_fields:
        own = (before or {}).get(key)
        if spec.get(key) not in (None, own):
            raise Refused(f"{noun.name}: {key} is given by the manager, {spec[key]!r} cannot be asked for")
        spec = spec | {key: own}
    return spec


def _write(connection: Connection, makings: Sequence[Making], now: datetime) -> None:
    together.add(connection, Resource, [
        {"id": each.resource_id, "noun": each.noun.name, "name": each.name, "generation": each.generation,
         "absent": False, "replaces": 0, "created_at": now, "changed_at": now} for each in makings
    ])  # fmt: skip
    claims.take_new(connection, [(each.resource_id, f"{each.noun.name} {each.name}",
                                  each.noun.claims(each.name, each.spec)) for each in makings])  # fmt: skip
    revisions = []
    for each in makings:
        payload, secrets = rendered(each.noun, each.spec)
        revisions.append({"resource_id": each.resource_id, "generation": each.generation, "payload": payload,
                          "secrets": secrets, "created_at": now})  # fmt: skip
    together.add(connection, Revision, revisions)


def _begin(connection: Connection, makings: Sequence[Making], now: datetime) -> list[Receipt]:
    """Their jobs, the first stage opened."""
    alive = membership.nodes(connection)
    members = {each.resource_id: membership.belonging(each.noun, each.name, alive) for each in makings}
    jobs = _jobs(connection, makings, members, now)
    stage_of = [(each, node, stage) for each in makings
                for node, stage in sorted(members[each.resource_id].stage_of.items())]  # fmt: skip
    together.add(connection, Target, [
        {"job_id": jobs[each.resource_id], "node_id": node, "stage": stage, "opened_at": None if stage else now}
        for each, node, stage in stage_of
    ])  # fmt: skip
    opened = [(each, node) for each, node, stage in stage_of if stage == 0]
    together.add(connection, Placement, [
        {"resource_id": each.resource_id, "node_id": node, "wanted": each.generation} for each, node in opened
    ])  # fmt: skip
    digests.changed(connection, [(node, each.resource_id, None, (each.generation, int(states.Outcome.OPEN)))
                                 for each, node in opened])  # fmt: skip
    bells.ring(connection, bells.RELAY, bells.JOBS)
    receipts = _receipts(connection, makings, members, jobs, now)
    waiting = {each.resource_id for each, _ in opened if members[each.resource_id].waits_for_all[0]}
    stages.advance(connection, [job for resource_id, job in jobs.items() if resource_id not in waiting], now)
    return receipts


def _jobs(connection: Connection, makings: Sequence[Making], members: dict[int, membership.Members],
          now: datetime) -> dict[int, int]:  # fmt: skip
    """The job of each resource."""
    rows: list[dict[str, Any]] = [
        {"kind": f"{each.noun.name}.{each.wish.verb}", "resource_id": each.resource_id, "noun": each.noun.name,
         "name": each.name, "generation": each.generation, "actor": each.wish.actor, "source": each.wish.source,
         "reason": each.wish.reason, "wish": each.mark, "state": states.Job.RUNNING, "stage": 0,
         "stages": json.dumps(members[each.resource_id].waits_for_all).encode(),
         "targets": len(members[each.resource_id].stage_of), "applied": 0, "failed": 0, "closed": 0,
         "submitted_at": now, "deadline_at": now + each.wish.deadline} for each in makings
    ]  # fmt: skip
    return together.add_numbered(connection, Job, rows, "resource_id")


def _receipts(connection: Connection, makings: Sequence[Making], members: dict[int, membership.Members],
              jobs: dict[int, int], now: datetime) -> list[Receipt]:  # fmt: skip
    receipts = [
        Receipt(each.noun.name, each.name, each.resource_id, each.generation, jobs[each.resource_id],
                len(members[each.resource_id].stage_of), difference(each.noun, None, each.spec)) for each in makings
    ]  # fmt: skip
    record(connection, [
        Happened(f"{each.noun.name}.{each.wish.verb}", each.wish.actor, now, each.noun.name, each.name,
                 each.resource_id, job_id=receipt.job_id, outcome="submitted",
                 detail={"difference": receipt.difference, "generation": each.generation, "reason": each.wish.reason,
                         "source": each.wish.source}) for each, receipt in zip(makings, receipts, strict=True)
    ])  # fmt: skip
    return receipts
