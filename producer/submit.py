"""A wish becomes, in one transaction: resource, revision, claims, placements, job and event. Or nothing at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, insert, select, tuple_, update

from ..models import nouns, states
from ..models.crash import crash_point
from ..models.errors import Conflict, Refused
from ..models.moment import now as time_now
from ..models.settings import Manager
from ..models.store import Job, Placement, Resource, Revision, retried, writing
from . import (
    actions,
    batches,
    changing,
    claims,
    following,
    grace,
    hold,
    leftovers,
    making,
    membership,
    numbers,
    ownership,
    stages,
)
from .cancel import refuse_retry
from .deciding import Decided, decide, not_found
from .events import Happened, record
from .opening import Change, open_job
from .payload import rendered
from .surroundings import Surroundings
from .wish import Receipt, Wish, mark


class _DryRun(Exception):
    """Takes the transaction back on purpose."""


#: What may look at a dry run before it is taken back.
Look = Callable[[Connection, list[Receipt]], None]


def submit(engine: Engine, settings: Manager, wishes: Sequence[Wish], *, dry_run: bool = False,
           look: Look | None = None) -> list[Receipt]:  # fmt: skip
    """Commits all wishes or none. Raises Refused (Invalid, NotFound, Conflict) or Unreachable.

    A dry run goes the whole way, lets `look` see what it came to, and takes everything back.
    """
    return retried(lambda: _submit(engine, settings, wishes, dry_run, look))


def _submit(engine: Engine, settings: Manager, wishes: Sequence[Wish], dry_run: bool,
            look: Look | None) -> list[Receipt]:  # fmt: skip
    receipts: list[Receipt] = []
    try:
        with writing(engine) as connection:
            around = Surroundings(connection, settings)
            now = time_now()
            receipts.extend(_all(connection, around, wishes, now, dry_run))
            if dry_run:
                if look:
                    look(connection, receipts)
                raise _DryRun
            crash_point("submit.written")
    except _DryRun:
        return receipts
    crash_point("submit.committed")
    return receipts


def _all(connection: Connection, around: Surroundings, wishes: Sequence[Wish], now: datetime,
         is_dry: bool) -> list[Receipt]:  # fmt: skip
    """What is new is made together, the rest is changed; what is named before what names it."""
    receipts: dict[int, Receipt] = {}
    levels: dict[int, list[int]] = {}
    for at, wish in enumerate(wishes):
        levels.setdefault(ownership.turn(wish), []).append(at)
    for _, places in sorted(levels.items()):
        new = {places[at] for at in making.fresh(connection, [wishes[each] for each in places])}
        others = [at for at in places if at not in new]
        for its, act in ((sorted(new), making.make), (others, partial(_change, is_dry=is_dry))):
            if its:
                made = act(connection, around, [wishes[at] for at in its], now)
                receipts |= dict(zip(its, made, strict=True))
    return [receipts[at] for at in range(len(wishes))]


def _change(connection: Connection, around: Surroundings, wishes: Sequence[Wish], now: datetime, *,
            is_dry: bool) -> list[Receipt]:  # fmt: skip
    if len(wishes) > 1:
        _lock(connection, wishes)
    receipts: list[Receipt] = []
    for at in range(0, len(wishes), changing.AT_ONCE):
        chunk = wishes[at : at + changing.AT_ONCE]
        changed = changing.change(connection, around, chunk, now)
        receipts += changed or [submit_one(connection, around, wish, now, is_dry=is_dry) for wish in chunk]
    return receipts


def _lock(connection: Connection, wishes: Sequence[Wish]) -> None:
    """Locks what many wishes are about in the order of ids, as all do: each by itself, they would wait in a ring."""
    if connection.dialect.name == "sqlite":
        return
    names = sorted({(wish.noun, wish.name) for wish in wishes if (wish.noun + wish.name).isprintable()})
    which = (tuple_(Resource.noun, Resource.name).in_(names), Resource.absent.is_(False))
    living = select(Resource.id).where(*which).order_by(Resource.id).with_for_update(key_share=True)
    placed = (
        select(Placement.node_id)
        .where(Placement.resource_id.in_(connection.execute(living).scalars().all()))
        .order_by(Placement.resource_id, Placement.node_id)
        .with_for_update()
    )
    connection.execute(placed)


def submit_one(connection: Connection, around: Surroundings, wish: Wish, now: datetime, *, is_dry: bool = False,
               released: Row[Any] | None = None) -> Receipt:  # fmt: skip
    """One wish, in the caller's transaction. `released`: the job it was held as. Raises Refused."""
    noun = nouns.noun(wish.noun)
    name = noun.check_name(wish.name)
    batches.check(wish.batch, wish.max_fail)
    its_mark = mark(noun, name, wish)
    if earlier := _earlier(connection, wish, its_mark):
        return earlier
    if action := noun.action(wish.verb):
        return actions.submit(connection, noun, name, action, wish, its_mark, now)
    if wish.verb == "cancel" and (dropped := hold.drop(connection, noun, name, wish, now)):
        return dropped
    if wish.verb == "retry":
        refuse_retry(connection, noun, name, wish.fields)
    decided = decide(connection, around, noun, name, its_mark, wish, is_released=released is not None)
    living = decided.living
    if living and not decided.changed and wish.verb not in ("retry", "cancel"):
        return Receipt(noun.name, name, living.id, living.generation, None, 0, {})
    is_held = decided.destroys and hold.is_beyond(connection, around.setting("held_beyond_per_hour"), wish, now)
    if is_held and living and not is_dry:
        return hold.keep(connection, noun, name, living, wish, its_mark, decided.changed, now)
    return replace(_carry_out(connection, around, decided, wish, now, released), held=is_held)


