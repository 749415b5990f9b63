"""What nodes acknowledge becomes events, placements raised and jobs counted: one transaction per batch.

Two acknowledgements of one batch may be about the same placement; the batch is collapsed to the newest of each first.
Identity is the broker user of the sender, which the broker has checked, never a routing key or a field of the body.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, insert, select, tuple_, update

from ..broker_config import routing
from ..broker_config.consumer import Delivery
from ..models import states, wire
from ..models.canonical import canonical
from ..models.crash import crash_point
from ..models.metrics import SIZES, Tally
from ..models.moment import now as time_now
from ..models.store import Event, Hello, Job, NodeStatus, Placement, Target, bells, digests, retried, writing
from . import claims, metrics, stages
from . import dead as dead_letters
from .events import Happened, record
from .membership import Node, nodes
from .presence import Presence

#: What the audit process takes in: letters of nodes, their beats, and what nobody else could take in.
QUEUES = (routing.AUDIT_QUEUE, routing.BEAT_QUEUE, routing.DEAD_QUEUE)
#: Placement rows by (resource id, node id).
Placed = dict[tuple[int, int], Any]
#: Numbers of one node that are looked at together, to find how far there is no gap.
COUNTED_AT_ONCE = 200
OUTCOMES = {"applied": states.Outcome.APPLIED, "failed": states.Outcome.FAILED}


@dataclass(frozen=True)
class Change:
    """A placement that an acknowledgement has moved: it was done up to `was`, now up to `now`."""

    resource_id: int
    node_id: int
    was: int
    now: int
    ack: wire.Letter


class Audit:
    """Stores batches of what nodes say. `store` is durable when it returns."""

    def __init__(self, engine: Engine, presence: Presence) -> None:
        self._engine = engine
        self._presence = presence
        self.tally = Tally()

    def store(self, batch: Sequence[Delivery]) -> list[Delivery]:
        """Writes a batch; gives the deliveries that belong in the dead-letter queue."""
        letters, dead = [], []
        died = [delivery for delivery in batch if delivery.queue == routing.DEAD_QUEUE]
        for delivery in batch:
            if delivery.queue == routing.DEAD_QUEUE:
                continue
            try:
                letters.append((delivery, wire.decode(delivery.body)))
            except wire.Undecodable as error:
                dead.append((delivery, str(error)))
        began = time.monotonic()
        refused = retried(lambda: self._write(letters, dead, died, time_now()))
        crash_point("audit.committed")
        self.tally.observe(metrics.WRITTEN, time.monotonic() - began)
        self.tally.observe(metrics.TAKEN_TOGETHER, len(batch), bounds=SIZES)
        self.tally.count(metrics.ACKNOWLEDGED, sum(letter.form == "ack" for _, letter in letters))
        self.tally.count(metrics.REFUSED, len(refused))
        return refused

    def _write(self, letters: Sequence[tuple[Delivery, wire.Letter]], undecodable: Sequence[tuple[Delivery, str]],
               died: Sequence[Delivery], now: datetime) -> list[Delivery]:  # fmt: skip
        """One transaction; gives what was refused."""
        dead = list(undecodable)
        with self._presence.unless_it_fails(), writing(self._engine) as connection:
            alive = {node.name: node for node in nodes(connection).values()}
            good = []
            for delivery, letter in letters:
                node = alive.get(letter.node)
                if node is None or delivery.user != routing.node_user(letter.node):
                    dead.append((delivery, f"says it is {letter.node!r}, but user {delivery.user!r} sent it"))
                else:
                    good.append((node, letter))
            _refuse(connection, dead, now)
            dead_letters.keep(connection, died, now)
            _hellos(connection, good, now)
            self._presence.hear(connection, [(n, each) for n, each in good if each.form in ("beat", "hello")], now)
            _acknowledgements(connection, [(n, each) for n, each in good if each.form == "ack"], now)
            crash_point("audit.written")
        return [delivery for delivery, _ in dead]


def _refuse(connection: Connection, dead: Iterable[tuple[Delivery, str]], now: datetime) -> None:
    record(
        connection,
        [Happened("bus.refuse", delivery.user or "nobody", now, outcome="refused",
                  detail={"queue": delivery.queue, "key": delivery.routing_key, "why": why[:500]})
         for delivery, why in dead],
    )  # fmt: skip


def _hellos(connection: Connection, letters: Iterable[tuple[Node, wire.Letter]], now: datetime) -> None:
    rows = [
        {"node_id": node.id, "body": canonical(dict(letter.body)), "arrived_at": now}
        for node, letter in letters
        if letter.form == "hello"
    ]
    if rows:
        connection.execute(insert(Hello), rows)
        bells.ring(connection, bells.RELAY)


def _acknowledgements(connection: Connection, acks: Sequence[tuple[Node, wire.Letter]], now: datetime) -> None:
    new = _new_ones(connection, acks)
    if not new:
        return
    placed = _placements(connection, new)
    owners = _jobs(connection, new)
    record(
        connection, [_event(node, ack, placed, owners.get((ack["id"], ack["generation"])), now) for node, ack in new]
    )
    _count_numbers(connection, new)
    _retrying(connection, new, placed, now)
    changes, outcomes = _changes(connection, new, placed)
    _raise(connection, outcomes, placed, now)
    jobs = _count(connection, changes, now)
    claims.release(connection, {change.resource_id for change in outcomes})
    stages.advance(connection, jobs, now)
    bells.ring(connection, bells.JOBS)


def _new_ones(connection: Connection, acks: Sequence[tuple[Node, wire.Letter]]) -> list[tuple[Node, wire.Letter]]:
    """Those whose number is not in the audit store yet, each once."""
    unique = {(node.id, ack["epoch"], ack["number"]): (node, ack) for node, ack in acks}
    key = tuple_(Event.node_id, Event.epoch, Event.number)
    known = set()
    keys = list(unique)
    for at in range(0, len(keys), 300):
        rows = connection.execute(select(Event.node_id, Event.epoch, Event.number).where(key.in_(keys[at : at + 300])))
        known |= {tuple(row) for row in rows}
    return [unique[each] for each in keys if each not in known]


def _placements(connection: Connection, acks: Sequence[tuple[Node, wire.Letter]]) -> Placed:
    keys = sorted({(ack["id"], node.id) for node, ack in acks})
    found: Placed = {}
    for at in range(0, len(keys), 300):
        statement = (
            select(Placement)
            .where(tuple_(Placement.resource_id, Placement.node_id).in_(keys[at : at + 300]))
            .order_by(Placement.resource_id, Placement.node_id)
            .with_for_update()
        )
        found |= {(row.resource_id, row.node_id): row for row in connection.execute(statement)}
    return found


def _jobs(connection: Connection, acks: Sequence[tuple[Node, wire.Letter]]) -> dict[tuple[int, int], int]:
    """The job of each (resource, generation) that is acknowledged: by the store's own word, not the node's."""
    keys = sorted({(ack["id"], ack["generation"]) for _, ack in acks})
    found: dict[tuple[int, int], int] = {}
    for at in range(0, len(keys), 300):
        which = tuple_(Job.resource_id, Job.generation).in_(keys[at : at + 300])
        found |= {(row.resource_id, row.generation): row.id for row in connection.execute(select(Job).where(which))}
    return found


def _event(node: Node, ack: wire.Letter, placed: Placed, job_id: int | None, now: datetime) -> Happened:
    row = placed.get((ack["id"], node.id))
    strange = row is None or ack["generation"] > row.wanted
    detail = {
        "generation": ack["generation"], "reason": ack["reason"][: wire.MAX_TEXT],
        "difference": _shortened(ack["difference"]),
        "seconds": ack["seconds"], "at": datetime.fromtimestamp(ack["at"], UTC).isoformat(),
    }  # fmt: skip
    return Happened(
        "acknowledgement", routing.node_user(node.name), now, ack["noun"], ack["name"], ack["id"], node.name, node.id,
        job_id=job_id, outcome="strange" if strange else ack["outcome"], epoch=ack["epoch"], number=ack["number"],
        detail=detail,
    )  # fmt: skip


def _count_numbers(connection: Connection, acks: Sequence[tuple[Node, wire.Letter]]) -> None:
    """Moves each node's floor: all numbers of its epoch up to there are stored, and the node may forget them."""
    for node_id in {node.id for node, _ in acks}:
        status = connection.execute(
            select(NodeStatus.epoch, NodeStatus.acked).where(NodeStatus.node_id == node_id)
        ).one()
        floor = _gapless(connection, node_id, status.epoch, status.acked)
        if floor != status.acked:
            connection.execute(update(NodeStatus).where(NodeStatus.node_id == node_id).values(acked=floor))


