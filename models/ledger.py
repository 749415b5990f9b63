"""The node's tables: what this node was told, what it applied, and the acknowledgements that are not yet safe.

Read and written with plain SQL by `workers/ledger.py`; declared here so that migrations and a test can compare.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text, text

metadata = MetaData()

#: One row per resource, newest generation only. A removed one stays as a tombstone.
entry = Table(
    "entry",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("noun", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("incarnation", Integer, nullable=False),
    Column("wanted", Integer, nullable=False),
    Column("done", Integer, nullable=False, server_default="0"),
    Column("applied", Integer, nullable=False, server_default="0"),
    Column("outcome", Integer, nullable=False, server_default="0"),
    Column("spec", LargeBinary),  # wanted; NULL: absent. Holds the secrets.
    Column("applied_spec", LargeBinary),  # applied last; NULL: never, or removed
    Column("needs", Text),  # why this worker cannot apply it (a newer schema)
    Column("job", Integer),
    Column("verb", Text, nullable=False),
    Column("roles", Text, nullable=False, server_default=""),
    Column("replaces", Integer, nullable=False, server_default="0"),
    Column("urgent", Integer, nullable=False, server_default="0"),
    Column("started", Integer, nullable=False, server_default="0"),  # generation that was started
    Column("started_at", Float),  # when that generation was first started
    Column("starts", Integer, nullable=False, server_default="0"),  # starts alone in a round, without an end
    Column("running", Integer, nullable=False, server_default="0"),  # started, and no end recorded
    Column("tries", Integer, nullable=False, server_default="0"),  # temporary failures of `wanted`
    Column("not_before_at", Float),
    Column("difference", LargeBinary),  # of the start that has no end yet
    Column("reason", Text),
    Column("arrived_at", Float, nullable=False),
    Index("ix_entry_open", "urgent", "id", sqlite_where=text("done < wanted")),
    Index("ix_entry_name", "noun", "name"),
)

#: Acknowledgements, until the manager says that it has them.
ack = Table(
    "ack",
    metadata,
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("noun", Text, nullable=False),
    Column("job", Integer),
    Column("body", LargeBinary, nullable=False),
    Column("published", Integer, nullable=False, server_default="0"),
)

#: What is done once: by the life of the store and the number of the job, so that it is never done twice.
action = Table(
    "action",
    metadata,
    Column("incarnation", Integer, primary_key=True, autoincrement=False),
    Column("job", Integer, primary_key=True, autoincrement=False),
    Column("noun", Text, nullable=False),
    Column("id", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("verb", Text, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("state", Text, nullable=False),  # waiting, started or done
    Column("given", LargeBinary),  # what it is told beside its verb
)

#: Of the part of Apache's log that is being split: where each account's lines go, and whether they are written.
split = Table(
    "split",
    metadata,
    Column("account", Integer, primary_key=True, autoincrement=False),
    Column("places", Text, nullable=False),
    Column("written", Integer, nullable=False),
)

#: What was sent for each account in a month (202611), as counted here.
sent = Table(
    "sent",
    metadata,
    Column("account", Integer, primary_key=True, autoincrement=False),
    Column("month", Integer, primary_key=True, autoincrement=False),
    Column("bytes", Integer, nullable=False),
)

#: Single values: the incarnation of the store heard of last.
fact = Table("fact", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))
