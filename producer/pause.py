"""The brake that a person pulls: nothing is sent to a paused node, and its worker runs no round before it is resumed.

The table `pause` is the truth. A letter tells the worker, which keeps it; the welcome says it too, and a beat that
says otherwise is answered with the letter again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from ..models import names, wire
from ..models.errors import Conflict, NotFound
from ..models.store import Action, Pause, bells
from .events import Happened, record
from .membership import Node, nodes

#: Stands for every node, also for those that join later.
EVERY = 0
FORM = "pause"


def paused(connection: Connection) -> frozenset[int]:
    """The ids of paused nodes; with EVERY among them, all are."""
    return frozenset(connection.execute(_PAUSED).scalars())


_PAUSED = select(Pause.node_id)


def is_paused(node_id: int, ids: Collection[int]) -> bool:
    """Whether a node is among these, by its own id or by EVERY."""
    return node_id in ids or EVERY in ids


def pause(connection: Connection, name: str | None, actor: str, reason: str | None, now: datetime) -> list[str]:
    """Pauses a node, or every node. Gives the names of those told. Raises NotFound, or Conflict if it is paused."""
    node = _node(connection, name)
    row = connection.execute(select(Pause).where(Pause.node_id == (node.id if node else EVERY))).one_or_none()
    if row is not None:
        about = f"node {name}" if name else "every node"
        raise Conflict(f"{about} is paused already, by {row.actor}", hint=_resume(name))
    connection.execute(insert(Pause).values(node_id=node.id if node else EVERY, actor=actor, reason=reason, at=now))
    return _tell(connection, node, "node.pause", actor, reason, now)


def resume(connection: Connection, name: str | None, actor: str, reason: str | None, now: datetime) -> list[str]:
    """Lets a node go on, or every node, also those paused by name. Raises NotFound, or Conflict if it is not paused."""
    node = _node(connection, name)
    held = paused(connection)
    if node and node.id not in held:
        hint = _resume(None) if EVERY in held else f"onehost node list; onehost node pause {name}"
        raise Conflict(f"node {name} is not paused by its name", hint=hint)
    if not held:
        raise Conflict("no node is paused", hint="onehost status")
    connection.execute(delete(Pause).where(Pause.node_id == node.id) if node else delete(Pause))
    return _tell(connection, node, "node.resume", actor, reason, now)


def _resume(name: str | None) -> str:
    return f"onehost node resume {name}" if name else "onehost resume --all"


def _node(connection: Connection, name: str | None) -> Node | None:
    if name is None:
        return None
    name = names.node(name)
    found = next((node for node in nodes(connection).values() if node.name == name), None)
    if found is None:
        raise NotFound(f"no such node: {name}", hint="onehost node list")
    return found


def _tell(connection: Connection, node: Node | None, kind: str, actor: str, reason: str | None,
          now: datetime) -> list[str]:  # fmt: skip
    told = [node] if node else list(nodes(connection).values())
    happened = Happened(kind, actor, now, outcome="applied", detail={"reason": reason, "all": node is None})
    if node:
        happened = replace(happened, noun="node", name=node.name, resource_id=node.id, node=node.name, node_id=node.id)
    record(connection, [happened])
    held = paused(connection)
    for each in told:
        send(connection, each, is_paused(each.id, held), now)
    bells.ring(connection, bells.RELAY)
    return [each.name for each in told]


def send(connection: Connection, node: Node, is_pulled: bool, now: datetime) -> None:
    """Tells a node's worker how its brake stands, instead of whatever still waits to tell it so."""
    connection.execute(delete(Action).where(Action.node_id == node.id, Action.form == FORM))
    body = wire.encode(form=FORM, node=node.name, is_paused=is_pulled)
    connection.execute(insert(Action).values(node_id=node.id, form=FORM, body=body, created_at=now))
    bells.ring(connection, bells.RELAY)
