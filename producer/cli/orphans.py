"""`onehost node orphans`: what nodes hold and the store does not know; a person may have one removed."""

from __future__ import annotations

from typing import Any

import click

from .groups import Command
from .output import emit, table
from .session import Session, current
from .writing import How, confirm, tell, write_options


def _orphans(node: str | None, remove: int | None, **values: Any) -> int:
    session = current()
    how = How.taken(values)
    if remove is not None:
        confirm(f"orphan {remove} from every node that holds it", str(remove), how)
        return tell(session, session.client.remove_orphan(remove, reason=how.reason), how)
    found = [each for each in session.client.orphans() if node in (None, each["node"])]
    emit(session, found, lambda: _show(session, found))
    return 0


def _show(session: Session, found: list[dict[str, Any]]) -> None:
    rows = [(each["node"], each["id"], each["noun"], each["name"], each["wanted"]) for each in found]
    table(session, ("node", "id", "noun", "name", "generation"), rows, "no orphans")


orphans = Command(
    "orphans",
    callback=_orphans,
    params=[
        click.Argument(["node"], required=False),
        click.Option(["--remove"], type=click.IntRange(1, 2**63 - 1), metavar="ID",
                     help="Remove this one from every node that holds it."),
        *write_options(asks=True, dry_run=False, generation=False, key=False),
    ],
    help="What nodes hold and the store does not know, as after a restore. Nothing is removed unless you say so.",
    example="node orphans web1",
)  # fmt: skip
