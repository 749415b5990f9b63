"""Hello, answered: what a node holds against what the store wants there. The one cure for everything that got lost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, insert, select, update

from ..models import nouns, states, wire
from ..models.digest import Digest, bucket
from ..models.store import (
    Action,
    Event,
    Hello,
    Job,
    NodeStatus,
    Placement,
    Resource,
    Revision,
    Target,
    bells,
    digests,
)
from . import numbers, orphans, pause, stages
from .events import Happened, record

#: Acknowledgement numbers named, or closed as lost, in one answer; the rest follows at the next hello.
ASKED_AT_ONCE = 1000
#: Acknowledgement numbers of one hello that are looked at: a node says what it likes.
LOOKED_AT = 100_000


def answer(connection: Connection, node_id: int, hello: wire.Letter, now: datetime) -> None:
    """Answers one hello: names the buckets that differ, or goes through those it lists. Wakes the relay."""
    if connection.execute(select(NodeStatus.node_id).where(NodeStatus.node_id == node_id)).first() is None:
        return  # removed meanwhile
    if hello["orphans"]:
        orphans.name(connection, node_id, hello["orphans"])
    elif hello["buckets"] is None:
        _report(connection, node_id, hello, now)
        _welcome(connection, node_id, hello, now)
    else:
        _cover(connection, node_id, hello, now)
    bells.ring(connection, bells.RELAY)


def _report(connection: Connection, node_id: int, hello: wire.Letter, now: datetime) -> None:
    """The first hello in this life of the store: no number the node was given is given out again."""
    life, highest = numbers.incarnation(connection), hello["highest"]
    which = NodeStatus.node_id == node_id
    row = connection.execute(select(NodeStatus.reported, NodeStatus.epoch, NodeStatus.acked).where(which)).one()
    if row.reported == life:
        return
    for kind in set().union(*(noun.number_kinds for noun in nouns.nouns().values())) & highest.keys():
        numbers.at_least(connection, kind, highest[kind])
    values = {"reported": life}
    detail: dict[str, Any] = {"highest": highest, "incarnation": life}
    if life and hello["epoch"] == row.epoch:
        # What the node has pruned was told to the life before, and is in no store.
        first = min((first for epoch, first, _ in hello["held"] if epoch == row.epoch), default=hello["last"] + 1)
        if first > row.acked + 1:
            values["acked"], detail["lost"] = first - 1, [row.acked + 1, first - 1]
    connection.execute(update(NodeStatus).where(which).values(**values))
    if life:
        about = ("node", hello.node, node_id, hello.node, node_id)
        record(connection, [Happened("node.report", "onehost", now, *about, detail=detail)])


def _welcome(connection: Connection, node_id: int, hello: wire.Letter, now: datetime) -> None:
    differing = _differing(connection, node_id, hello, now)
    lacking, kept = _lacking(connection, node_id, hello, now)
    acked = connection.execute(select(NodeStatus.epoch, NodeStatus.acked).where(NodeStatus.node_id == node_id)).one()
    body = wire.encode(form="welcome", node=hello.node, hello=hello["hello"], differing=differing,
                       incarnation=numbers.incarnation(connection), lacking=lacking, kept=kept,
                       have=[acked.epoch or 0, acked.acked],
                       is_paused=pause.is_paused(node_id, pause.paused(connection)))  # fmt: skip
    _send(connection, node_id, "welcome", body, now)
    if not differing:
        _synced(connection, node_id, now)


def _differing(connection: Connection, node_id: int, hello: wire.Letter, now: datetime) -> list[int]:
    """The buckets in which store and node differ. Sums that differ are counted anew before the node is troubled."""
    theirs, unnamed = Digest.parse(hello["digest"]), orphans.unnamed(connection, node_id)
    differing = orphans.expected(connection, node_id).differing(theirs)
    wrong = digests.recount(connection, node_id, differing) if differing else []
    if not wrong:
        return sorted(unnamed.union(differing))
    record(connection, [Happened("digest.recount", "onehost", now, node=hello.node, node_id=node_id,
                                 detail={"buckets": wrong})])  # fmt: skip
    return sorted(unnamed.union(orphans.expected(connection, node_id).differing(theirs)))


def _lacking(connection: Connection, node_id: int, hello: wire.Letter,
             now: datetime) -> tuple[list[list[int]], list[list[int]]]:  # fmt: skip
    """The numbers the node still holds that are not in the audit store, and up to where each epoch is kept there.

    What nobody holds any longer is closed.
    """
    lacking: list[list[int]] = []
    kept: list[list[int]] = []
    held = _held(hello)
    row = connection.execute(select(NodeStatus.epoch, NodeStatus.acked).where(NodeStatus.node_id == node_id)).one()
    for epoch, its in sorted(held.items()):
        floor = row.acked if epoch == row.epoch else 0
        missing = sorted(number for number in its - _known(connection, node_id, epoch, floor) if number > floor)
        lacking += [[epoch, number] for number in missing]
        kept.append([epoch, missing[0] - 1 if missing else max(its)])
    floor = row.acked if hello["epoch"] == row.epoch else 0
    _close_gaps(connection, node_id, hello, held.get(hello["epoch"], set()), floor, now)
    return lacking[:ASKED_AT_ONCE], kept[:ASKED_AT_ONCE]


def _held(hello: wire.Letter) -> dict[int, set[int]]:
    """By epoch the acknowledgement numbers that the node says it holds."""
    held: dict[int, set[int]] = {}
    left = LOOKED_AT
    for epoch, first, last in hello["held"]:
        numbers_held = range(max(first, 1), min(last, first + left) + 1)
        if numbers_held:
            held.setdefault(epoch, set()).update(numbers_held)
        left -= len(numbers_held)
        if left <= 0:
            break
    return held


def _known(connection: Connection, node_id: int, epoch: int, floor: int) -> set[int]:
    which = (Event.node_id == node_id, Event.epoch == epoch, Event.number > floor)
    rows = connection.execute(select(Event.number).where(*which))
    return {number for number in rows.scalars() if number is not None}


def _close_gaps(connection: Connection, node_id: int, hello: wire.Letter, held: set[int], floor: int,
                now: datetime) -> None:  # fmt: skip
    """Numbers of this epoch that are neither here nor held by anybody: an event says that each is lost."""
    epoch, last = hello["epoch"], min(hello["last"], floor + LOOKED_AT)
    known = _known(connection, node_id, epoch, floor)
    gone = sorted(set(range(floor + 1, last + 1)) - known - held)[:ASKED_AT_ONCE]
    record(
        connection,
        [Happened("acknowledgement.lost", "onehost", now, node=hello.node, node_id=node_id, epoch=epoch, number=number,
                  outcome="lost") for number in gone],
    )  # fmt: skip
    explained, moved = known.union(gone), floor
    while moved + 1 in explained:
        moved += 1
    if moved != floor:
        which = (NodeStatus.node_id == node_id, NodeStatus.epoch == epoch, NodeStatus.acked == floor)
        connection.execute(update(NodeStatus).where(*which).values(acked=moved))


def _cover(connection: Connection, node_id: int, hello: wire.Letter, now: datetime) -> None:
    """Goes through the listed buckets: sends again what the node lacks, raises what it is beyond, names orphans."""
    buckets = set(hello["buckets"])
    theirs = {row[0]: (row[1], row[2]) for row in hello["rows"] if bucket(row[0]) in buckets}
    ours = {row.resource_id: row for row in digests.rows(connection, node_id, buckets)}
    again: list[int] = []
    behind: dict[int, int] = {}
    unopened = _unopened(connection, Target.node_id == node_id)
    for resource_id, row in sorted(ours.items()):
        wanted, outcome = theirs.get(resource_id, (0, 0))
        if wanted < row.wanted:
            behind[resource_id] = wanted
        elif wanted > row.wanted:
            if (resource_id, node_id) not in unopened:
                _raise_above(connection, node_id, resource_id, wanted, now)
        elif outcome != (row.outcome if row.done == row.wanted else states.Outcome.OPEN) and outcome:
            again.append(resource_id)
    _lower_sent(connection, node_id, behind)
    wanted_now = [[row.resource_id, row.wanted] for row in digests.rows(connection, node_id, buckets)]
    unlisted = sorted(theirs.keys() - {row[0] for row in wanted_now})
    for part in _parts(buckets, wanted_now, again, unlisted):
        body = wire.encode(form="cover", node=hello.node, hello=hello["hello"], **part)
        _send(connection, node_id, "cover", body, now)
    orphans.note(connection, node_id, hello.node, buckets, {each: theirs[each] for each in unlisted}, now)
    _synced(connection, node_id, now)


def _parts(buckets: Collection[int], wanted: Sequence[list[int]], again: Sequence[int],
           unlisted: Sequence[int]) -> Iterable[dict[str, Any]]:  # fmt: skip
    """A cover, cut into letters that are small enough. A bucket is never cut: one lost letter leaves it uncovered."""
    by_bucket: dict[int, dict[str, list[Any]]] = {
        number: {"wanted": [], "again": [], "orphans": []} for number in sorted(buckets)
    }
    for word, rows in (("wanted", wanted), ("again", again), ("orphans", unlisted)):
        for row in rows:
            by_bucket[bucket(row[0] if isinstance(row, list) else row)][word].append(row)
    part: dict[str, list[Any]] = {}
    for number, its in by_bucket.items():
        if part and sum(map(len, its.values())) + sum(map(len, part.values())) > wire.LISTED_AT_ONCE:
            yield part
            part = {}
        for word, rows in (("buckets", [number]), *its.items()):
            part.setdefault(word, []).extend(rows)
    if part:
        yield part


def _lower_sent(connection: Connection, node_id: int, behind: Mapping[int, int]) -> None:
    """What the node lacks is sent again: `sent` becomes what it has."""
    if behind:
        connection.execute(_LOWER_SENT, [{"n": node_id, "r": each, "to": to} for each, to in sorted(behind.items())])


_LOWER_SENT = (
    update(Placement)
    .where(Placement.node_id == bindparam("n"), Placement.resource_id == bindparam("r"),
           Placement.sent > bindparam("to"))
    .values(sent=bindparam("to"), not_before_at=None)
)  # fmt: skip


def _unopened(connection: Connection, which: ColumnElement[bool]) -> set[tuple[int, int]]:
    """(resource id, node id) where a running job has not opened its stage yet: nothing may overtake it."""
    rows = connection.execute(
        select(Job.resource_id, Target.node_id).select_from(Target).join(Job, Job.id == Target.job_id)
        .where(which, stages.is_going_on(), Target.outcome.is_(None), Target.opened_at.is_(None))
    )  # fmt: skip
    return {(row.resource_id, row.node_id) for row in rows}


def _raise_above(connection: Connection, node_id: int, resource_id: int, beyond: int, now: datetime) -> None:
    """The node is beyond this (restored) store: the resource gets a generation above, with the store's spec.

    All placements go along, but those that wait for their stage.
    """
    which = Resource.id == resource_id
    resource = connection.execute(select(Resource).where(which).with_for_update(key_share=True)).one()
    generation = max(numbers.next_generation(connection, resource.generation), beyond + 1)
    old = and_(Revision.resource_id == resource_id, Revision.generation == resource.generation)
    kept = connection.execute(select(Revision.payload, Revision.secrets).where(old)).one()
    connection.execute(update(Revision).where(old).values(secrets=None))
    connection.execute(
        insert(Revision).values(resource_id=resource_id, generation=generation, payload=kept.payload,
                                secrets=kept.secrets, created_at=now)
    )  # fmt: skip
    connection.execute(update(Resource).where(which).values(generation=generation, changed_at=now))
    _raise_placements(connection, resource_id, generation)
    node = connection.execute(select(Resource.name).where(Resource.id == node_id)).scalar_one()
    detail = {"beyond": beyond, "generation": generation, "absent": resource.absent}
    record(connection, [Happened("resource.raise", "onehost", now, resource.noun, resource.name, resource_id, node,
                                 node_id, detail=detail)])  # fmt: skip


def _raise_placements(connection: Connection, resource_id: int, generation: int) -> None:
    which = [Placement.resource_id == resource_id, Placement.wanted > 0, Placement.wanted < generation]
    if unopened := _unopened(connection, Job.resource_id == resource_id):
        which.append(Placement.node_id.not_in([node_id for _, node_id in unopened]))
    rows = connection.execute(select(Placement).where(*which).order_by(Placement.node_id).with_for_update()).all()
    after = digests.shown(generation, 0, states.Outcome.OPEN)
    digests.changed(
        connection,
        [(row.node_id, resource_id, digests.shown(row.wanted, row.done, row.outcome), after) for row in rows],
    )
    connection.execute(update(Placement).where(*which).values(wanted=generation, outcome=states.Outcome.OPEN))


def _send(connection: Connection, node_id: int, form: str, body: bytes, now: datetime) -> None:
    connection.execute(insert(Action).values(node_id=node_id, form=form, body=body, created_at=now))


def _synced(connection: Connection, node_id: int, now: datetime) -> None:
    """It has been told everything; its beats say when it holds everything."""
    connection.execute(
        update(NodeStatus)
        .where(NodeStatus.node_id == node_id, NodeStatus.state == states.NodeState.NEW)
        .values(state=states.NodeState.UNSYNCED, state_at=now)
    )


def strangers(connection: Connection) -> frozenset[int]:
    """Nodes that have not said hello under this id in this life of the store."""
    rows = connection.execute(select(NodeStatus.node_id).where(NodeStatus.reported != numbers.incarnation(connection)))
    return frozenset(rows.scalars())


def hail(connection: Connection, node_id: int, node: str, now: datetime) -> None:
    """Asks a node to say hello, unless it has been asked already, or its hello is being answered: it would begin anew,
    and on a slow bus never come to an end."""
    asked = select(Action.id).where(Action.node_id == node_id, Action.form.in_(("hail", "welcome", "cover")))
    said = select(Hello.id).where(Hello.node_id == node_id)
    if connection.execute(asked).first() is None and connection.execute(said).first() is None:
        _send(connection, node_id, "hail", wire.encode(form="hail", node=node), now)
        bells.ring(connection, bells.RELAY)
