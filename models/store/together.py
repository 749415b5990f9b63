"""Many rows in one statement: found by their keys, changed each to its own values, or added.

PostgreSQL takes them as arrays: one round trip and one plan, however many. SQLite has no round trips; there the keys of
a search travel as one JSON text, and changes are the same statement once for each row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    Connection,
    FromClause,
    Table,
    and_,
    bindparam,
    column,
    func,
    insert,
    literal,
    select,
    type_coerce,
    update,
)
from sqlalchemy.sql.dml import Insert, Update

Row = Mapping[str, Any]


def keyed(connection: Connection, names: Sequence[str], keys: Sequence[Sequence[int]]) -> FromClause:
    """A relation of whole numbers to join with: one row for each key, one column for each name."""
    from .tables import Number

    if connection.dialect.name == "sqlite":
        each = func.json_each(literal(json.dumps([list(key) for key in keys]))).table_valued("value")
        columns = [type_coerce(func.json_extract(each.c.value, f"$[{at}]"), Number).label(name)
                   for at, name in enumerate(names)]  # fmt: skip
        return select(*columns).subquery("keyed")
    arrays = [literal([key[at] for key in keys], ARRAY(Number)) for at in range(len(names))]
    columns = [column(name, Number) for name in names]
    return func.unnest(*arrays).table_valued(*columns, name="keyed").render_derived()


def change(connection: Connection, table: Table, rows: Sequence[Row], key: tuple[str, ...],
           only: tuple[str, ...] = ()) -> None:  # fmt: skip
    """Sets the columns that the rows name, in the rows of `table` with these keys, each key once.

    `only` names columns that must still be NULL: whoever came first stays.
    """
    if rows:
        build = _change_each if connection.dialect.name == "sqlite" else _change_all
        statement = build(table, tuple(rows[0]), key, only)
        connection.execute(statement, _given(connection, rows))


def add(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Adds rows that name the same columns, in this order."""
    if len(rows) > 1 and connection.dialect.name != "sqlite":
        connection.execute(_add_all(table, tuple(rows[0])), _given(connection, rows))
    elif rows:
        connection.execute(insert(table), rows)


def _given(connection: Connection, rows: Sequence[Row]) -> Any:
    """The rows as the statements below take them: a list for each column, or each row for itself."""
    if connection.dialect.name == "sqlite":
        return [{f"_{name}": value for name, value in row.items()} for row in rows]
    return {f"_{name}": [row[name] for row in rows] for name in rows[0]}


@cache
def _change_each(table: Table, names: tuple[str, ...], key: tuple[str, ...], only: tuple[str, ...]) -> Update:
    which = [table.c[name] == bindparam(f"_{name}") for name in key]
    which += [table.c[name].is_(None) for name in only]
    return update(table).where(and_(*which)).values({name: bindparam(f"_{name}") for name in names if name not in key})


@cache
def _change_all(table: Table, names: tuple[str, ...], key: tuple[str, ...], only: tuple[str, ...]) -> Update:
    new = _columns(table, names)
    which = [table.c[name] == new.c[name] for name in key]
    which += [table.c[name].is_(None) for name in only]
    return update(table).where(and_(*which)).values({name: new.c[name] for name in names if name not in key})


@cache
def _add_all(table: Table, names: tuple[str, ...]) -> Insert:
    new = _columns(table, names)
    return insert(table).from_select(list(names), select(*(new.c[name] for name in names)), include_defaults=False)


def _columns(table: Table, names: Sequence[str]) -> FromClause:
    arrays = [bindparam(f"_{name}", type_=ARRAY(table.c[name].type)) for name in names]
    columns = [column(name, table.c[name].type) for name in names]
    return func.unnest(*arrays).table_valued(*columns, name="new").render_derived()
