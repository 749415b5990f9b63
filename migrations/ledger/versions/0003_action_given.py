"""What an action is told beside its verb: which daemon."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("action", sa.Column("given", sa.LargeBinary()))


def downgrade() -> None:
    with op.batch_alter_table("action") as batch:
        batch.drop_column("given")