def _gapless(connection: Connection, node_id: int, epoch: int, floor: int) -> int:
    """The number up to which none is missing. Reads little while one is: what stands above a gap may be a lot."""
    while True:
        above = connection.execute(
            select(Event.number)
            .where(Event.node_id == node_id, Event.epoch == epoch, Event.number > floor)
            .order_by(Event.number)
            .limit(COUNTED_AT_ONCE)
        ).scalars().all()  # fmt: skip
        run = next((at for at, number in enumerate(above) if number != floor + 1 + at), len(above))
        floor += run
        if run < COUNTED_AT_ONCE:
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


def _changes(connection: Connection, acks: Sequence[tuple[Node, wire.Letter]],
             placed: Placed) -> tuple[list[Change], list[Change]]:  # fmt: skip
    """What crosses a generation, and what sets an outcome (the same, and a later word on an equal generation)."""
    epochs = {row.node_id: row.epoch for row in connection.execute(select(NodeStatus.node_id, NodeStatus.epoch))}
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


_RAISE = (
    update(Placement)
    .where(Placement.resource_id == bindparam("r"), Placement.node_id == bindparam("n"))
    .values(done=bindparam("g"), applied=bindparam("a"), outcome=bindparam("o"), reason=bindparam("why"),
            difference=bindparam("d"), ack_epoch=bindparam("e"), ack_number=bindparam("num"),
            changed_at=bindparam("at"))
)  # fmt: skip


