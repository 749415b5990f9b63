"""Which nodes are there: kept in memory by the audit process, written when a state changes or each half minute."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from ..broker_config import routing
from ..models import states, wire
from ..models.canonical import canonical
from ..models.store import NodeStatus, Placement
from . import orphans, pause, resync, stages
from .events import Happened, record
from .membership import Node, nodes

#: A node that does not change is written this often, in seconds.
WRITE_SECONDS = 30.0
#: Beats by which a node's clock is judged.
SKEWS = 5
#: A node whose brake stands otherwise than it should is told so this often, in seconds.
BRAKE_SECONDS = 2.0
#: Acknowledgements of which none has arrived for this long, in seconds, are lost: the broker was wiped or purged.
LOST_SECONDS = 10.0
#: What of a beat is stored at once when it changes.
NEWS = ("blocked", "paused", "down", "stopped", "drift", "drifted")
#: What is on its way to a node.
LETTERS = "letters"


@dataclass
class Heard:
    """What is remembered of one node between two beats."""

    heard_at: float
    written_at: float = -1e9
    state: str = ""
    #: Digest and last number that differed from the store's at the last beat; a second one alike is no coincidence.
    suspicious: str = ""
    #: Those that were found equal to the store's.
    equal: str = ""
    epoch: int = 0
    #: What a person waits to see of it, as last said: see NEWS.
    news: tuple[Any, ...] | None = None
    #: What of its differences from its ledger was last said and stored.
    drift: dict[str, str] | None = None
    #: How far its clock was ahead of ours at the last beats, in seconds.
    skews: deque[float] = field(default_factory=lambda: deque(maxlen=SKEWS))
    #: Whether its brake holds, as last said, and when it was told that it should stand otherwise.
    paused: bool = False
    braked_at: float = -1e9
    #: What was on its way at the last beat, and since when nothing of it has arrived.
    awaited: str = ""
    awaited_at: float = -1e9

    def awaits(self, on_its_way: str) -> bool:
        """Whether there is sense in waiting for it still. Acknowledgements of which none arrives are lost."""
        if on_its_way != self.awaited:
            self.awaited, self.awaited_at = on_its_way, time.monotonic()
        is_lost = on_its_way != LETTERS and time.monotonic() - self.awaited_at > LOST_SECONDS
        return bool(on_its_way) and not is_lost


@dataclass
class Presence:
    """See the module."""

    offline_after_seconds: float
    heard: dict[int, Heard] = field(default_factory=dict)
    looked_at: float = field(default_factory=time.monotonic)

    @contextmanager
    def unless_it_fails(self) -> Iterator[None]:
        """Around a transaction: if it fails, nothing is remembered as written or compared in it."""
        try:
            yield
        except BaseException:
            for node_id, heard in self.heard.items():
                self.heard[node_id] = Heard(heard.heard_at)
            raise

    def hear(self, connection: Connection, letters: Iterable[tuple[Node, wire.Letter]], now: datetime) -> None:
        """Takes in beats and hellos of one batch, the newest of each node."""
        newest = {node.id: (node, letter) for node, letter in letters}
        held = pause.paused(connection) if newest else frozenset()
        strangers = resync.strangers(connection) if newest else frozenset()
        for node, letter in newest.values():
            heard = self.heard.setdefault(node.id, Heard(time.monotonic()))
            heard.heard_at = time.monotonic()
            if letter["epoch"] != heard.epoch:
                self._new_epoch(connection, node, letter, heard)
            if letter.form == "beat":
                self._beat(connection, node, letter, heard, now)
                if letter["synced"] and node.id in strangers:
                    # Synced with another life of the store, or when the node was another one of this name.
                    resync.hail(connection, node.id, node.name, now)
                self._brake(connection, node, letter, heard, pause.is_paused(node.id, held), now)

    def _new_epoch(self, connection: Connection, node: Node, letter: wire.Letter, heard: Heard) -> None:
        """The worker was started again: its acknowledgements count from one."""
        heard.epoch = letter["epoch"]
        connection.execute(
            update(NodeStatus)
            .where(NodeStatus.node_id == node.id, NodeStatus.epoch.is_distinct_from(letter["epoch"]))
            .values(epoch=letter["epoch"], acked=0)
        )

    def _beat(self, connection: Connection, node: Node, beat: wire.Letter, heard: Heard, now: datetime) -> None:
        state = states.NodeState.ONLINE if beat["synced"] else states.NodeState.UNSYNCED
        heard.skews.append(beat["at"] - now.timestamp())
        said = {key: value for key, value in beat.body.items() if key not in ("form", "node")}
        # A beat that was long under way looks like a slow clock; of several, the quickest says most.
        body = canonical(said | {"skew_seconds": round(max(heard.skews), 1)})
        said_now = tuple(beat[key] for key in NEWS)
        news, heard.news, heard.paused = said_now != heard.news, said_now, beat["paused"]
        if dict(beat["drift"]) != heard.drift:
            self._drift(connection, node, beat, heard, now)
        self._write(connection, node, state, heard, now, body, news=news)
        if beat["synced"]:
            self._compare(connection, node, beat, heard, now)

    def _drift(self, connection: Connection, node: Node, beat: wire.Letter, heard: Heard, now: datetime) -> None:
        """An event when another hand is noticed there, or differs anew, and one when nothing differs any more."""
        before = connection.execute(select(NodeStatus.beat).where(NodeStatus.node_id == node.id)).scalar()
        was = json.loads(before).get("drift", {}) if before else {}
        heard.drift = dict(beat["drift"])
        if was != heard.drift:
            about = ("node", node.name, node.id, node.name, node.id)
            detail = {"found": heard.drift, "count": beat["drifted"]} if heard.drift else {"was": was}
            record(connection, [Happened("node.drift", routing.node_user(node.name), now, *about,
                                         outcome="found" if heard.drift else "cleared", detail=detail)])  # fmt: skip

    def _brake(self, connection: Connection, node: Node, beat: wire.Letter, heard: Heard, is_pulled: bool,
               now: datetime) -> None:  # fmt: skip
        """Tells a worker again how its brake stands, if it says otherwise: it missed the letter."""
        if beat["paused"] != is_pulled and time.monotonic() - heard.braked_at > BRAKE_SECONDS:
            heard.braked_at = time.monotonic()
            pause.send(connection, node, is_pulled, now)

    def _compare(self, connection: Connection, node: Node, beat: wire.Letter, heard: Heard, now: datetime) -> None:
        """A node that differs while nothing is on its way to it or from it is asked to say hello.

        The same for one whose acknowledgements have a gap here: it keeps them until the gap is filled or closed.
        """
        said = f"{beat['root']} {beat['last']}"
        if said == heard.equal or heard.awaits(_on_its_way(connection, node, beat)):
            heard.suspicious = ""
            return
        if said != heard.suspicious:
            # The beat may be older than the acknowledgement that was written just now.
            heard.suspicious = said
            return
        heard.suspicious = ""
        if orphans.expected(connection, node.id).root() == beat["root"] and not _has_gap(connection, node, beat):
            heard.equal = said
        else:
            resync.hail(connection, node.id, node.name, now)

    def _write(self, connection: Connection, node: Node, state: str, heard: Heard, now: datetime,
               beat: bytes | None = None, *, news: bool = False) -> None:  # fmt: skip
        changed = news or state != heard.state
        if not changed and time.monotonic() - heard.written_at < WRITE_SECONDS:
            return
        values = {"state": state} | ({"beat": beat, "seen_at": now} if beat is not None else {})
        before = connection.execute(select(NodeStatus.state).where(NodeStatus.node_id == node.id)).scalar()
        if before != state:
            values["state_at"] = now
        connection.execute(update(NodeStatus).where(NodeStatus.node_id == node.id).values(**values))
        heard.state, heard.written_at = state, time.monotonic()
        # Compared anew now and then: a node that is beyond the store shows nothing of what the store changes.
        heard.equal = ""
        if before != state:
            about = ("node", node.name, node.id, node.name, node.id)
            record(connection, [Happened(f"node.{state}", "onehost", now, *about, detail={"before": before})])
            stages.on_node_change(connection, node.id, now)

    def look(self, connection: Connection, now: datetime) -> None:
        """Marks nodes offline that have been silent for too long. Called each second or so."""
        self.looked_at = time.monotonic()
        alive = nodes(connection)
        for node in alive.values():
            heard = self.heard.setdefault(node.id, Heard(time.monotonic()))
            if (
                time.monotonic() - heard.heard_at > self.offline_after_seconds
                and heard.state != states.NodeState.OFFLINE
            ):
                self._write(connection, node, states.NodeState.OFFLINE, heard, now)
        for gone in self.heard.keys() - alive.keys():
            del self.heard[gone]

    def is_due(self) -> bool:
        """Whether `look` may find somebody silent; saves a transaction each second.

        Now and then in any case: who has not been heard of since this process began is not in memory yet.
        """
        silent = time.monotonic() - self.offline_after_seconds
        if self.looked_at < time.monotonic() - self.offline_after_seconds / 4:
            return True
        return any(h.heard_at < silent and h.state != states.NodeState.OFFLINE for h in list(self.heard.values()))


def _has_gap(connection: Connection, node: Node, beat: wire.Letter) -> bool:
    """Whether a number that the node gave out in its present life is missing here."""
    which = (NodeStatus.node_id == node.id, NodeStatus.epoch == beat["epoch"], NodeStatus.acked < beat["last"])
    return connection.execute(select(NodeStatus.node_id).where(*which)).first() is not None


def _on_its_way(connection: Connection, node: Node, beat: wire.Letter) -> str:
    """What of the open things there may still be sent or acknowledged; other words as soon as one more has arrived.

    Nothing is if all was sent and every number that the node gave out has arrived: of what is open then, it knows
    nothing or holds a generation beyond, as after a restore of the store.
    """
    which = (Placement.node_id == node.id, Placement.done < Placement.wanted)
    if connection.execute(select(Placement.resource_id).where(*which).limit(1)).first() is None:
        return ""
    unsent = connection.execute(select(Placement.resource_id).where(*which, Placement.sent < Placement.wanted).limit(1))
    if unsent.first():
        return LETTERS
    status = connection.execute(
        select(NodeStatus.epoch, NodeStatus.acked).where(NodeStatus.node_id == node.id)
    ).one_or_none()
    if status is None or status.epoch != beat["epoch"]:
        return LETTERS
    return f"acknowledgements after {status.acked}" if status.acked < beat["last"] else ""
