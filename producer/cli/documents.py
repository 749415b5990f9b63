"""`get`, `apply -f` and `delete`: any noun, as documents."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from ...models import nouns
from ...models.errors import TimedOut
from . import follow, node, roads
from .groups import Command
from .noun_group import show, wish
from .output import as_json, emit, table
from .session import Session, current
from .writing import How, print_difference, tell, write_options

if TYPE_CHECKING:
    from ..wish import Receipt, Wish

FILE_OPTION = click.Option(
    ["-f", "--file", "path"], required=True, metavar="FILE", help="YAML or JSON, one or many documents; - is stdin."
)


def _get(noun: str, name: str | None) -> None:
    session = current()
    known = nouns.noun(noun.replace("-", "_"))
    if name is None:
        found = session.client.list(known.name)
        _write(session, known, found, one=False)
    else:
        _write(session, known, [session.client.get(known.name, known.check_name(name))], one=True)


def _write(session: Session, noun: nouns.Noun, found: list[dict[str, Any]], *, one: bool) -> None:
    """As documents that `apply` takes: without what only the manager gives, and without secrets, which are kept."""
    documents = [
        {"noun": noun.name, "name": each["name"],
         "spec": {key: value for key, value in each["spec"].items() if key not in noun.manager_fields}}
        for each in found
    ]  # fmt: skip
    if session.output == "yaml":
        import yaml

        click.echo(yaml.safe_dump_all(as_json(documents), sort_keys=False, allow_unicode=True), nl=False)
        return

    def words() -> None:
        if one:
            show(session, found[0])
            return
        columns = ("name", *noun.columns)
        rows = [(each["name"], *(each["spec"].get(column) for column in noun.columns)) for each in found]
        table(session, columns, rows, f"no {noun.plural.replace('_', ' ')}")

    emit(session, documents[0] if one else documents, words)


def _apply(path: str, no_broker: bool, **values: Any) -> int:
    from . import manifest

    session, how = current(), How.taken(values)
    wishes: list[Wish] = [
        session.client.wish(each.noun, each.name, "apply", each.spec, **how.said()) for each in manifest.read(path)
    ]
    receipts = session.client.submit(wishes, dry_run=how.dry_run)
    if how.dry_run:
        data = [as_json(receipt) | {"job_id": None, "dry_run": True} for receipt in receipts]
        emit(session, data, lambda: _differences(receipts))
        return 0
    has_nodes = any(receipt.noun == "node" and receipt.job_id for receipt in receipts) and not no_broker
    if has_nodes and how.waits():
        roads.bring_in_line(session)
    code = _tell_all(session, receipts, how)
    if has_nodes and not how.waits():
        roads.bring_in_line(session)
    return code


def _differences(receipts: list[Receipt]) -> None:
    for receipt in receipts:
        print_difference(f"{receipt.noun} {receipt.name}", receipt.difference)


def _tell_all(session: Session, receipts: list[Receipt], how: How) -> int:
    if len(receipts) == 1:
        return tell(session, receipts[0], how)
    until = time.monotonic() + how.timeout
    jobs: list[dict[str, Any]] = []
    late: TimedOut | None = None
    for job_id in [receipt.job_id for receipt in receipts if receipt.job_id is not None and how.waits()]:
        try:
            jobs.append(follow.follow(session, job_id, max(0.0, until - time.monotonic()), everyone=how.everyone))
        except TimedOut as error:
            jobs.append(session.client.job(job_id))
            late = late or error
    emit(session, {"receipts": receipts, "jobs": jobs}, lambda: _sentences(receipts, jobs))
    if late:
        raise late
    codes = [follow.exit_code(session, job) for job in jobs]
    # One that failed is told before one that is late or was overtaken.
    return follow.FAILED if follow.FAILED in codes else max(codes, default=0)


def _sentences(receipts: list[Receipt], jobs: list[dict[str, Any]]) -> None:
    became = {job["id"]: job for job in jobs}
    for receipt in receipts:
        about = f"{receipt.noun} {receipt.name}"
        if receipt.job_id in became:
            click.echo(follow.summary(became[receipt.job_id]))
        elif receipt.job_id is None:
            click.echo(f"{about}: unchanged")
        elif receipt.held:
            click.echo(follow.held(about, receipt.job_id))
        else:
            made = "made" if "resource" in receipt.difference else "changed"
            click.echo(f"{about}: {made} (job {receipt.job_id})")


def _delete(noun: str, name: str, no_broker: bool, **values: Any) -> int:
    session = current()
    known = nouns.noun(noun.replace("-", "_"))
    after = node.after(session, name, {"no_broker": no_broker}) if known.name == "node" else None
    return wish(session, known, name, "remove", {}, How.taken(values), asks=True, after=after)


_NOUN = click.Argument(["noun"])
get = Command(
    "get",
    callback=_get,
    params=[_NOUN, click.Argument(["name"], required=False)],
    help="One resource or all of a noun; -o yaml gives documents that `apply` takes.",
    example="get account alice -o yaml",
)
apply = Command(
    "apply",
    callback=_apply,
    params=[FILE_OPTION, *write_options(generation=False, key=False), node.no_broker_option()],
    help="Make resources be as a file says, all of them or none. Secrets left out are kept.",
    example="apply -f cluster.yaml --dry-run",
)
delete = Command(
    "delete",
    callback=_delete,
    params=[_NOUN, click.Argument(["name"]), *write_options(asks=True), node.no_broker_option()],
    help="Remove a resource from every node.",
    example="delete account alice --yes alice",
)
