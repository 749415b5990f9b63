"""Statements whose answers nobody reads, sent behind each other: one trip to PostgreSQL instead of one for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError


@contextmanager
def pipelined(connection: Connection) -> Iterator[None]:
    """Part of a transaction. Nothing in the block may read: no rows come before its end, nor how many were changed.

    What the database refuses is raised as always, at the end of the block at the latest. SQLite has no trips to save.
    """
    if connection.dialect.name == "sqlite":
        yield
        return
    driver = connection.dialect.loaded_dbapi
    try:
        with connection.connection.driver_connection.pipeline():  # type: ignore[union-attr]
            yield
    except driver.Error as error:
        # Past SQLAlchemy, which has let go of the statement that it belongs to.
        raise DBAPIError.instance(
            "", None, error, driver.Error, hide_parameters=True, dialect=connection.dialect
        ) from error
