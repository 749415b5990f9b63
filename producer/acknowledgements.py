"""Acknowledgements are taken in: events, placements raised, jobs counted, floors moved, in the caller's transaction.

Two of one batch may be about the same placement; the batch is collapsed to the newest of each first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, and_, select, update

from ..broker_config import routing
from ..models import states, wire
from ..models.store import Event, NodeStatus, Placement, Reading, answers, bells, digests, pipelined, together
from . import actions, claims, counting, stages
from .counting import Change, shortened
from .events import Happened, record
from .membership import Node

#: Placement rows by (resource id, node id).
Placed = dict[tuple[int, int], Any]
#: The number of an acknowledgement: node id, epoch, number.
Number = tuple[int, int, int]
OUTCOMES = {"applied": states.Outcome.APPLIED, "failed": states.Outcome.FAILED}


def store(connection: Connection, acks: Sequence[tuple[Node, wire.Letter]], now: datetime) -> None:
    """Those whose number is there already change nothing."""
    if not acks:
        return
    numbers, floors, places, jobs = _around(connection, acks)
    known = {(row.n, row.e, row.num) for row in numbers}
    taken = _new_ones(acks, known)
    new = [(node, ack) for node, ack in taken if ack["action"] is None]
    if of_actions := [(node, ack) for node, ack in taken if ack["action"] is not None]:
        actions.acknowledged(connection, of_actions, now)
    moved = _moved(connection, taken, floors, known)
    placed = {(row.resource_id, row.node_id): row for row in places}
    owners = {(job.resource_id, job.generation): job.id for job in jobs}
    changes, outcomes = _changes(new, placed, {row.node_id: row.epoch for row in floors})
    with pipelined(connection):
        record(connection, [_event(node, ack, placed, owners.get((ack["id"], ack["generation"])), now)
                            for node, ack in new])  # fmt: skip
        together.change(connection, NodeStatus, moved, ("node_id",))
        _retrying(connection, new, placed, now)
        _raise(connection, outcomes, placed, now)
        counted = counting.count(connection, jobs, changes, now)
        claims.release(connection, {change.resource_id for change in outcomes})
        became = stages.became(connection, [job.id for job in counted])
    stages.go_on(connection, counted, became, now)
    bells.ring(connection, bells.JOBS)


def _around(connection: Connection, acks: Sequence[tuple[Node, wire.Letter]]) -> list[Sequence[Any]]:
    """In one trip: which of these numbers and of those that follow are stored, how far each node's are, the
    placements, which are locked, and the jobs that these may be about.
    """
    dialect = connection.dialect.name
    numbers = {(node.id, ack["epoch"], ack["number"]) for node, ack in acks}
    numbers |= {(node, epoch, min(number + 1, wire.LARGEST)) for node, epoch, number in numbers}
    of_state = [(node, ack) for node, ack in acks if ack["action"] is None]
    keys = sorted({(ack["id"], node.id) for node, ack in of_state})
    return answers(
        connection,
        (_numbers(dialect), together.keys(dialect, ("n", "e", "num"), sorted(numbers))),
        (_floors(dialect), together.listed(dialect, {node.id for node, _ in acks})),
        (_locked(dialect), together.keys(dialect, ("r", "n"), keys)),
        counting.question(dialect, keys, min((ack["generation"] for _, ack in of_state), default=0)),
    )


def _new_ones(acks: Sequence[tuple[Node, wire.Letter]], known: set[Number]) -> list[tuple[Node, wire.Letter]]:
    """Those whose number is not in the audit store yet, each once."""
    unique = {(node.id, ack["epoch"], ack["number"]): (node, ack) for node, ack in acks}
    return [unique[each] for each in unique if each not in known]


@cache
def _numbers(dialect: str) -> Reading:
    given = together.keyed(dialect, ("n", "e", "num"))
    same = and_(Event.node_id == given.c.n, Event.epoch == given.c.e, Event.number == given.c.num)
    return select(given.c.n, given.c.e, given.c.num).join_from(given, Event, same)


@cache
def _locked(dialect: str) -> Reading:
    given = together.keyed(dialect, ("r", "n"))
    return (
        select(Placement)
        .join_from(given, Placement, and_(Placement.resource_id == given.c.r, Placement.node_id == given.c.n))
        .order_by(Placement.resource_id, Placement.node_id)
        .with_for_update(of=Placement)
    )


def _event(node: Node, ack: wire.Letter, placed: Placed, job_id: int | None, now: datetime) -> Happened:
    said, row = ack.body, placed.get((ack["id"], node.id))
    strange = row is None or said["generation"] > row.wanted
    detail = {
        "generation": said["generation"], "reason": said["reason"][: wire.MAX_TEXT],
        "difference": shortened(said["difference"]),
        "seconds": said["seconds"], "at": datetime.fromtimestamp(said["at"], UTC).isoformat(),
    }  # fmt: skip
    return Happened(
        "acknowledgement", routing.node_user(node.name), now, said["noun"], said["name"], said["id"], node.name,
        node.id, job_id=job_id, outcome="strange" if strange else said["outcome"], epoch=said["epoch"],
        number=said["number"], detail=detail,
    )  # fmt: skip


def _moved(connection: Connection, acks: Sequence[tuple[Node, wire.Letter]], floors: Sequence[Any],
           known: set[Number]) -> list[dict[str, int]]:  # fmt: skip
    """The nodes whose floor moves with these, and how far.

    All numbers of its epoch up to the floor are stored, and the node may forget them. `known` are numbers that were
    stored before, of these and of those that follow on them.
    """
    new: dict[tuple[int, int | None], set[int]] = {}
    for node, ack in acks:
        new.setdefault((node.id, ack["epoch"]), set()).add(ack["number"])
    rows = [(row, new.get((row.node_id, row.epoch), set())) for row in floors if row.epoch is not None]
    moved = []
    for row, its in rows:
        floor = _floor(row.acked, its)
        # Nearly always nothing stands above: numbers come in order.
        if floor == row.acked or (row.node_id, row.epoch, floor + 1) in known:
            floor = _floor(floor, its | _above(connection, row.node_id, row.epoch, floor))
        if floor != row.acked:
            moved.append({"node_id": row.node_id, "acked": floor})
    return moved


def _above(connection: Connection, node_id: int, epoch: int, floor: int) -> set[int | None]:
    """The numbers above `floor` that are stored. None unless the next one is."""
    which = (Event.node_id == node_id, Event.epoch == epoch, Event.number > floor)
    if not connection.execute(select(Event.id).where(*which[:2], Event.number == floor + 1)).first():
        return set()
    return set(connection.execute(select(Event.number).where(*which)).scalars())


@cache
def _floors(dialect: str) -> Reading:
    which = together.among(dialect, NodeStatus.node_id)
    return select(NodeStatus.node_id, NodeStatus.epoch, NodeStatus.acked).where(which)


def _floor(floor: int, numbers: Collection[int | None]) -> int:
    """The last of the numbers that follow on `floor` without a gap."""
    while floor + 1 in numbers:
        floor += 1
    return floor


def _retrying(connection: Connection, acks: Sequence[tuple[Node, wire.Letter]], placed: Placed,
              now: datetime) -> None:  # fmt: skip
    """A node that tries again by itself says so; nothing is done or counted."""
    for node, ack in acks:
        row = placed.get((ack["id"], node.id))
        if ack["outcome"] == "retrying" and row and row.done < ack["generation"] <= row.wanted:
            connection.execute(
                update(Placement)
                .where(Placement.resource_id == ack["id"], Placement.node_id == node.id)
                .values(reason=f"trying again: {ack['reason'][: wire.MAX_TEXT]}", changed_at=now)
            )


def _changes(acks: Sequence[tuple[Node, wire.Letter]], placed: Placed,
             epochs: Mapping[int, int | None]) -> tuple[list[Change], list[Change]]:  # fmt: skip
    """What crosses a generation, and what sets an outcome (the same, and a later word on an equal generation)."""
    newest: dict[tuple[int, int], Change] = {}
    # Of two words on one generation the later one counts: that of the worker's present life, else the higher number.
    order = sorted(acks, key=lambda each: (each[1]["generation"], each[1]["epoch"] == epochs.get(each[0].id),
                                           each[1]["number"]))  # fmt: skip
    for node, ack in order:
        row = placed.get((ack["id"], node.id))
        if row is None or ack["outcome"] not in OUTCOMES or not row.done <= ack["generation"] <= row.wanted:
            continue
        if ack["generation"] == row.done and not _is_later(ack, row, epochs.get(node.id)):
            continue
        newest[(ack["id"], node.id)] = Change(ack["id"], node.id, row.done, ack["generation"], ack)
    outcomes = [newest[key] for key in sorted(newest)]
    return [change for change in outcomes if change.now > change.was], outcomes


def _is_later(ack: wire.Letter, row: Any, epoch: int | None) -> bool:
    if ack["epoch"] == row.ack_epoch:
        return bool(ack["number"] > row.ack_number)
    return bool(ack["epoch"] == epoch)


def _raise(connection: Connection, changes: Sequence[Change], placed: Placed, now: datetime) -> None:
    rows = []
    for change in changes:
        ack, applied = change.ack, placed[(change.resource_id, change.node_id)].applied
        outcome = OUTCOMES[ack["outcome"]]
        rows.append({
            "resource_id": change.resource_id, "node_id": change.node_id, "done": change.now, "outcome": int(outcome),
            "applied": max(applied, change.now) if outcome == states.Outcome.APPLIED else applied,
            "reason": ack["reason"][: wire.MAX_TEXT] or None, "difference": change.difference,
            "ack_epoch": ack["epoch"], "ack_number": ack["number"], "changed_at": now,
        })  # fmt: skip
    if rows:
        together.change(connection, Placement, rows, ("resource_id", "node_id"), is_locked=True)
        digests.changed(connection, [_change(change, placed) for change in changes])


def _change(change: Change, placed: Placed) -> digests.Change:
    row, outcome = placed[(change.resource_id, change.node_id)], OUTCOMES[change.ack["outcome"]]
    return (change.node_id, change.resource_id, digests.shown(row.wanted, row.done, row.outcome),
            digests.shown(row.wanted, change.now, int(outcome)))  # fmt: skip