def _raise(connection: Connection, changes: Sequence[Change], placed: Placed, now: datetime) -> None:
    rows = []
    for change in changes:
        ack, applied = change.ack, placed[(change.resource_id, change.node_id)].applied
        outcome = OUTCOMES[ack["outcome"]]
        rows.append({
            "r": change.resource_id, "n": change.node_id, "g": change.now, "o": int(outcome),
            "a": max(applied, change.now) if outcome == states.Outcome.APPLIED else applied,
            "why": ack["reason"][: wire.MAX_TEXT] or None, "d": canonical(_shortened(ack["difference"])),
            "e": ack["epoch"], "num": ack["number"], "at": now,
        })  # fmt: skip
    if rows:
        connection.execute(_RAISE, rows)
        digests.changed(connection, [_change(change, placed) for change in changes])


def _change(change: Change, placed: Placed) -> digests.Change:
    row, outcome = placed[(change.resource_id, change.node_id)], OUTCOMES[change.ack["outcome"]]
    return (change.node_id, change.resource_id, digests.shown(row.wanted, row.done, row.outcome),
            digests.shown(row.wanted, change.now, int(outcome)))  # fmt: skip


def _count(connection: Connection, changes: Sequence[Change], now: datetime) -> set[int]:
    """Counts each open target once, when its job's generation is crossed. Gives the jobs concerned."""
    by_resource: dict[int, list[Change]] = {}
    for change in changes:
        by_resource.setdefault(change.resource_id, []).append(change)
    jobs = connection.execute(
        select(Job.id, Job.kind, Job.resource_id, Job.generation, stages.is_going_on().label("is_going_on"))
        .where(Job.resource_id.in_(by_resource), Job.generation > min((c.was for c in changes), default=0))
        .order_by(Job.id)
    ).all()  # fmt: skip
    counted: set[int] = set()
    for job in jobs:
        for change in by_resource[job.resource_id]:
            if job.is_going_on and change.was < job.generation <= change.now:
                newer = next((other for other in jobs if job.resource_id == other.resource_id
                              and job.generation < other.generation <= change.now), None)  # fmt: skip
                _count_one(connection, job.id, change, newer, now)
                counted.add(job.id)
    return counted


def _count_one(connection: Connection, job_id: int, change: Change, newer: Any, now: datetime) -> None:
    """A generation crossed by that of a `newer` job was never seen to apply; else the job takes the outcome."""
    ack = change.ack
    values: dict[str, Any] = {"ended_at": now}
    if newer:
        is_cancel = newer.kind.endswith(".cancel")
        values["outcome"] = states.Target.CANCELLED if is_cancel else states.Target.SUPERSEDED
        values["reason"] = f"job {newer.id} came first"
    else:
        values |= {"outcome": states.Target(ack["outcome"]), "reason": ack["reason"][: wire.MAX_TEXT] or None,
                   "difference": canonical(_shortened(ack["difference"])),
                   "seconds": canonical(ack["seconds"])}  # fmt: skip
    connection.execute(
        update(Target)
        .where(Target.job_id == job_id, Target.node_id == change.node_id, Target.outcome.is_(None))
        .values(**values)
    )


def _shortened(difference: Mapping[str, str]) -> dict[str, str]:
    return {key: text[: wire.MAX_WORD * 5] for key, text in difference.items()}
