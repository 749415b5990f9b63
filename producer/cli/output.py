"""Writes answers: aligned words for people, JSON or YAML for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any

import click

from .session import Session, is_terminal

#: Colour of a word that is a state, wherever it stands in a table.
COLORS = {
    "applied": "green", "online": "green", "active": "green", "yes": "", "running": "cyan", "sent": "cyan",
    "waiting": "yellow", "new": "yellow", "unsynced": "yellow", "cordoned": "yellow", "drained": "yellow",
    "superseded": "yellow", "cancelled": "yellow", "lost": "yellow", "partial": "red", "failed": "red",
    "halted": "red", "expired": "red", "offline": "red", "held": "yellow",
}  # fmt: skip


def emit(session: Session, data: Any, words: Callable[[], None]) -> None:
    """Writes `data` as JSON or YAML, or calls `words` to write it for people."""
    if session.output == "json":
        click.echo(json.dumps(data, indent=2, default=plain, ensure_ascii=False))
    elif session.output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(as_json(data), sort_keys=False, allow_unicode=True), nl=False)
    else:
        words()


def as_json(data: Any) -> Any:
    """Data with nothing in it but what JSON has."""
    return json.loads(json.dumps(data, default=plain))


def plain(value: Any) -> Any:
    """What JSON does not know, as it is written there."""
    if isinstance(value, datetime):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def table(session: Session, columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str = "none") -> None:
    """Rows under a heading: coloured and fitted on a terminal, else aligned and never cut."""
    cells = [[cell(value) for value in row] for row in rows]
    if not cells:
        click.echo(empty)
    elif is_terminal():
        _rich_table(session, columns, cells)
    else:
        widths = [max(len(row[number]) for row in [list(columns), *cells]) for number in range(len(columns))]
        for row in [[name.upper() for name in columns], *cells]:
            line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
            click.echo(line.rstrip())


def _rich_table(session: Session, columns: Sequence[str], cells: list[list[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold" if session.color else "")
    for name in columns:
        made.add_column(name.upper(), overflow="fold")
    for row in cells:
        made.add_row(*(Text(text, style=COLORS.get(text, "") if session.color else "") for text in row))
    console(session).print(made)


def console(session: Session, *, err: bool = False) -> Any:
    """A rich console that never reads markup out of data."""
    from rich.console import Console

    return Console(file=sys.stderr if err else sys.stdout, no_color=not session.color, markup=False, highlight=False,
                   emoji=False)  # fmt: skip


def cell(value: Any) -> str:
    """A value as a person reads it, on one line, without control characters."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, Mapping):
        value = ", ".join(f"{key}: {cell(each)}" for key, each in value.items()) or "-"
    elif isinstance(value, (list, tuple, frozenset, set)):
        value = ", ".join(cell(each) for each in value)
    text = " ".join(str(value).split()) or "-"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def pairs(values: Mapping[str, Any]) -> None:
    """Names and values, one a line."""
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        lines = value if isinstance(value, list) and len(value) > 1 else [value]
        for number, each in enumerate(lines):
            click.echo(f"{name if number == 0 else '':<{width}}  {cell(each)}")


def tick(text: str) -> None:
    """A step that is done."""
    sign = "✓" if (sys.stdout.encoding or "").lower().startswith("utf") else "ok"
    click.echo(f"{sign} {text}")
