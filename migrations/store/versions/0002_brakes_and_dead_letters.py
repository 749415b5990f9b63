"""Brakes, batches, actions, dead letters, running digests, and what a restored store has to wait for."""

from __future__ import annotations

from collections import defaultdict

import sqlalchemy as sa
from alembic import op

#: SQLite only counts up by itself in a column of type INTEGER.
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

#: Of the brakes: what is due, and what counts for the hold.
JOB_INDEXES = (
    ("ix_job_grace", ["grace_until_at"], "grace_until_at IS NOT NULL"),
    ("ix_job_destroys", ["actor", "submitted_at"], "destroys"),
)

#: By name the columns of an index of events, as it was and as it is now.
EVENT_INDEXES = {
    "ix_event_at": (["at"], ["at"]),
    "ix_event_resource": (["noun", "name", "id"], ["noun", "name", "at"]),
    "ix_event_node": (["node", "id"], ["node", "at"]),
    "ix_event_actor": (["actor", "id"], ["actor", "at"]),
    "ix_event_kind": (["kind", "id"], ["kind", "outcome", "at"]),
    "ix_event_job": (["job_id", "id"], ["job_id", "at"]),
    "ix_event_outcome": (["outcome", "id"], None),
    "ix_event_noun": (None, ["noun", "at"]),
}
#: True of every event: only a query that says so uses the index that has it (producer/event_search.py).
EVENTS_BY_TIME = "id <> 0"

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bucket",
        sa.Column("node_id", NUMBER, nullable=False),
        sa.Column("number", NUMBER, autoincrement=False, nullable=False),
        sa.Column("total", NUMBER, server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["resource.id"], name=op.f("fk_bucket_node_id_resource")),
        sa.PrimaryKeyConstraint("node_id", "number", name=op.f("pk_bucket")),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "pause",
        sa.Column("node_id", NUMBER, autoincrement=False, nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_pause")),
    )
    op.create_table(
        "dead",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("queue", sa.String(length=255), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("routing_key", sa.String(length=255), nullable=False),
        sa.Column("user", sa.String(length=255), nullable=False),
        sa.Column("message_id", sa.String(length=255), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("size_bytes", NUMBER, nullable=False),
        sa.Column("state", sa.String(length=20), server_default="kept", nullable=False),
        sa.Column("state_at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("dead", schema=None) as batch_op:
        batch_op.create_index("ix_dead_state", ["state", "id"], unique=False)
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("max_fail", NUMBER, nullable=True))
        batch_op.add_column(sa.Column("grace_until_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("destroys", sa.Boolean(), server_default=sa.text("false"), nullable=False))
        batch_op.add_column(sa.Column("held_wish", sa.LargeBinary(), nullable=True))
        for name, columns, where in JOB_INDEXES:
            batch_op.create_index(name, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
    with op.batch_alter_table("action", schema=None, table_kwargs={"sqlite_autoincrement": True}) as batch_op:
        batch_op.add_column(sa.Column("job_id", NUMBER, nullable=True))
        batch_op.add_column(sa.Column("expires_at", sa.BigInteger(), nullable=True))
        batch_op.create_foreign_key(op.f("fk_action_job_id_job"), "job", ["job_id"], ["id"])
        batch_op.create_index(batch_op.f("ix_action_job_id"), ["job_id"], unique=False)
    with op.batch_alter_table("node_status", schema=None) as batch_op:
        batch_op.add_column(sa.Column("reported", NUMBER, server_default="0", nullable=False))
        batch_op.add_column(sa.Column("orphans", sa.LargeBinary(), nullable=True))
    _index_events(0, 1)
    _sum_up()


def _index_events(old: int, new: int) -> None:
    for name, columns in EVENT_INDEXES.items():
        if columns[old]:
            op.drop_index(name, "event")
        if made := columns[new]:
            where = sa.text(EVENTS_BY_TIME) if new and name == "ix_event_at" else None
            op.create_index(name, "event", made, sqlite_where=where, postgresql_where=where)


def _sum_up() -> None:
    """The sums of what the store knows of each node so far."""
    from onehost.models.digest import MODULUS, bucket, row_hash

    totals: defaultdict[tuple[int, int], int] = defaultdict(int)
    placed = op.get_bind().execute(
        sa.text("SELECT node_id, resource_id, wanted, done, outcome FROM placement WHERE wanted > 0")
    )
    for row in placed:
        outcome = row.outcome if row.done == row.wanted else 0
        totals[row.node_id, bucket(row.resource_id)] += row_hash(row.resource_id, row.wanted, outcome)
    table = sa.table("bucket", sa.column("node_id"), sa.column("number"), sa.column("total"))
    rows = [{"node_id": n, "number": b, "total": total % MODULUS} for (n, b), total in sorted(totals.items())]
    if rows:
        op.bulk_insert(table, rows)


def downgrade() -> None:
    _index_events(1, 0)
    with op.batch_alter_table("node_status", schema=None) as batch_op:
        batch_op.drop_column("orphans")
        batch_op.drop_column("reported")
    with op.batch_alter_table("action", schema=None, table_kwargs={"sqlite_autoincrement": True}) as batch_op:
        batch_op.drop_index(batch_op.f("ix_action_job_id"))
        batch_op.drop_constraint(op.f("fk_action_job_id_job"), type_="foreignkey")
        batch_op.drop_column("expires_at")
        batch_op.drop_column("job_id")
    with op.batch_alter_table("job", schema=None) as batch_op:
        for name, _, _ in JOB_INDEXES:
            batch_op.drop_index(name)
        batch_op.drop_column("held_wish")
        batch_op.drop_column("destroys")
        batch_op.drop_column("grace_until_at")
        batch_op.drop_column("max_fail")
    op.drop_table("dead")
    op.drop_table("pause")
    op.drop_table("bucket")
