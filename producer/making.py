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
from . import claims, limits, membership, numbers, ownership, stages
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


def fresh(connection: Connection, wishes: Sequence[Wish]) -> list[int]:
    """Which of these wishes, by their places, only make something of a name that never was. Raises Invalid."""
    places: dict[tuple[str, str], list[int]] = {}
    for at, wish in enumerate(wishes):
        noun = nouns.noun(wish.noun)
        name = noun.check_name(wish.name)
        places.setdefault((noun.name, name), []).append(at)
    # A name that is wished for twice goes its way one by one.
    once = {name: its[0] for name, its in places.items() if len(its) == 1 and _only_makes(wishes[its[0]])}
    known = _known(connection, sorted(once))
    return sorted(at for name, at in once.items() if name not in known)


def make(connection: Connection, around: Surroundings, wishes: Sequence[Wish], now: datetime) -> list[Receipt]:
    """In the caller's transaction, wishes that are all `fresh`. Raises Refused."""
    named = [(nouns.noun(wish.noun), nouns.noun(wish.noun).check_name(wish.name)) for wish in wishes]
    marks = [mark(noun, name, wish) for (noun, name), wish in zip(named, wishes, strict=True)]
    first, generation = numbers.next_ids(connection, len(wishes)), numbers.next_generation(connection, 0)
    for kind in {noun.belongs_to for noun, _ in named if noun.belongs_to}:
        theirs = (
            wish.fields.get(kind) for (noun, _), wish in zip(named, wishes, strict=True) if noun.belongs_to == kind
        )
        around.gather(kind, {name for name in theirs if isinstance(name, str)})
    with around.together(len(wishes)):
        makings = [
            Making(wish, marks[at], noun, name, first + at, generation, _spec(noun, name, wish, around, first + at))
            for at, ((noun, name), wish) in enumerate(zip(named, wishes, strict=True))
        ]
    _write(connection, makings, now)
    return _begin(connection, makings, now)


def _only_makes(wish: Wish) -> bool:
    noun = nouns.noun(wish.noun)
    verb = noun.verb(wish.verb)
    plain = (wish.if_generation, wish.idempotency_key, wish.batch, wish.max_fail) == (None, None, None, None)
    # A node that comes changes what else stands where.
    return plain and noun.name != "node" and bool(wish.verb == "apply" or (verb and verb.makes))


def _known(connection: Connection, names: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """The names that are there, or ever were: what is made again waits for what was."""
    found: set[tuple[str, str]] = set()
    for at in range(0, len(names), AT_ONCE):
        which = tuple_(Resource.noun, Resource.name).in_(names[at : at + AT_ONCE])
        found |= {(row.noun, row.name) for row in connection.execute(select(Resource.noun, Resource.name).where(which))}
    return found


def _spec(noun: nouns.Noun, name: str, wish: Wish, around: Surroundings, resource_id: int) -> nouns.Spec:
    spec = ownership.inherit(noun, name, keep_manager_fields(noun, noun.load(wish.fields), None), None, around)
    limits.check(noun, name, spec, None, around)
    noun.check(name, spec, None, around)
    spec = noun.number(spec, None, around)
    around.note(noun.name, name, spec, resource_id)
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
         "absent": False, "replaces": 0, "owner_id": ownership.owner_id(each.noun, each.spec), "created_at": now,
         "changed_at": now} for each in makings
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
