"""`get`, `apply -f` and `delete`: any noun, as documents."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ...models import nouns
from ...models.errors import Refused, TimedOut
from . import follow, node, roads
from .groups import Command
from .noun_group import show, wish
from .output import as_json, emit, table
from .session import Session, current
from .writing import How, confirm, print_difference, tell, write_options

if TYPE_CHECKING:
    from ..wish import Receipt, Wish
    from .manifest import Document

FILE_OPTION = click.Option(
    ["-f", "--file", "path"], required=True, metavar="FILE", help="YAML or JSON, one or many documents; - is stdin."
)


def _get(noun: str | None, name: str | None) -> None:
    session = current()
    if noun is None:
        _write_all(session)
        return
    known = nouns.noun(noun.replace("-", "_"))
    if name is None:
        found = session.client.list(known.name)
        _write(session, known, found, one=False)
    else:
        _write(session, known, [session.client.get(known.name, known.check_name(name))], one=True)


def _write(session: Session, noun: nouns.Noun, found: list[dict[str, Any]], *, one: bool) -> None:
    documents = _documents(noun, found)
    if session.output == "yaml":
        _yaml(documents)
        return

    def words() -> None:
        if one:
            show(session, found[0])
            return
        columns = ("name", *noun.columns)
        rows = [(each["name"], *(each["spec"].get(column) for column in noun.columns)) for each in found]
        table(session, columns, rows, f"no {noun.plural.replace('_', ' ')}")

    emit(session, documents[0] if one else documents, words)


def _write_all(session: Session) -> None:
    """The whole cluster as one file, in an order in which it can be made."""
    every = {noun: session.client.list(noun.name) for noun in nouns.nouns().values()}
    documents = [document for noun, found in every.items() for document in _documents(noun, found)]
    if session.output == "yaml":
        _yaml(documents)
        return
    rows = [(noun.plural.replace("_", " "), len(found)) for noun, found in every.items()]
    emit(session, documents, lambda: table(session, ("resources", "how many"), rows))


def _documents(noun: nouns.Noun, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As `apply` takes them: without what only the manager gives, and without secrets, which are kept."""
    return [
        {"noun": noun.name, "name": each["name"],
         "spec": {key: value for key, value in each["spec"].items() if key not in noun.manager_fields}}
        for each in found
    ]  # fmt: skip


def _yaml(documents: list[dict[str, Any]]) -> None:
    import yaml

    click.echo(yaml.safe_dump_all(as_json(documents), sort_keys=False, allow_unicode=True), nl=False)


def _apply(path: str, prune: bool, prune_limit: int, no_broker: bool, **values: Any) -> int:
    from . import manifest

    session, how = current(), How.taken(values)
    documents = manifest.read(path)
    wishes: list[Wish] = [
        session.client.wish(each.noun, each.name, "apply", each.spec, **how.said()) for each in documents
    ]
    if prune:
        wishes += _prune(session, documents, prune_limit, how)
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


def _prune(session: Session, documents: Sequence[Document], limit: int, how: How) -> list[Wish]:
    """The wishes that remove what the file does not name, of the nouns that it names. Raises Refused."""
    named = {(each.noun, each.name) for each in documents}
    beside = {
        noun.name: {each["name"]: each["spec"] for each in session.client.list(noun.name)
                    if (noun.name, each["name"]) not in named}
        for noun in nouns.nouns().values() if any(noun.name == each.noun for each in documents)
    }  # fmt: skip
    gone: list[tuple[str, str]] = []
    for noun_name, its in beside.items():
        owner = nouns.noun(noun_name).belongs_to
        # What belongs to something that goes, goes with it.
        gone += [
            (noun_name, name) for name, spec in its.items() if not owner or spec[owner] not in beside.get(owner, {})
        ]
    if len(gone) > limit:
        first = ", ".join(f"{noun} {name}" for noun, name in gone[:3])
        raise Refused(f"--prune would remove {len(gone)} resources, more than {limit}: {first} …",
                      hint=f"--dry-run shows them all; --prune-limit {len(gone)} if they are to go")  # fmt: skip
    if gone:
        confirm(f"{len(gone)} resources that the file does not name", str(len(gone)), how)
    return [session.client.wish(noun, name, "remove", {}, **how.said()) for noun, name in gone]


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
            made = receipt.difference.get("resource", "changed")
            click.echo(f"{about}: {made} (job {receipt.job_id})")


def _delete(noun: str, name: str, no_broker: bool, **values: Any) -> int:
    session = current()
    known = nouns.noun(noun.replace("-", "_"))
    after = node.after(session, name, {"no_broker": no_broker}) if known.name == "node" else None
    return wish(session, known, name, "remove", {}, How.taken(values), asks=True, after=after)


_NOUN = click.Argument(["noun"])
_PRUNE: list[click.Parameter] = [
    click.Option(["--prune"], is_flag=True,
                 help="Remove what the file does not name, of every noun that it names at least once."),
    click.Option(["--prune-limit"], type=click.IntRange(0), default=10, metavar="N", show_default=True,
                 help="Remove nothing at all if it would be more than this."),
    click.Option(["--yes"], metavar="COUNT", help="With --prune: how many go, instead of being asked."),
]  # fmt: skip
get = Command(
    "get",
    callback=_get,
    params=[click.Argument(["noun"], required=False), click.Argument(["name"], required=False)],
    help="One resource, all of a noun, or the whole cluster; -o yaml gives documents that `apply` takes.",
    example="get -o yaml > cluster.yaml",
)
apply = Command(
    "apply",
    callback=_apply,
    params=[FILE_OPTION, *_PRUNE, *write_options(generation=False, key=False), node.no_broker_option()],
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
