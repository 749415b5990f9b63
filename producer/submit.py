"""A wish becomes, in one transaction: resource, revision, claims, placements, job and event. Or nothing at all."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from ..models import nouns, states
from ..models.canonical import canonical, digest
from ..models.crash import crash_point
from ..models.errors import Conflict, Invalid, NotFound, Refused, Unreachable
from ..models.moment import now as time_now
from ..models.settings import Manager
from ..models.store import Job, Placement, Resource, Revision, Target, writing
from ..models.wire import MAX_BODY_BYTES
from . import claims, membership, numbers, stages
from .cancel import cancel
from .difference import difference
from .events import Happened, record
from .surroundings import Surroundings, wanted_spec

#: Room kept in a letter for everything around the payload.
ENVELOPE_BYTES = 16 * 1024
#: How long a job may take before its wait is over, unless the caller says otherwise.
DEADLINE = timedelta(days=1)
#: PostgreSQL's words for a deadlock and for a transaction that cannot be put in any order.
RACES = ("40P01", "40001")


@dataclass(frozen=True)
class Wish:
    """What somebody wants. `verb` is one of the noun's, or apply (a whole spec), remove, retry or cancel."""

    noun: str
    name: str
    verb: str = "apply"
    fields: Mapping[str, Any] = field(default_factory=dict)
    actor: str = "unknown"
    source: str = "library"
    reason: str | None = None
    #: The generation the caller has read: another one by now is a Conflict.
    if_generation: int | None = None
    #: The same key again gives the same job, whatever happened in between.
    idempotency_key: str | None = None
    deadline: timedelta = DEADLINE


@dataclass(frozen=True)
class Receipt:
    """What a wish became. `job_id` None: nothing differs, nothing was done."""

    noun: str
    name: str
    resource_id: int
    generation: int
    job_id: int | None
    targets: int
    #: What differs in desired state, by field; a secret is only "changed".
    difference: Mapping[str, str]


class _DryRun(Exception):
    """Takes the transaction back on purpose."""


#: What may look at a dry run before it is taken back.
Look = Callable[[Connection, list[Receipt]], None]


def submit(engine: Engine, settings: Manager, wishes: Sequence[Wish], *, dry_run: bool = False,
           look: Look | None = None) -> list[Receipt]:  # fmt: skip
    """Commits all wishes or none. Raises Refused (Invalid, NotFound, Conflict) or Unreachable.

    A dry run goes the whole way, lets `look` see what it came to, and takes everything back.
    """
    for last in (False, False, False, True):
        try:
            return _submit(engine, settings, wishes, dry_run, look)
        except (IntegrityError, Unreachable) as error:
            if last or not _is_race(error):
                raise
    raise AssertionError("the last try returns or raises")


def _submit(engine: Engine, settings: Manager, wishes: Sequence[Wish], dry_run: bool,
            look: Look | None) -> list[Receipt]:  # fmt: skip
    receipts: list[Receipt] = []
    try:
        with writing(engine) as connection:
            around = Surroundings(connection, settings)
            now = time_now()
            receipts.extend(_submit_one(connection, around, wish, now) for wish in wishes)
            if dry_run:
                if look:
                    look(connection, receipts)
                raise _DryRun
            crash_point("submit.written")
    except _DryRun:
        return receipts
    crash_point("submit.committed")
    return receipts


def _is_race(error: IntegrityError | Unreachable) -> bool:
    """Whether another writer was quicker: everything is read again, and then either fits or is refused by its rule."""
    cause = error if isinstance(error, IntegrityError) else error.__cause__
    return isinstance(error, IntegrityError) or getattr(getattr(cause, "orig", None), "sqlstate", "") in RACES


