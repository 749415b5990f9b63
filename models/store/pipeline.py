"""Statements sent behind each other: one trip to PostgreSQL instead of one for each. SQLite has no trips to save."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Dialect, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

#: Any read.
Reading = Select[*tuple[Any, ...]]
#: A statement that is made once and kept, as it is compiled once, and the values of its parameters.
Question = tuple[Reading, Mapping[str, Any]]
#: What SQLAlchemy's types do to a value on its way; None: nothing.
_Processor = Callable[[Any], Any] | None


@contextmanager
def pipelined(connection: Connection) -> Iterator[None]:
    """Part of a transaction. Nothing in the block may read: no rows come before its end, nor how many were changed.

    What the database refuses is raised as always, at the end of the block at the latest.
    """
    if connection.dialect.name == "sqlite":
        yield
        return
    with _trip(connection):
        yield


def answers(connection: Connection, *questions: Question) -> list[Sequence[Any]]:
    """The rows of several reads, in their order; each is answered after the ones before it, and sees what they locked.

    The rows have the columns as attributes. Parameters that grow with their values (`expanding`) are not for these.
    """
    if connection.dialect.name == "sqlite":
        return [connection.execute(statement, values).all() for statement, values in questions]
    # The driver's own cursors: SQLAlchemy looks at what a statement gave as soon as it is sent.
    asked = [(_read(statement, connection.dialect), values) for statement, values in questions]
    with _trip(connection) as driver:
        cursors = [driver.execute(read.text, read.parameters(values)) for read, values in asked]
    return [read.rows(cursor) for (read, _), cursor in zip(asked, cursors, strict=True)]


@contextmanager
def _trip(connection: Connection) -> Iterator[Any]:
    driver: Any = connection.connection.driver_connection
    errors = connection.dialect.loaded_dbapi
    try:
        with driver.pipeline():
            yield driver
    except errors.Error as error:
        # Past SQLAlchemy, which has let go of the statement that it belongs to.
        raise DBAPIError.instance(
            "", None, error, errors.Error, hide_parameters=True, dialect=connection.dialect
        ) from error


@dataclass(frozen=True)
class _Read:
    """A statement as the driver takes it, and the way of its values there and back."""

    text: str
    constants: Mapping[str, Any]
    binds: Mapping[str, _Processor]
    columns: Sequence[_Processor]
    row: Any

    def parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: process(value) if (process := self.binds[name]) else value for name, value in values.items()}
        return {**self.constants, **given}

    def rows(self, cursor: Any) -> list[Any]:
        found = cursor.fetchall()
        if any(self.columns):
            found = [[process(value) if process else value for process, value in zip(self.columns, row, strict=True)]
                     for row in found]  # fmt: skip
        return [self.row(*row) for row in found]


@lru_cache(maxsize=256)
def _read(statement: Reading, dialect: Dialect) -> _Read:
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)
    binds = {
        name: bind.type.dialect_impl(dialect).bind_processor(dialect) for bind, name in compiled.bind_names.items()
    }
    set_before = {name: bind.effective_value for bind, name in compiled.bind_names.items() if not bind.required}
    constants = {name: process(value) if (process := binds[name]) else value for name, value in set_before.items()}
    columns = statement.selected_columns
    ways = [each.type.dialect_impl(dialect).result_processor(dialect, None) for each in columns]
    return _Read(compiled.string, constants, binds, ways, namedtuple("Row", columns.keys()))
