"""How Alembic reaches a ledger; loaded by path, so it names the package in full."""

from __future__ import annotations

from alembic import context

from onehost.models import ledger

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=ledger.metadata,
    render_as_batch=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
connection.commit()