def _carry_out(connection: Connection, around: Surroundings, decided: Decided, wish: Wish, now: datetime,
               released: Row[Any] | None) -> Receipt:  # fmt: skip
    """Writes it all: the resource with its revision and claims, the job with what it opens, the event."""
    noun, name, living, before, spec = decided.noun, decided.name, decided.living, decided.before, decided.spec
    resource_id, generation, replaces = _raise(connection, noun, name, living, spec, now)
    if spec is None:
        claims.drop(connection, resource_id, generation)
    else:
        claims.take(connection, resource_id, generation, noun.claims(name, spec), replaces)
    if wish.parent and spec is None:
        grace_until_at = wish.parent.grace_until_at
    else:
        grace_until_at = grace.until(noun, spec, before, around.setting("grace_seconds"), now)
    _revise(connection, noun, resource_id, generation, spec, now, keeps_secrets=grace_until_at is not None)
    around.forget()
    if noun.name == "node":
        membership.on_node(connection, resource_id, name, spec, is_new=before is None, now=now)
    change = Change(noun, name, resource_id, generation, spec, before, grace_until_at, decided.destroys)
    opened = open_job(connection, change, wish, decided.mark, now, released)
    detail = {"difference": decided.changed, "generation": generation, "reason": wish.reason, "source": wish.source}
    record(connection, [Happened(f"{noun.name}.{wish.verb}", wish.actor, now, noun.name, name, resource_id,
                                 job_id=opened.job_id, outcome="submitted", detail=detail)])  # fmt: skip
    if decided.undo:
        stages.cancel(connection, decided.undo.job_id, noun.name, name, resource_id, wish.actor, now)
    stages.supersede(connection, resource_id, opened.job_id, now)
    owned = _with_owned(connection, around, decided, wish, resource_id, opened.job_id, grace_until_at, now)
    if wish.verb == "retry":
        leftovers.remove_again(connection, noun.name, name, resource_id, now)
    if living:
        hold.supersede(connection, resource_id, opened.job_id, now)
    ended = grace.end_of(connection, replaces) if replaces else []
    stages.advance(connection, ended if opened.is_waiting else [opened.job_id, *ended], now)
    return Receipt(noun.name, name, resource_id, generation, opened.job_id, opened.targets, decided.changed,
                   grace_until_at, owned=owned)  # fmt: skip


