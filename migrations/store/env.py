"""How Alembic reaches the store; loaded by path, so it names the package in full."""

from __future__ import annotations

from alembic import context

from onehost.models.store import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
connection.commit()