def _submit_one(connection: Connection, around: Surroundings, wish: Wish, now: datetime) -> Receipt:
    noun = nouns.noun(wish.noun)
    name = noun.check_name(wish.name)
    mark = _mark(noun, name, wish)
    if earlier := _earlier(connection, wish, mark):
        return earlier
    undo = cancel(connection, noun, name, wish.fields.get("job")) if wish.verb == "cancel" else None
    living = undo.resource if undo else _living(connection, noun.name, name)
    before = wanted_spec(connection, living.id, living.generation) if living else None
    if wish.if_generation is not None and wish.if_generation != (living.generation if living else 0):
        at = living.generation if living else "none"
        raise Conflict(f"{noun.name} {name} is at generation {at}, not {wish.if_generation}", hint="read it again")
    spec = undo.spec if undo else _wanted(connection, noun, name, wish, living, before)
    noun.check(name, spec, before, around)
    if spec is not None:
        numbered = before or (undo.spec if undo else None)
        spec = noun.number(_keep_manager_fields(noun, spec, numbered), numbered, around)
    changed = difference(noun, before, spec)
    if living and not changed and wish.verb not in ("retry", "cancel"):
        return Receipt(noun.name, name, living.id, living.generation, None, 0, {})
    resource_id, generation, replaces = _raise(connection, noun, name, living, spec, now)
    if spec is None:
        claims.drop(connection, resource_id, generation)
    else:
        claims.take(connection, resource_id, generation, noun.claims(name, spec), replaces)
    _revise(connection, noun, resource_id, generation, spec, now)
    around.forget()
    if noun.name == "node":
        membership.on_node(connection, resource_id, name, spec, is_new=before is None, now=now)
    job_id, targets = _open_job(connection, noun, name, resource_id, generation, spec, before, wish, mark, now)
    kind = f"{noun.name}.{wish.verb}"
    detail = {"difference": changed, "generation": generation, "reason": wish.reason, "source": wish.source}
    record(connection, [Happened(kind, wish.actor, now, noun.name, name, resource_id, job_id=job_id,
                                 outcome="submitted", detail=detail)])  # fmt: skip
    if undo:
        stages.cancel(connection, undo.job_id, noun.name, name, resource_id, wish.actor, now)
    stages.supersede(connection, resource_id, job_id, now)
    stages.advance(connection, [job_id], now)
    return Receipt(noun.name, name, resource_id, generation, job_id, targets, changed)


def _mark(noun: nouns.Noun, name: str, wish: Wish) -> str:
    """What makes two wishes the same. A secret does not: a password hashed again has another salt."""
    try:
        plain = {key: value for key, value in wish.fields.items() if key not in noun.secret_fields}
        return digest(canonical([noun.name, name, wish.verb, plain]))
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"{noun.name} {name}: the fields are not plain data: {type(error).__name__}") from None


def _earlier(connection: Connection, wish: Wish, mark: str) -> Receipt | None:
    if wish.idempotency_key is None:
        return None
    job = connection.execute(select(Job).where(Job.idempotency_key == wish.idempotency_key)).one_or_none()
    if job is None:
        return None
    if job.wish != mark:
        raise Conflict(f"idempotency key {wish.idempotency_key!r} was used for another wish, job {job.id}")
    return Receipt(job.noun, job.name, job.resource_id, job.generation, job.id, job.targets, {})


def _living(connection: Connection, noun: str, name: str) -> Row[Any] | None:
    return connection.execute(
        select(Resource)
        .where(Resource.noun == noun, Resource.name == name, Resource.absent.is_(False))
        .with_for_update(key_share=True)
    ).one_or_none()


def _wanted(connection: Connection, noun: nouns.Noun, name: str, wish: Wish, living: Row[Any] | None,
            before: nouns.Spec | None) -> nouns.Spec | None:  # fmt: skip
    """The whole spec that the wish asks for; None: absent."""
    verb = noun.verb(wish.verb)
    if (verb and verb.makes) or wish.verb == "apply":
        if verb and living:
            raise Conflict(f"{noun.name} {name} exists already", hint=f"onehost {noun.name} show {name}")
        kept = {key: before[key] for key in noun.secret_fields if before and key in before and key not in wish.fields}
        return noun.load(kept | dict(wish.fields))
    if living is None or before is None:
        if wish.verb == "retry":
            return None
        raise _not_found(connection, noun, name)
    if wish.verb == "remove" or (verb and verb.removes):
        return None
    if wish.verb == "retry":
        return before
    if verb is None:
        known = ", ".join(v.name for v in noun.verbs)
        raise Invalid(f"{noun.name} has no verb {wish.verb!r}", {"verb": "unknown"}, hint=f"known: {known}")
    return noun.load(before | dict(verb.fixed or {}) | dict(wish.fields))


