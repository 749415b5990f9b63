"""`onehost audit`: the audit store, read, exported and proved; and the process that writes it."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import click

from ...models.errors import Invalid
from .export import FORMATS, write
from .groups import Command, Group
from .moments import moment, resource_filter
from .output import emit, pairs, table
from .processes import run_audit
from .session import current

if TYPE_CHECKING:
    from ..event_search import EventFilter
    from ..seal import Head

#: What both databases can hold.
_ANY_ID = click.IntRange(1, 2**63 - 1)
_FILTERS: list[click.Parameter] = [
    click.Option(["--resource"], metavar="NOUN/NAME", help="Only events of this resource, or of this noun."),
    click.Option(["--node"], metavar="NODE", help="Only events on this node."),
    click.Option(["--actor", "actor"], metavar="WHO", help="Only what this actor asked for."),
    click.Option(["--kind"], metavar="KIND", help="Only this kind, such as acknowledgement or account.*"),
    click.Option(["--outcome"], metavar="WORD", help="Only this outcome, such as submitted, applied, failed."),
    click.Option(["--job", "job_id"], type=_ANY_ID, metavar="ID", help="Only events of this job."),
    click.Option(["--since"], metavar="TIME", help="From then on: 2026-11-24T10:00Z, 15m, 2h or 3d (ago)."),
    click.Option(["--until"], metavar="TIME", help="Only before then."),
]  # fmt: skip


def _filter(values: dict[str, Any]) -> EventFilter:
    from ..event_search import EventFilter

    noun, name = resource_filter(values["resource"])
    plain = {key: values[key] for key in ("node", "actor", "kind", "outcome", "job_id")}
    return EventFilter(noun=noun, name=name, since=moment(values["since"]), until=moment(values["until"]),
                       before_id=values.get("before"), **plain)  # fmt: skip


def _list(limit: int, **values: Any) -> None:
    session = current()
    found = list(session.client.events(_filter(values), limit))
    columns = ("id", "at", "kind", "actor", "resource", "node", "job", "outcome", "detail")
    rows = [
        (e["id"], e["at"][:23], e["kind"], e["actor"], f"{e['noun']}/{e['name']}" if e["noun"] else None, e["node"],
         e["job_id"], e["outcome"], e["detail"].get("reason") or e["detail"].get("difference"))
        for e in found
    ]  # fmt: skip
    emit(session, found, lambda: table(session, columns, rows, "no events"))


def _show(event_id: int) -> None:
    session = current()
    found = session.client.event(event_id)
    emit(session, found, lambda: pairs(found | {"seal": found["hash"] or "not sealed yet"}))


def _export(format_: str, path: str | None, limit: int | None, **values: Any) -> None:
    write(current().client.events(_filter(values), limit), format_, path)


def _verify(head: str | None) -> int:
    session = current()
    verdict = session.client.verify(_head(head) if head else None)
    at = f"{verdict.position}:{verdict.hash}"
    good = f"audit chain ok: {verdict.events} events, head {at}, {verdict.unsealed} not sealed yet"
    text = f"audit chain broken: {verdict.problem}" if verdict.problem else good
    emit(session, dataclasses.asdict(verdict) | {"ok": not verdict.problem}, lambda: click.echo(text))
    return 1 if verdict.problem else 0


def _head(text: str) -> Head:
    from ..seal import Head

    if not (match := re.fullmatch(r"([0-9]{1,18}):([0-9a-f]{64})", text)):
        raise Invalid(f"{text!r} is no head: POSITION:HASH", hint="onehost audit head")
    return Head(int(match[1]), match[2])


def _print_head() -> None:
    from ...models.store import reading
    from .. import seal

    session = current()
    with reading(session.client.engine) as connection:
        head = seal.head(connection)
    emit(session, head, lambda: click.echo(f"{head.position}:{head.hash}"))


_ID = click.Argument(["event_id"], type=_ANY_ID, metavar="ID")
_BEFORE = click.Option(["--before"], type=_ANY_ID, metavar="ID", help="Only older events: the next page.")
_LIMIT = click.Option(["--limit"], type=click.IntRange(1, 100000), default=50, show_default=True, help="How many.")
_EXPORT: list[click.Parameter] = [
    click.Option(["--format", "format_"], type=click.Choice(FORMATS), default="jsonl", show_default=True, help="How."),
    click.Option(["--file", "path"], metavar="FILE", help="Where to, once it is whole; else standard output."),
    click.Option(["--limit"], type=_ANY_ID, help="How many at most; else all."),
]
_HEAD = click.Option(["--head"], metavar="POSITION:HASH", help="A head kept elsewhere: shows if the end was cut off.")

audit = Group("audit", help="Who did what, when, on which node; proof of it.", no_args_is_help=True,
              example="audit list --resource account/alice --since 3d")  # fmt: skip
for command in (
    Command("list", callback=_list, params=[*_FILTERS, _BEFORE, _LIMIT], help="Events, newest first.",
            example="audit list --resource account/alice --since 3d"),
    Command("show", callback=_show, params=[_ID],
            help="One event with its seal.", example="audit show 7"),
    Command("export", callback=_export, params=[*_FILTERS, *_EXPORT], help="Events as a stream, newest first.",
            example="audit export --format csv --since 30d --file november.csv"),
    Command("verify", callback=_verify, params=[_HEAD], example="audit verify",
            help="Go through the whole chain; exit 1 and the first bad row if it does not hold."),
    Command("head", callback=_print_head, help="The newest seal, to be kept elsewhere.", example="audit head"),
    Command("run", callback=run_audit, help="The process that stores, seals and judges; until SIGTERM.",
            example="audit run"),
):  # fmt: skip
    audit.add_command(command)
