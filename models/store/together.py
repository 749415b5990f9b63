"""Many rows in one statement: found by their keys, changed each to its own values, or added.

PostgreSQL takes them as arrays: one round trip and one plan, however many. They are spelled here: the driver's own
way, value by value, costs as much as all the rest. SQLite has no round trips; there the
keys of a search travel as one JSON text, and changes are the same statement once for each row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    column,
    func,
    insert,
    select,
    type_coerce,
    update,
)
from sqlalchemy.sql.dml import Insert, Update
from sqlalchemy.sql.selectable import Select

from ..moment import EPOCH, MICROSECOND, Moment
from .tables import Base, Number

Row = Mapping[str, Any]
Condition = Callable[[Mapping[str, Any]], ColumnElement[bool]]


def keyed(dialect: str, names: Sequence[str]) -> FromClause:
    """A relation of whole numbers to join with: one row for each of the `keys`, one column for each name.

    Part of a statement that is made once: to make one costs more than to run it.
    """
    if dialect == "sqlite":
        each = func.json_each(bindparam("_keys", type_=Text)).table_valued("value")
        found = (func.json_extract(each.c.value, f"$[{at}]") for at in range(len(names)))
        labels = [type_coerce(value, Number).label(name) for value, name in zip(found, names, strict=True)]
        return select(*labels).subquery("keyed")
    arrays = [cast(bindparam(f"_{name}", type_=Text), ARRAY(Number)) for name in names]
    columns = [column(name, Number) for name in names]
    return func.unnest(*arrays).table_valued(*columns, name="keyed").render_derived()


def keys(dialect: str, names: Sequence[str], given: Sequence[Sequence[int]]) -> dict[str, str]:
    """What a statement with `keyed` is given."""
    if dialect == "sqlite":
        return {"_keys": json.dumps([list(key) for key in given])}
    return {f"_{name}": _spelled(Number, [key[at] for key in given]) for at, name in enumerate(names)}


def among(dialect: str, numbers: Any) -> ColumnElement[bool]:
    """Whether a column of whole numbers has one of those `listed`: part of a statement that is made once."""
    which = bindparam("_among", type_=Text)
    if dialect == "sqlite":
        each = func.json_each(which).table_valued("value")
        found: ColumnElement[bool] = numbers.in_(select(type_coerce(each.c.value, Number)))
    else:
        found = numbers == any_(cast(which, ARRAY(Number)))
    return found


def listed(dialect: str, numbers: Collection[int]) -> dict[str, str]:
    """What a statement with `among` is given."""
    return {"_among": json.dumps(list(numbers)) if dialect == "sqlite" else _spelled(Number, list(numbers))}


def change(connection: Connection, table: type[Base], rows: Sequence[Row], key: tuple[str, ...],
           only: Condition | None = None, *, is_locked: bool = False) -> None:  # fmt: skip
    """Sets the columns that the rows name, in the rows of `table` with these keys, each key once.

    `only` says, given the new values by column, which rows may still be changed; a function of a module, not a lambda.
    `is_locked`: this transaction has locked all of these rows before.
    """
    if not is_locked and len(rows) > 1 and connection.dialect.name != "sqlite":
        # An UPDATE takes its rows in any order. In that of their keys, as everybody, none waits for another in a ring.
        keys = [{name: row[name] for name in key} for row in rows]
        connection.execute(_lock(_table(table), key), _given(connection, _table(table), keys))
    if rows:
        build = _change_each if connection.dialect.name == "sqlite" else _change_all
        connection.execute(build(_table(table), tuple(rows[0]), key, only), _given(connection, _table(table), rows))


def add(connection: Connection, table: type[Base], rows: Sequence[Row]) -> None:
    """Adds rows that name the same columns, in this order."""
    if len(rows) > 1 and connection.dialect.name != "sqlite":
        connection.execute(_add_all(_table(table), tuple(rows[0])), _given(connection, _table(table), rows))
    elif rows:
        connection.execute(_add_one(_table(table)), rows)


def add_numbered(connection: Connection, table: type[Base], rows: Sequence[Row], key: str) -> dict[int, int]:
    """The same for rows that are given ids; gives the id of each by the number that it has in the column `key`."""
    its = _table(table)
    if connection.dialect.name == "sqlite":
        found = connection.execute(insert(its).returning(its.c.id, its.c[key]), rows)
    else:
        made = _add_all(its, tuple(rows[0])).returning(its.c.id, its.c[key])
        found = connection.execute(made, _given(connection, its, rows))
    return {number: given for given, number in found}


def _table(table: type[Base]) -> Table:
    return Base.metadata.tables[table.__tablename__]


def _given(connection: Connection, table: Table, rows: Sequence[Row]) -> Any:
    """The rows as the statements below take them: an array for each column, or each row for itself."""
    if connection.dialect.name == "sqlite":
        return [{f"_{name}": value for name, value in row.items()} for row in rows]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        f"_{name}": _spelled(table.c[name].type, values) if _is_spelled(table.c[name].type) else values
        for name, values in columns.items()
    }


def _is_spelled(type_: Any) -> bool:
    return isinstance(type_, Integer | Moment | LargeBinary | String)


def _spelled(type_: Any, values: Sequence[Any]) -> str:
    """An array as PostgreSQL reads it."""
    if isinstance(type_, LargeBinary):
        words = ["NULL" if value is None else f'"\\\\x{value.hex()}"' for value in values]
    elif isinstance(type_, Moment):
        words = ["NULL" if value is None else str((value - EPOCH) // MICROSECOND) for value in values]
    elif isinstance(type_, String):
        words = ["NULL" if value is None else _quoted(value) for value in values]
    else:
        words = ["NULL" if value is None else str(int(value)) for value in values]
    return f"{{{','.join(words)}}}"


def _quoted(text: str) -> str:
    """A text within an array: between quotes, only these two characters mean anything."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@cache
