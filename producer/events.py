"""Every change leaves an event, written in the same transaction by whoever acts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from ..models.canonical import canonical
from ..models.store import Event, together

#: Columns by which events are found; each stands in the sealed body too, so that an edit of either shows.
INDEXED = ("kind", "actor", "noun", "name", "resource_id", "node", "node_id", "job_id", "outcome", "epoch", "number")


@dataclass(frozen=True)
class Happened:
    """Something that happened. `detail` holds no secret: a password is only "changed"."""

    kind: str
    actor: str
    at: datetime
    noun: str | None = None
    name: str | None = None
    resource_id: int | None = None
    node: str | None = None
    node_id: int | None = None
    job_id: int | None = None
    outcome: str | None = None
    epoch: int | None = None
    number: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The event's columns, the sealed bytes among them."""
        columns = {name: getattr(self, name) for name in INDEXED}
        return columns | {
            "at": self.at,
            "body": canonical(columns | {"at": self.at.isoformat(), "detail": self.detail}),
        }


def record(connection: Connection, happened: Iterable[Happened]) -> None:
    """Adds events to the audit store, in this order."""
    rows = [each.row() for each in happened]
    together.add(connection, Event, rows)
