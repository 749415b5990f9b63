"""What belongs to what, which job asked for which, and how much an account holds and sends."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
#: By table the column, what it points to, and its index.
COLUMNS = {"resource": ("owner_id", "resource"), "job": ("parent_id", "job")}

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table, (column, other) in COLUMNS.items():
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column(column, NUMBER, nullable=True))
            batch_op.create_foreign_key(op.f(f"fk_{table}_{column}_{other}"), other, [column], ["id"])
        where = sa.text(f"{column} IS NOT NULL")
        name = f"ix_{table}_{column.removesuffix('_id')}"
        op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)
    op.add_column("hello", sa.Column("begins", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_table(
        "usage",
        sa.Column("resource_id", NUMBER, autoincrement=False, nullable=False),
        sa.Column("node_id", NUMBER, nullable=False),
        sa.Column("storage_bytes", NUMBER, nullable=False),
        sa.Column("measured_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["resource.id"], name=op.f("fk_usage_node_id")),
        sa.ForeignKeyConstraint(["resource_id"], ["resource.id"], name=op.f("fk_usage_resource_id")),
        sa.PrimaryKeyConstraint("resource_id", name=op.f("pk_usage")),
    )
    op.create_table(
        "traffic",
        sa.Column("resource_id", NUMBER, autoincrement=False, nullable=False),
        sa.Column("node_id", NUMBER, autoincrement=False, nullable=False),
        sa.Column("month", NUMBER, autoincrement=False, nullable=False),
        sa.Column("bytes_out", NUMBER, nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["resource.id"], name=op.f("fk_traffic_node_id")),
        sa.ForeignKeyConstraint(["resource_id"], ["resource.id"], name=op.f("fk_traffic_resource_id")),
        sa.PrimaryKeyConstraint("resource_id", "node_id", "month", name=op.f("pk_traffic")),
    )


def downgrade() -> None:
    op.drop_table("traffic")
    op.drop_table("usage")
    with op.batch_alter_table("hello", schema=None) as batch_op:
        batch_op.drop_column("begins")
    for table, (column, other) in COLUMNS.items():
        op.drop_index(f"ix_{table}_{column.removesuffix('_id')}", table)
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_constraint(op.f(f"fk_{table}_{column}_{other}"), type_="foreignkey")
            batch_op.drop_column(column)