def _lock(table: Table, key: tuple[str, ...]) -> Select[Any]:
    new = _columns(table, key)
    same = and_(*(table.c[name] == new.c[name] for name in key))
    found = select(table.c[key[0]]).join_from(new, table, same).order_by(*(table.c[name] for name in key))
    return found.with_for_update(of=table)


@cache
def _change_each(table: Table, names: tuple[str, ...], key: tuple[str, ...], only: Condition | None) -> Update:
    return _change(table, {name: bindparam(f"_{name}", type_=table.c[name].type) for name in names}, key, only)


@cache
def _change_all(table: Table, names: tuple[str, ...], key: tuple[str, ...], only: Condition | None) -> Update:
    new = _columns(table, names)
    return _change(table, {name: new.c[name] for name in names}, key, only)


def _change(table: Table, new: Mapping[str, Any], key: tuple[str, ...], only: Condition | None) -> Update:
    which = [table.c[name] == new[name] for name in key]
    if only:
        which.append(only(new))
    return update(table).where(and_(*which)).values({name: new[name] for name in new if name not in key})


@cache
def _add_one(table: Table) -> Insert:
    # Inline: nobody asks for the id that it is given, so there is nothing to read.
    return insert(table).inline()


@cache
def _add_all(table: Table, names: tuple[str, ...]) -> Insert:
    new = _columns(table, names)
    return insert(table).from_select(list(names), select(*(new.c[name] for name in names)), include_defaults=False)


def _columns(table: Table, names: Sequence[str]) -> FromClause:
    arrays = [_array(name, table.c[name].type) for name in names]
    columns = [column(name, table.c[name].type) for name in names]
    return func.unnest(*arrays).table_valued(*columns, name="new").render_derived()


def _array(name: str, type_: Any) -> ColumnElement[Any]:
    if not _is_spelled(type_):
        return bindparam(f"_{name}", type_=ARRAY(type_))
    # Text without its length: a cast would cut what is too long for its column, where an insert refuses it.
    kind = BigInteger() if isinstance(type_, Moment) else Text() if isinstance(type_, String) else type_
    return cast(bindparam(f"_{name}", type_=Text), ARRAY(kind))
