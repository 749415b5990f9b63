"""Resources that are there are changed together: however many wishes, fewer statements than one takes by itself.

Only what is plain: a removal, a hold, a claim that changes or a name that was made again goes its way one by one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Update, and_, bindparam, or_, select, tuple_, update

from ..models import nouns, states
from ..models.store import (
    Claim,
    Job,
    Placement,
    Reading,
    Resource,
    Revision,
    Target,
    answers,
    bells,
    digests,
    pipelined,
    together,
)
from . import limits, membership, numbers, ownership, stages
from .difference import difference
from .events import Happened, record
from .making import keep_manager_fields
from .payload import rendered
from .surroundings import Surroundings
from .wish import Receipt, Wish, mark

#: Wishes changed together at most: so many names are looked up in one statement.
AT_ONCE = 1000


@dataclass
class Changing:
    """A wish that changes a resource, on its way."""

    wish: Wish
    mark: str
    noun: nouns.Noun
    name: str
    resource: Row[Any]
    before: nouns.Spec
    spec: nouns.Spec = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)
    generation: int = 0
    members: membership.Members = field(default_factory=lambda: membership.Members({}, []))
    placed: dict[int, Any] = field(default_factory=dict)

    @property
    def first(self) -> list[int]:
        """The nodes of the first stage."""
        return sorted(node for node, stage in self.members.stage_of.items() if stage == 0)


def change(connection: Connection, around: Surroundings, wishes: Sequence[Wish],
           now: datetime) -> list[Receipt] | None:  # fmt: skip
    """In the caller's transaction. Gives None, with nothing written, where one of them is more than that.

    Raises Refused.
    """
    named = [(nouns.noun(wish.noun), nouns.noun(wish.noun).check_name(wish.name)) for wish in wishes]
    if not wishes or not all(map(_only_sets, (noun for noun, _ in named), wishes)):
        return None
    living = _living(connection, {(noun.name, name) for noun, name in named})
    # A name that was made again waits for what was; one that is wished for twice is changed twice.
    if len(living) < len(wishes) or any(resource.replaces for resource in living.values()):
        return None
    wanted = [_changing(noun, name, wish, living[noun.name, name])
              for (noun, name), wish in zip(named, wishes, strict=True)]  # fmt: skip
    if not all(_specify(each, around) for each in wanted):
        around.forget()
        return None
    changings = [each for each in wanted if each.changed]
    jobs: dict[int, int] = {}
    if changings:
        ids = sorted(each.resource.id for each in changings)
        running, claims, placed, alive, life = _around(connection, ids)
        if not _keep_claims(changings, claims) or any(job.state == states.Job.HELD for job in running):
            around.forget()
            return None
        _place(changings, placed, membership.as_nodes(alive), numbers.as_base(life))
        jobs = _begin(connection, changings, {job.resource_id for job in running}, now)
    return [_receipt(each, jobs) if each.changed else _unchanged(each) for each in wanted]


def _only_sets(noun: nouns.Noun, wish: Wish) -> bool:
    verb = noun.verb(wish.verb)
    plain = (wish.if_generation, wish.idempotency_key, wish.batch, wish.max_fail) == (None, None, None, None)
    # A node, and what others follow, changes more than itself.
    plain = plain and noun.name != "node" and not nouns.followers(noun.name)
    return plain and verb is not None and not verb.makes and not verb.removes


def _living(connection: Connection, names: set[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    """Locked in the order of ids, as all do, with what is wanted of them."""
    rows = connection.execute(_LIVING, {"names": sorted(names)})
    return {(row.noun, row.name): row for row in rows}


_LIVING = (
    select(Resource.id, Resource.noun, Resource.name, Resource.generation, Resource.replaces, Revision.payload,
           Revision.secrets)
    .join(Revision, and_(Revision.resource_id == Resource.id, Revision.generation == Resource.generation))
    .where(tuple_(Resource.noun, Resource.name).in_(bindparam("names", expanding=True)), Resource.absent.is_(False))
    .order_by(Resource.id)
    .with_for_update(key_share=True, of=Resource)
)  # fmt: skip


def _changing(noun: nouns.Noun, name: str, wish: Wish, resource: Row[Any]) -> Changing:
    before = json.loads(resource.payload) | json.loads(resource.secrets or b"{}")
    return Changing(wish, mark(noun, name, wish), noun, name, resource, before)


def _specify(each: Changing, around: Surroundings) -> bool:
    """Works out what is wanted from now on; gives whether that is all: no number to be given, nothing destroyed."""
    noun, before = each.noun, each.before
    if any(before.get(key) is None for key in noun.manager_fields - noun.following_fields):
        return False
    verb = noun.verb(each.wish.verb)
    spec = noun.load(before | dict(verb.fixed or {} if verb else {}) | dict(each.wish.fields))
    spec = ownership.inherit(noun, each.name, keep_manager_fields(noun, spec, before), before, around)
    if each.wish.parent is None:
        limits.check(noun, each.name, spec, before, around)
    noun.check(each.name, spec, before, around)
    each.spec = noun.number(spec, before, around)
    each.changed = difference(noun, before, each.spec)
    around.note(noun.name, each.name, each.spec, each.resource.id)
    return not noun.destroys(each.spec, before)


def _around(connection: Connection, ids: Sequence[int]) -> list[Sequence[Any]]:
    """In one trip: jobs held or going on for these resources, their claims, their placements, nodes, the store's life.

    The placements are locked, and what is read after them is as it is then.
    """
    dialect = connection.dialect.name
    these = together.listed(dialect, ids)
    return answers(connection, (_going_on(dialect), these), (_claims(dialect), these), (_locked(dialect), these),
                   (membership.ALIVE, {}), (numbers.INCARNATION, {}))  # fmt: skip


@cache
def _going_on(dialect: str) -> Reading:
    going_on = or_(Job.ended_at.is_(None), Job.state == states.Job.EXPIRED)
    return select(Job.resource_id, Job.state).where(together.among(dialect, Job.resource_id), going_on)


def _keep_claims(changings: Sequence[Changing], claims: Sequence[Any]) -> bool:
    """Whether each of them claims what it holds already, no more and no less."""
    held: dict[int, set[tuple[str, str]]] = {each.resource.id: set() for each in changings}
    for row in claims:
        held[row.resource_id].add((row.kind, row.value))
    return not any(row.releasing for row in claims) and all(
        held[each.resource.id] == {(claim.kind, claim.value) for claim in each.noun.claims(each.name, each.spec)}
        for each in changings
    )


@cache
def _claims(dialect: str) -> Reading:
    which = together.among(dialect, Claim.resource_id)
    return select(Claim.resource_id, Claim.kind, Claim.value, Claim.releasing).where(which)


def _place(changings: Sequence[Changing], placed: Sequence[Any], alive: Mapping[int, membership.Node],
           base: int) -> None:  # fmt: skip
    """Finds where each change goes in which stage."""
    by_id = {each.resource.id: each for each in changings}
    for row in placed:
        by_id[row.resource_id].placed[row.node_id] = row
    for each in changings:
        each.generation = max(each.resource.generation, base) + 1
        each.members = membership.staying(each.noun, each.name, each.spec, each.before, each.placed.values(), alive)


@cache
def _locked(dialect: str) -> Reading:
    return (
        select(Placement.resource_id, Placement.node_id, Placement.wanted, Placement.done, Placement.applied,
               Placement.outcome)
        .where(together.among(dialect, Placement.resource_id))
        .order_by(Placement.resource_id, Placement.node_id)
        .with_for_update()
    )  # fmt: skip


def _write(connection: Connection, changings: Sequence[Changing], now: datetime) -> None:
    together.change(connection, Resource, [
        {"id": each.resource.id, "generation": each.generation, "changed_at": now} for each in changings
    ], ("id",), is_locked=True)  # fmt: skip
    if any(each.noun.secret_fields for each in changings):
        ids = [each.resource.id for each in changings if each.noun.secret_fields]
        connection.execute(_forget(connection.dialect.name), together.listed(connection.dialect.name, ids))
    revisions = []
    for each in changings:
        payload, secrets = rendered(each.noun, each.spec)
        revisions.append({"resource_id": each.resource.id, "generation": each.generation, "payload": payload,
                          "secrets": secrets, "created_at": now})  # fmt: skip
    together.add(connection, Revision, revisions)


@cache
def _forget(dialect: str) -> Update:
    """Secrets are kept in the newest revision only."""
    its = (together.among(dialect, Revision.resource_id), Revision.secrets.is_not(None))
    return update(Revision).where(*its).values(secrets=None)


def _begin(connection: Connection, changings: Sequence[Changing], busy: set[int],
           now: datetime) -> dict[int, int]:  # fmt: skip
    """Their jobs by resource, the first stage opened; `busy` are resources for which older jobs go on."""
    jobs = _jobs(connection, changings, now)
    with pipelined(connection):
        _write(connection, changings, now)
        together.add(connection, Target, [
            {"job_id": jobs[each.resource.id], "node_id": node, "stage": stage, "opened_at": None if stage else now}
            for each in changings for node, stage in sorted(each.members.stage_of.items())
        ])  # fmt: skip
        _want(connection, changings)
        record(connection, [
            Happened(f"{each.noun.name}.{each.wish.verb}", each.wish.actor, now, each.noun.name, each.name,
                     each.resource.id, job_id=jobs[each.resource.id], outcome="submitted",
                     detail={"difference": each.changed, "generation": each.generation, "reason": each.wish.reason,
                             "source": each.wish.source}) for each in changings
        ])  # fmt: skip
    for each in changings:
        if each.resource.id in busy:
            stages.supersede(connection, each.resource.id, jobs[each.resource.id], now)
    flags = {each.resource.id: each.members.waits_for_all for each in changings if each.first}
    waiting = {resource_id for resource_id, its in flags.items() if its[0] or len(its) == 1}
    stages.advance(connection, [job for resource_id, job in jobs.items() if resource_id not in waiting], now)
    return jobs


def _jobs(connection: Connection, changings: Sequence[Changing], now: datetime) -> dict[int, int]:
    rows: list[dict[str, Any]] = [
        {"kind": f"{each.noun.name}.{each.wish.verb}", "resource_id": each.resource.id, "noun": each.noun.name,
         "name": each.name, "generation": each.generation, "actor": each.wish.actor, "source": each.wish.source,
         "reason": each.wish.reason, "wish": each.mark, "state": states.Job.RUNNING, "stage": 0,
         "stages": json.dumps(each.members.waits_for_all).encode(), "targets": len(each.members.stage_of), "applied": 0,
         "failed": 0, "closed": 0, "submitted_at": now, "deadline_at": now + each.wish.deadline,
         "parent_id": each.wish.parent.job_id if each.wish.parent else None} for each in changings
    ]  # fmt: skip
    return together.add_numbered(connection, Job, rows, "resource_id")


def _want(connection: Connection, changings: Sequence[Changing]) -> None:
    """Raises `wanted` on the nodes of the first stages. Wakes the relay."""
    opened = [(each, node, each.placed.get(node)) for each in sorted(changings, key=lambda each: each.resource.id)
              for node in each.first]  # fmt: skip
    together.add(connection, Placement, [
        {"resource_id": each.resource.id, "node_id": node, "wanted": each.generation}
        for each, node, was in opened if was is None
    ])  # fmt: skip
    together.change(connection, Placement, [
        {"resource_id": each.resource.id, "node_id": node, "wanted": each.generation, "outcome": 0, "reason": None,
         "not_before_at": None} for each, node, was in opened if was is not None
    ], ("resource_id", "node_id"), _is_lower, is_locked=True)  # fmt: skip
    digests.changed(connection, [
        (node, each.resource.id, digests.shown(was.wanted, was.done, was.outcome) if was else None,
         (each.generation, int(states.Outcome.OPEN)))
        for each, node, was in opened if was is None or was.wanted < each.generation
    ])  # fmt: skip
    bells.ring(connection, bells.RELAY)


def _is_lower(new: Mapping[str, Any]) -> ColumnElement[bool]:
    is_lower: ColumnElement[bool] = Placement.wanted < new["wanted"]
    return is_lower


def _unchanged(each: Changing) -> Receipt:
    return Receipt(each.noun.name, each.name, each.resource.id, each.resource.generation, None, 0, {})


def _receipt(each: Changing, jobs: Mapping[int, int]) -> Receipt:
    return Receipt(each.noun.name, each.name, each.resource.id, each.generation, jobs[each.resource.id],
                   len(each.members.stage_of), each.changed)  # fmt: skip