def _with_owned(connection: Connection, around: Surroundings, decided: Decided, wish: Wish, resource_id: int,
                job_id: int, grace_until_at: datetime | None, now: datetime) -> Mapping[str, int]:  # fmt: skip
    """What belongs to it goes, or comes back, with it, and what follows from it follows: by jobs below this one."""
    wishes: list[Wish] = []
    if decided.undo and decided.spec is not None:
        wishes = ownership.cancels(connection, decided.undo.job_id, wish, job_id)
    elif decided.spec is None and wish.verb == "retry":
        wishes = ownership.retries(connection, resource_id, wish, job_id)
    elif decided.spec is None and decided.living:
        wishes = ownership.removals(connection, resource_id, wish, job_id, grace_until_at)
    for each in wishes:
        submit_one(connection, around, each, now)
    found = Counter(each.noun for each in wishes)
    if decided.living and decided.spec is not None and nouns.followers(decided.noun.name):
        further = following.wishes(connection, decided.noun, decided.name, wish, job_id)
        found.update(each.noun for each in _change(connection, around, further, now, is_dry=False) if each.job_id)
    return dict(found)


def release(connection: Connection, settings: Manager, job_id: int, actor: str, reason: str | None) -> Receipt:
    """Begins a held job as its wish would have begun, in the caller's transaction. Raises NotFound or Refused."""
    around, now = Surroundings(connection, settings), time_now()

    def begin(wish: Wish, job: Row[Any]) -> Receipt:
        receipt = submit_one(connection, around, wish, now, released=job)
        if receipt.job_id is None:
            raise Refused(f"job {job.id} would change nothing any more", hint=f"onehost job cancel {job.id}")
        return receipt

    return hold.release(connection, job_id, actor, reason, begin, now)


def _earlier(connection: Connection, wish: Wish, mark: str) -> Receipt | None:
    if wish.idempotency_key is None:
        return None
    job = connection.execute(select(Job).where(Job.idempotency_key == wish.idempotency_key)).one_or_none()
    if job is None:
        return None
    if job.wish != mark:
        raise Conflict(f"idempotency key {wish.idempotency_key!r} was used for another wish, job {job.id}")
    is_held = job.state == states.Job.HELD
    return Receipt(job.noun, job.name, job.resource_id, job.generation, job.id, job.targets, {}, held=is_held)


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
            raise not_found(connection, noun, name)
        generation = numbers.next_generation(connection, last)
        connection.execute(
            update(Resource).where(Resource.id == replaces).values(generation=generation, changed_at=now)
        )
        return replaces, generation, 0
    resource_id, generation = numbers.next_id(connection), numbers.next_generation(connection, 0)
    connection.execute(
        insert(Resource).values(id=resource_id, noun=noun.name, name=name, generation=generation, absent=False,
                                replaces=replaces, owner_id=ownership.owner_id(noun, spec), created_at=now,
                                changed_at=now)
    )  # fmt: skip
    return resource_id, generation, replaces


def _revise(connection: Connection, noun: nouns.Noun, resource_id: int, generation: int, spec: nouns.Spec | None,
            now: datetime, *, keeps_secrets: bool) -> None:  # fmt: skip
    payload, secrets = rendered(noun, spec)
    if not keeps_secrets:
        old = (Revision.resource_id == resource_id, Revision.secrets.is_not(None))
        connection.execute(update(Revision).where(*old).values(secrets=None))
    connection.execute(
        insert(Revision).values(resource_id=resource_id, generation=generation, payload=payload, secrets=secrets,
                                created_at=now)
    )  # fmt: skip
