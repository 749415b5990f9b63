"""The manager's tables (design: the store). Written and read as rows; the classes only name the columns."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Text
from sqlalchemy import text as sql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ..moment import Moment

#: SQLite only counts up by itself in a column of type INTEGER.
Number = BigInteger().with_variant(Integer, "sqlite")


NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Metadata of the store, with named constraints so that SQLite can be migrated."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: Moment, int: Number, bytes: LargeBinary, str: Text}


class Counter(Base):
    """The last number given out of each kind: resource ids, uids, the store's incarnation."""

    __tablename__ = "counter"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[int]


class Resource(Base):
    """A thing onehost keeps. A removed one stays as a row, so that its id never means anything else."""

    __tablename__ = "resource"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    noun: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(253))
    generation: Mapped[int]
    #: Set while the wanted spec is "absent".
    absent: Mapped[bool] = mapped_column(default=False)
    #: The highest earlier id of this noun and name; 0 if it is the first.
    replaces: Mapped[int] = mapped_column(default=0)
    #: The resource it belongs to and is removed with.
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("resource.id"))
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    __table_args__ = (
        Index("ix_resource_living", "noun", "name", unique=True, sqlite_where=sql("absent = 0"),
              postgresql_where=sql("NOT absent")),
        Index("ix_resource_names", "noun", "name", "id"),
        Index("ix_resource_owner", "owner_id", sqlite_where=sql("owner_id IS NOT NULL"),
              postgresql_where=sql("owner_id IS NOT NULL")),
    )  # fmt: skip


class Revision(Base):
    """One (generation, spec) of a resource. `payload` is canonical JSON, NULL when absent."""

    __tablename__ = "revision"
    resource_id: Mapped[int] = mapped_column(ForeignKey("resource.id"), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    payload: Mapped[bytes | None]
    #: Secret fields as JSON, in the newest revision only: no revert brings an old password back.
    secrets: Mapped[bytes | None]
    created_at: Mapped[datetime]


class Claim(Base):
    """A name or number that one resource alone may hold."""

    __tablename__ = "claim"
    kind: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[str] = mapped_column(String(253), primary_key=True)
    resource_id: Mapped[int] = mapped_column(ForeignKey("resource.id"), index=True)
    #: The generation that dropped it; it is free once that is applied on every placement. NULL while held.
    releasing: Mapped[int | None]
    #: Never released, not even after removal (a uid).
    forever: Mapped[bool] = mapped_column(default=False)


class Placement(Base):
    """One resource on one node: numbers that only rise (`sent` alone may be lowered, by hello)."""

    __tablename__ = "placement"
    resource_id: Mapped[int] = mapped_column(ForeignKey("resource.id"), primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("resource.id"), primary_key=True)
    wanted: Mapped[int]
    sent: Mapped[int] = mapped_column(default=0, server_default="0")
    done: Mapped[int] = mapped_column(default=0, server_default="0")
    applied: Mapped[int] = mapped_column(default=0, server_default="0")
    leaving: Mapped[bool] = mapped_column(default=False, server_default=sql("false"))
    outcome: Mapped[int] = mapped_column(default=0, server_default="0")
    #: Why it failed, is tried again, or cannot be sent.
    reason: Mapped[str | None]
    #: What the node changed for `done`, as JSON.
    difference: Mapped[bytes | None]
    #: Not sent before: it came back unroutable or refused.
    not_before_at: Mapped[datetime | None]
    ack_epoch: Mapped[int | None]
    ack_number: Mapped[int | None]
    changed_at: Mapped[datetime | None]
    __table_args__ = (
        CheckConstraint("done <= wanted AND sent <= wanted", name="numbers"),
        Index("ix_placement_outbox", "node_id", "resource_id", sqlite_where=sql("sent < wanted"),
              postgresql_where=sql("sent < wanted")),
        Index("ix_placement_open", "node_id", "resource_id", sqlite_where=sql("done < wanted"),
              postgresql_where=sql("done < wanted")),
        Index("ix_placement_node", "node_id"),
        {"postgresql_with": {"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.02}},
    )  # fmt: skip


class Job(Base):
    """One wish: what was asked of which resource, by whom, and how it ended."""

    __tablename__ = "job"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(80))
    resource_id: Mapped[int] = mapped_column(ForeignKey("resource.id"))
    noun: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(253))
    generation: Mapped[int]
    actor: Mapped[str] = mapped_column(String(200))
    source: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str | None]
    idempotency_key: Mapped[str | None] = mapped_column(String(200), unique=True)
    #: Hash of the wish, so that a key used again for something else is refused.
    wish: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(20))
    #: The stage that is open.
    stage: Mapped[int]
    #: For each stage, whether the next one waits for all of it: JSON list.
    stages: Mapped[bytes]
    targets: Mapped[int]
    applied: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    #: Targets closed for any other reason.
    closed: Mapped[int] = mapped_column(default=0)
    #: Failed targets after which no further batch is opened; NULL: any number.
    max_fail: Mapped[int | None]
    #: The last stage of a removal is not opened before: until then a cancel undoes all of it. NULL once it is open.
    grace_until_at: Mapped[datetime | None]
    #: It removes or suspends something and was not held: these are what the hold counts.
    destroys: Mapped[bool] = mapped_column(default=False, server_default=sql("false"))
    #: The fields of a held wish as JSON, secrets among them, until it is released or ended.
    held_wish: Mapped[bytes | None]
    #: The job that asked for it: the removal of what its resource belongs to.
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("job.id"))
    submitted_at: Mapped[datetime]
    deadline_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    __table_args__ = (
        Index("ix_job_open", "resource_id", "generation", sqlite_where=sql("ended_at IS NULL"),
              postgresql_where=sql("ended_at IS NULL")),
        Index("ix_job_resource", "resource_id", "id"),
        Index("ix_job_kind", "kind", "id"),
        Index("ix_job_grace", "grace_until_at", sqlite_where=sql("grace_until_at IS NOT NULL"),
              postgresql_where=sql("grace_until_at IS NOT NULL")),
        Index("ix_job_parent", "parent_id", sqlite_where=sql("parent_id IS NOT NULL"),
              postgresql_where=sql("parent_id IS NOT NULL")),
        Index("ix_job_destroys", "actor", "submitted_at", sqlite_where=sql("destroys"),
              postgresql_where=sql("destroys")),
        {"sqlite_autoincrement": True},
    )  # fmt: skip


