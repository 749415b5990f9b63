"""What accounts and plans have beside other nouns: limits, with what is used of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from .groups import Command
from .output import cell, emit, table
from .session import Session, current

#: Columns of the limits of one account.
COLUMNS = ("limit", "used", "of", "whose", "over")


def beside(session: Session, noun: str, name: str) -> dict[str, Any]:
    """What `show` says of a resource beside its spec and its nodes."""
    from .. import usage as counted

    if noun == "account":
        return {"usage": session.client.usage(name)[0]}
    if noun == "plan":
        having = session.client.usage(plan=name)
        return {"accounts": len(having), "over": {each["account"]: found for each in having
                                                  if (found := counted.over(each))}}  # fmt: skip
    return {}


def write_beside(session: Session, found: Mapping[str, Any]) -> None:
    """The same for people."""
    if "usage" in found:
        _write_one(session, found["usage"])
        click.echo()
    if "accounts" in found:
        click.echo(f"accounts: {found['accounts']}")
        for account, limits in found["over"].items():
            click.echo(f"  {account} is over in {cell(limits).replace('_', ' ')}")
        click.echo()


def _write_one(session: Session, one: Mapping[str, Any]) -> None:
    plan = f"plan {one['plan']}"
    rows = [(limit.replace("_", " "), its["used"], "none" if its["limit"] is None else its["limit"],
             plan if its["whose"] == "plan" else its["whose"], "over" if its["over"] else None)
            for limit, its in one["limits"].items()]  # fmt: skip
    table(session, COLUMNS, rows)
    if one["measured_at"]:
        click.echo(f"storage was measured at {cell(one['measured_at'])}")


def _usage(name: str | None) -> None:
    from .. import usage as counted

    session = current()
    found = session.client.usage(name)
    if name is not None:
        emit(session, found[0], lambda: _write_one(session, found[0]))
        return
    rows = [
        (each["account"], each["plan"], *(each["limits"][limit][key] for limit in ("storage_mib", "bandwidth_mib")
                                          for key in ("used", "limit")), counted.over(each), each["measured_at"])
        for each in found
    ]  # fmt: skip
    columns = ("account", "plan", "storage mib", "of", "sent mib", "of", "over in", "measured")
    emit(session, found, lambda: table(session, columns, rows, "no accounts"))


usage = Command(
    "usage",
    callback=_usage,
    params=[click.Argument(["name"], required=False)],
    help="What an account uses of each of its limits, and whose limit it is; without a name, one line for each.",
    example="account usage alice",
)
#: Stand in the noun's own group.
COMMANDS = (usage,)
