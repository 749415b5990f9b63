"""First tables of the store. An event can neither be changed nor removed: triggers refuse it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

#: SQLite only counts up by itself in a column of type INTEGER.
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "counter",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("value", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counter")),
    )
    op.create_table(
        "event",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=80), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("noun", sa.String(length=40), nullable=True),
        sa.Column("name", sa.String(length=253), nullable=True),
        sa.Column("resource_id", NUMBER, nullable=True),
        sa.Column("node", sa.String(length=40), nullable=True),
        sa.Column("node_id", NUMBER, nullable=True),
        sa.Column("job_id", NUMBER, nullable=True),
        sa.Column("outcome", sa.String(length=20), nullable=True),
        sa.Column("epoch", NUMBER, nullable=True),
        sa.Column("number", NUMBER, nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("event", schema=None) as batch_op:
        batch_op.create_index("ix_event_actor", ["actor", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_event_at"), ["at"], unique=False)
        batch_op.create_index("ix_event_job", ["job_id", "id"], unique=False)
        batch_op.create_index("ix_event_kind", ["kind", "id"], unique=False)
        batch_op.create_index("ix_event_node", ["node", "id"], unique=False)
        batch_op.create_index("ix_event_outcome", ["outcome", "id"], unique=False)
        batch_op.create_index("ix_event_resource", ["noun", "name", "id"], unique=False)
        batch_op.create_index("uq_event_acknowledgement", ["node_id", "epoch", "number"], unique=True)

    op.create_table(
        "resource",
        sa.Column("id", NUMBER, autoincrement=False, nullable=False),
        sa.Column("noun", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("generation", NUMBER, nullable=False),
        sa.Column("absent", sa.Boolean(), nullable=False),
        sa.Column("replaces", NUMBER, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_resource")),
    )
    with op.batch_alter_table("resource", schema=None) as batch_op:
        batch_op.create_index(
            "ix_resource_living",
            ["noun", "name"],
            unique=True,
            sqlite_where=sa.text("absent = 0"),
            postgresql_where=sa.text("NOT absent"),
        )
        batch_op.create_index("ix_resource_names", ["noun", "name", "id"], unique=False)

    op.create_table(
        "action",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("node_id", NUMBER, nullable=False),
        sa.Column("form", sa.String(length=20), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["resource.id"], name=op.f("fk_action_node_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_action")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("action", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_action_node_id"), ["node_id"], unique=False)

    op.create_table(
        "claim",
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("value", sa.String(length=253), nullable=False),
        sa.Column("resource_id", NUMBER, nullable=False),
        sa.Column("releasing", NUMBER, nullable=True),
        sa.Column("forever", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["resource_id"], ["resource.id"], name=op.f("fk_claim_resource_id")),
        sa.PrimaryKeyConstraint("kind", "value", name=op.f("pk_claim")),
    )
    with op.batch_alter_table("claim", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_claim_resource_id"), ["resource_id"], unique=False)

    op.create_table(
        "hello",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("node_id", NUMBER, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("arrived_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["resource.id"], name=op.f("fk_hello_node_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hello")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "job",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=80), nullable=False),
        sa.Column("resource_id", NUMBER, nullable=False),
        sa.Column("noun", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("generation", NUMBER, nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("source", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("wish", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("stage", NUMBER, nullable=False),
        sa.Column("stages", sa.LargeBinary(), nullable=False),
        sa.Column("targets", NUMBER, nullable=False),
        sa.Column("applied", NUMBER, nullable=False),
        sa.Column("failed", NUMBER, nullable=False),
        sa.Column("closed", NUMBER, nullable=False),
        sa.Column("submitted_at", sa.BigInteger(), nullable=False),
        sa.Column("deadline_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["resource_id"], ["resource.id"], name=op.f("fk_job_resource_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_job_idempotency_key")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index("ix_job_kind", ["kind", "id"], unique=False)
        batch_op.create_index(
            "ix_job_open",
            ["resource_id", "generation"],
            unique=False,
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        )
        batch_op.create_index("ix_job_resource", ["resource_id", "id"], unique=False)

    op.create_table(
        "node_status",
        sa.Column("node_id", NUMBER, nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("seen_at", sa.BigInteger(), nullable=True),
        sa.Column("state_at", sa.BigInteger(), nullable=False),
        sa.Column("epoch", NUMBER, nullable=True),
        sa.Column("acked", NUMBER, nullable=False),
        sa.Column("beat", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["node_id"], ["resource.id"], name=op.f("fk_node_status_node_id")),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_node_status")),
    )
    op.create_table(
        "placement",
        sa.Column("resource_id", NUMBER, nullable=False),
        sa.Column("node_id", NUMBER, nullable=False),
        sa.Column("wanted", NUMBER, nullable=False),
        sa.Column("sent", NUMBER, server_default="0", nullable=False),
        sa.Column("done", NUMBER, server_default="0", nullable=False),
        sa.Column("applied", NUMBER, server_default="0", nullable=False),
        sa.Column("leaving", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("outcome", NUMBER, server_default="0", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("difference", sa.LargeBinary(), nullable=True),
        sa.Column("not_before_at", sa.BigInteger(), nullable=True),
        sa.Column("ack_epoch", NUMBER, nullable=True),
        sa.Column("ack_number", NUMBER, nullable=True),
        sa.Column("changed_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("done <= wanted AND sent <= wanted", name=op.f("ck_placement_numbers")),
        sa.ForeignKeyConstraint(["node_id"], ["resource.id"], name=op.f("fk_placement_node_id")),
        sa.ForeignKeyConstraint(["resource_id"], ["resource.id"], name=op.f("fk_placement_resource_id")),
        sa.PrimaryKeyConstraint("resource_id", "node_id", name=op.f("pk_placement")),
        postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.02},
    )
    with op.batch_alter_table("placement", schema=None) as batch_op:
        batch_op.create_index("ix_placement_node", ["node_id"], unique=False)
        batch_op.create_index(
            "ix_placement_open",
            ["node_id", "resource_id"],
            unique=False,
            sqlite_where=sa.text("done < wanted"),
            postgresql_where=sa.text("done < wanted"),
        )
        batch_op.create_index(
            "ix_placement_outbox",
            ["node_id", "resource_id"],
            unique=False,
            sqlite_where=sa.text("sent < wanted"),
            postgresql_where=sa.text("sent < wanted"),
        )

    op.create_table(
        "revision",
        sa.Column("resource_id", NUMBER, nullable=False),
        sa.Column("generation", NUMBER, nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("secrets", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["resource_id"], ["resource.id"], name=op.f("fk_revision_resource_id")),
        sa.PrimaryKeyConstraint("resource_id", "generation", name=op.f("pk_revision")),
    )
    op.create_table(
        "seal",
        sa.Column("position", NUMBER, autoincrement=False, nullable=False),
        sa.Column("event_id", NUMBER, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["event_id"], ["event.id"], name=op.f("fk_seal_event_id")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_seal")),
        sa.UniqueConstraint("event_id", name=op.f("uq_seal_event_id")),
    )
    op.create_table(
        "target",
        sa.Column("job_id", NUMBER, nullable=False),
        sa.Column("node_id", NUMBER, nullable=False),
        sa.Column("stage", NUMBER, nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=True),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.String(length=20), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("difference", sa.LargeBinary(), nullable=True),
        sa.Column("seconds", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_target_job_id")),
        sa.ForeignKeyConstraint(["node_id"], ["resource.id"], name=op.f("fk_target_node_id")),
        sa.PrimaryKeyConstraint("job_id", "node_id", name=op.f("pk_target")),
    )
    with op.batch_alter_table("target", schema=None) as batch_op:
        batch_op.create_index("ix_target_node", ["node_id", "job_id"], unique=False)

    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER event_no_{verb.lower()} BEFORE {verb} ON event "
                "BEGIN SELECT RAISE(ABORT, 'events are never changed or removed'); END"
            )
    else:
        op.execute(
            "CREATE FUNCTION event_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'events are never changed or removed'; END $$"
        )
        op.execute(
            "CREATE TRIGGER event_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON event "
            "FOR EACH STATEMENT EXECUTE FUNCTION event_refuse()"
        )


def downgrade() -> None:
    with op.batch_alter_table("target", schema=None) as batch_op:
        batch_op.drop_index("ix_target_node")

    op.drop_table("target")
    op.drop_table("seal")
    op.drop_table("revision")
    with op.batch_alter_table("placement", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_placement_outbox",
            sqlite_where=sa.text("sent < wanted"),
            postgresql_where=sa.text("sent < wanted"),
        )
        batch_op.drop_index(
            "ix_placement_open",
            sqlite_where=sa.text("done < wanted"),
            postgresql_where=sa.text("done < wanted"),
        )
        batch_op.drop_index("ix_placement_node")

    op.drop_table("placement")
    op.drop_table("node_status")
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_index("ix_job_resource")
        batch_op.drop_index(
            "ix_job_open",
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        )
        batch_op.drop_index("ix_job_kind")

    op.drop_table("job")
    op.drop_table("hello")
    with op.batch_alter_table("claim", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_claim_resource_id"))

    op.drop_table("claim")
    with op.batch_alter_table("action", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_action_node_id"))

    op.drop_table("action")
    with op.batch_alter_table("resource", schema=None) as batch_op:
        batch_op.drop_index("ix_resource_names")
        batch_op.drop_index(
            "ix_resource_living",
            sqlite_where=sa.text("absent = 0"),
            postgresql_where=sa.text("NOT absent"),
        )

    op.drop_table("resource")
    with op.batch_alter_table("event", schema=None) as batch_op:
        batch_op.drop_index("uq_event_acknowledgement")
        batch_op.drop_index("ix_event_resource")
        batch_op.drop_index("ix_event_outcome")
        batch_op.drop_index("ix_event_node")
        batch_op.drop_index("ix_event_kind")
        batch_op.drop_index("ix_event_job")
        batch_op.drop_index(batch_op.f("ix_event_at"))
        batch_op.drop_index("ix_event_actor")

    op.drop_table("event")
    op.drop_table("counter")
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION event_refuse()")