class Target(Base):
    """A node a job is for. `outcome` NULL: still open; its state is then read from the placement."""

    __tablename__ = "target"
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"), primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("resource.id"), primary_key=True)
    stage: Mapped[int]
    opened_at: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(20))
    reason: Mapped[str | None]
    difference: Mapped[bytes | None]
    #: Seconds of each phase on the node, as JSON.
    seconds: Mapped[bytes | None]
    __table_args__ = (Index("ix_target_node", "node_id", "job_id"),)


class Action(Base):
    """A letter for one node that is no state: an answer to its hello, a request to say hello, a thing to do once."""

    __tablename__ = "action"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("resource.id"), index=True)
    form: Mapped[str] = mapped_column(String(20))
    body: Mapped[bytes]
    created_at: Mapped[datetime]
    #: The job it belongs to, and when it is too late to do it; both NULL for letters of the hello exchange.
    job_id: Mapped[int | None] = mapped_column(ForeignKey("job.id"), index=True)
    expires_at: Mapped[datetime | None]
    __table_args__ = ({"sqlite_autoincrement": True},)


class Bucket(Base):
    """One bucket of what the store knows of a node, kept up with every change of a placement (models/digest.py)."""

    __tablename__ = "bucket"
    node_id: Mapped[int] = mapped_column(ForeignKey("resource.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    total: Mapped[int] = mapped_column(default=0, server_default="0")
    __table_args__ = ({"postgresql_with": {"fillfactor": 50}},)


class Pause(Base):
    """A brake that somebody has pulled: nothing is sent to this node, and its worker runs no round."""

    __tablename__ = "pause"
    #: 0: every node.
    node_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    actor: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str | None]
    at: Mapped[datetime]


class Hello(Base):
    """What a node said of its ledger and nobody has answered yet."""

    __tablename__ = "hello"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("resource.id"))
    body: Mapped[bytes]
    arrived_at: Mapped[datetime]
    #: It begins an exchange: what the node began before is void.
    begins: Mapped[bool] = mapped_column(default=False, server_default=sql("false"))
    __table_args__ = ({"sqlite_autoincrement": True},)


class Usage(Base):
    """How much an account holds, as the node that keeps its files measured it last."""

    __tablename__ = "usage"
    resource_id: Mapped[int] = mapped_column(ForeignKey("resource.id"), primary_key=True, autoincrement=False)
    node_id: Mapped[int] = mapped_column(ForeignKey("resource.id"))
    storage_bytes: Mapped[int]
    measured_at: Mapped[datetime]


class Traffic(Base):
    """What a node sent for an account's sites in a month, as it counted last."""

    __tablename__ = "traffic"
    resource_id: Mapped[int] = mapped_column(ForeignKey("resource.id"), primary_key=True, autoincrement=False)
    node_id: Mapped[int] = mapped_column(ForeignKey("resource.id"), primary_key=True, autoincrement=False)
    #: As 202611, UTC.
    month: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    bytes_out: Mapped[int]


class NodeStatus(Base):
    """What the manager hears of a node."""

    __tablename__ = "node_status"
    node_id: Mapped[int] = mapped_column(ForeignKey("resource.id"), primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    #: RabbitMQ's salted hash of the node's broker password.
    password_hash: Mapped[str | None]
    seen_at: Mapped[datetime | None]
    state_at: Mapped[datetime]
    epoch: Mapped[int | None]
    #: All acknowledgement numbers of `epoch` up to this one are in the audit store.
    acked: Mapped[int] = mapped_column(default=0)
    #: The newest beat, as JSON: what the worker is doing, its version, what it holds.
    beat: Mapped[bytes | None]
    #: The life of the store in which this node has said what its highest numbers are; -1: new, nobody waits for it.
    reported: Mapped[int] = mapped_column(default=0, server_default="0")
    #: What the node holds and no placement lists, as JSON list (producer/orphans.py).
    orphans: Mapped[bytes | None]