def _not_found(connection: Connection, noun: nouns.Noun, name: str) -> NotFound:
    names = connection.execute(select(Resource.name).where(Resource.noun == noun.name, Resource.absent.is_(False)))
    near = difflib.get_close_matches(name, list(names.scalars()), 1)
    hint = f"did you mean {near[0]}?" if near else f"onehost {noun.name} list"
    return NotFound(f"no such {noun.name}: {name}", hint=hint)


def _keep_manager_fields(noun: nouns.Noun, spec: nouns.Spec, before: nouns.Spec | None) -> nouns.Spec:
    for key in noun.manager_fields:
        own = (before or {}).get(key)
        if spec.get(key) not in (None, own):
            raise Refused(f"{noun.name}: {key} is given by the manager, {spec[key]!r} cannot be asked for")
        spec = spec | {key: own}
    return spec


def _raise(connection: Connection, noun: nouns.Noun, name: str, living: Row[Any] | None,
           spec: nouns.Spec | None, now: datetime) -> tuple[int, int, int]:  # fmt: skip
    if living:
        generation = numbers.next_generation(connection, living.generation)
        connection.execute(
            update(Resource).where(Resource.id == living.id)
            .values(generation=generation, absent=spec is None, changed_at=now)
        )  # fmt: skip
        return living.id, generation, living.replaces
    same_name = (Resource.noun == noun.name, Resource.name == name)
    replaces = connection.execute(select(func.max(Resource.id)).where(*same_name)).scalar() or 0
    if spec is None:
        last = connection.execute(select(Resource.generation).where(Resource.id == replaces)).scalar_one_or_none()
        if last is None:
            raise _not_found(connection, noun, name)
        generation = numbers.next_generation(connection, last)
        connection.execute(
            update(Resource).where(Resource.id == replaces).values(generation=generation, changed_at=now)
        )
        return replaces, generation, 0
    resource_id, generation = numbers.next_id(connection), numbers.next_generation(connection, 0)
    connection.execute(
        insert(Resource).values(id=resource_id, noun=noun.name, name=name, generation=generation, absent=False,
                                replaces=replaces, created_at=now, changed_at=now)
    )  # fmt: skip
    return resource_id, generation, replaces


def _revise(connection: Connection, noun: nouns.Noun, resource_id: int, generation: int, spec: nouns.Spec | None,
            now: datetime) -> None:  # fmt: skip
    payload = secrets = None
    if spec is not None:
        plain, secret = noun.split(spec)
        payload, secrets = canonical(plain), canonical(secret) if secret else None
        if len(payload) + len(secrets or b"") > MAX_BODY_BYTES - ENVELOPE_BYTES:
            raise Invalid(f"{noun.name}: the spec is larger than {MAX_BODY_BYTES - ENVELOPE_BYTES} bytes")
    connection.execute(
        update(Revision).where(Revision.resource_id == resource_id, Revision.secrets.is_not(None)).values(secrets=None)
    )
    connection.execute(
        insert(Revision).values(resource_id=resource_id, generation=generation, payload=payload, secrets=secrets,
                                created_at=now)
    )  # fmt: skip


def _open_job(connection: Connection, noun: nouns.Noun, name: str, resource_id: int, generation: int,
              spec: nouns.Spec | None, before: nouns.Spec | None, wish: Wish, mark: str,
              now: datetime) -> tuple[int, int]:  # fmt: skip
    members = membership.members(connection, noun, name, resource_id, spec, before)
    if spec is None:
        connection.execute(delete(Placement).where(Placement.resource_id == resource_id, Placement.wanted == 0))
    job_id = connection.execute(
        insert(Job).values(
            kind=f"{noun.name}.{wish.verb}", resource_id=resource_id, noun=noun.name, name=name, generation=generation,
            actor=wish.actor, source=wish.source, reason=wish.reason, idempotency_key=wish.idempotency_key, wish=mark,
            state=states.Job.RUNNING, stage=0, stages=json.dumps(members.waits_for_all).encode(),
            targets=len(members.stage_of), submitted_at=now, deadline_at=now + wish.deadline,
        ).returning(Job.id)
    ).scalar_one()  # fmt: skip
    rows = [{"job_id": job_id, "node_id": node, "stage": stage} for node, stage in sorted(members.stage_of.items())]
    if rows:
        connection.execute(insert(Target), rows)
        stages.open_stage(connection, job_id, resource_id, generation, 0, now)
    return int(job_id), len(rows)
