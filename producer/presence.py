"""Which nodes are there: kept in memory by the audit process, written when a state changes or each half minute."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, select, update

from ..models import states, wire
from ..models.canonical import canonical
from ..models.store import NodeStatus, Placement, digests
from . import resync, stages
from .events import Happened, record
from .membership import Node, nodes

#: A node that does not change is written this often, in seconds.
WRITE_SECONDS = 30.0


@dataclass
class Heard:
    """What is remembered of one node between two beats."""

    heard_at: float
    written_at: float = -1e9
    state: str = ""
    #: The digest that differed from the store's at the last beat; a second one alike is no coincidence.
    suspicious: str = ""
    #: The digest that was found equal to the store's.
    equal: str = ""
    epoch: int = 0
    #: Daemons that another hand has broken there, as last said.
    blocked: dict[str, str] = field(default_factory=dict)


@dataclass
class Presence:
    """See the module."""

    offline_after_seconds: float
    heard: dict[int, Heard] = field(default_factory=dict)
    looked_at: float = field(default_factory=time.monotonic)

    def hear(self, connection: Connection, letters: Iterable[tuple[Node, wire.Letter]], now: datetime) -> None:
        """Takes in beats and hellos of one batch, the newest of each node."""
        newest = {node.id: (node, letter) for node, letter in letters}
        for node, letter in newest.values():
            heard = self.heard.setdefault(node.id, Heard(time.monotonic()))
            heard.heard_at = time.monotonic()
            if letter["epoch"] != heard.epoch:
                self._new_epoch(connection, node, letter, heard)
            if letter.form == "beat":
                self._beat(connection, node, letter, heard, now)

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
        body = canonical({key: value for key, value in beat.body.items() if key not in ("form", "node")})
        news = beat["blocked"] != heard.blocked
        heard.blocked = dict(beat["blocked"])
        self._write(connection, node, state, heard, now, body, news=news)
        if beat["synced"]:
            self._compare(connection, node, beat["root"], heard, now)

    def _compare(self, connection: Connection, node: Node, root: str, heard: Heard, now: datetime) -> None:
        """A node that differs while nothing is open there is asked to say hello."""
        is_open = (Placement.node_id == node.id, Placement.done < Placement.wanted)
        if root == heard.equal or connection.execute(select(Placement.resource_id).where(*is_open).limit(1)).first():
            heard.suspicious = ""
            return
        if root != heard.suspicious:
            # The beat may be older than the acknowledgement that was written just now.
            heard.suspicious = root
            return
        heard.suspicious = ""
        if digests.read(connection, node.id).root() == root:
            heard.equal = root
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
