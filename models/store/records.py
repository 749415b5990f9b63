"""The tables of what has happened: events with their place in the chain, and letters that nobody could take in."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from .tables import Base

#: True of every event, and said by queries that go by time alone; no filter implies it. To all others this index is not
#: offered: a planner would read all of the time in it to find what is rare.
BY_TIME = "id <> 0"


class Event(Base):
    """One row of the audit store: who, what, when, from where, which node, what changed. Never updated or deleted."""

    __tablename__ = "event"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(80))
    actor: Mapped[str] = mapped_column(String(200))
    noun: Mapped[str | None] = mapped_column(String(40))
    name: Mapped[str | None] = mapped_column(String(253))
    resource_id: Mapped[int | None]
    node: Mapped[str | None] = mapped_column(String(40))
    node_id: Mapped[int | None]
    job_id: Mapped[int | None]
    outcome: Mapped[str | None] = mapped_column(String(20))
    epoch: Mapped[int | None]
    number: Mapped[int | None]
    #: Canonical JSON of the whole event: what is sealed.
    body: Mapped[bytes]
    __table_args__ = (
        Index("uq_event_acknowledgement", "node_id", "epoch", "number", unique=True),
        # Each ends in the time: what it finds is in the order in which it is shown (producer/event_search.py).
        Index("ix_event_at", "at", sqlite_where=sql(BY_TIME), postgresql_where=sql(BY_TIME)),
        Index("ix_event_noun", "noun", "at"),
        Index("ix_event_resource", "noun", "name", "at"),
        Index("ix_event_node", "node", "at"),
        Index("ix_event_actor", "actor", "at"),
        Index("ix_event_kind", "kind", "outcome", "at"),
        Index("ix_event_job", "job_id", "at"),
        {"sqlite_autoincrement": True},
    )


class Seal(Base):
    """The place of an event in the chain, and the hash over everything up to it."""

    __tablename__ = "seal"
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    event_id: Mapped[int] = mapped_column(ForeignKey("event.id"), unique=True)
    hash: Mapped[str] = mapped_column(String(64))


class Dead(Base):
    """A message that nobody could take in, out of the dead-letter queue."""

    __tablename__ = "dead"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    #: Where it died, and why: the broker's or the consumer's words.
    queue: Mapped[str] = mapped_column(String(255))
    why: Mapped[str]
    routing_key: Mapped[str] = mapped_column(String(255))
    #: The broker user that sent it, checked by the broker; empty if it did not say.
    user: Mapped[str] = mapped_column(String(255))
    message_id: Mapped[str] = mapped_column(String(255))
    #: Cut at the size that may travel; `size_bytes` is what arrived. Empty once it is dropped.
    body: Mapped[bytes]
    size_bytes: Mapped[int]
    #: kept, retrying, retried or dropped; since when and by whom.
    state: Mapped[str] = mapped_column(String(20), default="kept", server_default="kept")
    state_at: Mapped[datetime]
    actor: Mapped[str | None] = mapped_column(String(200))
    __table_args__ = (Index("ix_dead_state", "state", "id"), {"sqlite_autoincrement": True})
