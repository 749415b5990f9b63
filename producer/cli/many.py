"""`job retry`, `cancel` and `release` with --where: first what is meant and how many, then each of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.termui import prompt

from ...models import names
from ...models.errors import Refused
from .failures import Mistake
from .moments import moment, resource_filter
from .output import cell, emit, table
from .session import Session
from .writing import How

if TYPE_CHECKING:
    from ..bulk import Done, Verb, Where

#: Jobs shown before it is asked whether they are meant.
SAMPLE = 5
#: Refusals told in words; all of them are in the JSON.
REFUSALS = 20
#: Jobs after which a line says how far it has come, where there is no terminal.
EACH = 1000
WORDS = ("state", "kind", "resource", "node", "actor", "since", "until")
PAST = {"retry": "retried", "cancel": "cancelled", "release": "released"}


def parse(text: str) -> Where:
    """The filter `state=failed,kind=account.*,resource=account/alice,node=web2,actor=…,since=2h`. Raises Mistake."""
    from ..bulk import Where

    given: dict[str, str] = {}
    for each in text.split(","):
        word, equals, value = (part.strip() for part in each.partition("="))
        if not equals or not value or word not in WORDS or word in given:
            raise Mistake(f"--where: {each.strip()!r} is no filter", hint=f"{', '.join(WORDS)}, each WORD=VALUE")
        given[word] = value
    noun, name = resource_filter(given.get("resource"))
    node = names.node(given["node"]) if "node" in given else None
    return Where(given.get("state"), given.get("kind"), noun, name, given.get("actor"), node,
                 moment(given.get("since")), moment(given.get("until")))  # fmt: skip


def many(session: Session, verb: Verb, where: str, how: How) -> int:
    """Does it to every job that matches. Exit code 1 if some were refused."""
    job_ids = session.client.matching(verb, parse(where))
    if how.dry_run or not job_ids:
        data = {"count": len(job_ids), "jobs": list(job_ids), "dry_run": how.dry_run}
        emit(session, data, lambda: _sample(session, verb, job_ids))
        return 0
    _confirm(session, verb, job_ids, how)
    done: list[Done] = []
    for each in session.client.each(verb, job_ids, reason=how.reason):
        done.append(each)
        _progress(len(done), len(job_ids))
    emit(session, [_plain(each) for each in done], lambda: _tell(verb, done))
    return 1 if any(each.refused for each in done) else 0


def _sample(session: Session, verb: str, job_ids: Sequence[int], *, err: bool = False) -> None:
    jobs = [session.client.job(job_id) for job_id in job_ids[:SAMPLE]]
    rows = [(j["id"], j["kind"], f"{j['noun']}/{j['name']}", j["state"], j["actor"], j["submitted_at"]) for j in jobs]
    if rows and not err:
        table(session, ("id", "kind", "resource", "state", "actor", "submitted"), rows)
    for row in rows if err else ():
        click.echo("  " + "  ".join(cell(value) for value in row), err=True)
    only = f" ({len(rows)} of them are shown)" if len(job_ids) > len(rows) else ""
    click.echo(f"{len(job_ids)} jobs would be {PAST[verb]}{only}", err=err)


def _confirm(session: Session, verb: str, job_ids: Sequence[int], how: How) -> None:
    """Makes sure that somebody means so many jobs. Raises Refused."""
    count = str(len(job_ids))
    if how.yes == count:
        return
    if how.yes is not None:
        raise Refused(f"--yes {how.yes}, but {count} jobs match; nothing was changed", hint="--dry-run shows them")
    if session.output != "table" or not sys.stdin.isatty():
        raise Refused(f"{count} jobs match; that must be confirmed by their count", hint=f"--yes {count}")
    _sample(session, verb, job_ids, err=True)
    if prompt("Type their count to go on", err=True) != count:
        raise Refused("the count is another one; nothing was changed")


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{done} of {total}", nl=done == total, err=True)
    elif done % EACH == 0:
        click.echo(f"{done} of {total}", err=True)


def _plain(done: Done) -> Mapping[str, Any]:
    if done.refused:
        return {"job": done.job_id, "error": done.refused.what, "hint": done.refused.hint}
    return {"job": done.job_id, "receipt": done.receipt}


def _tell(verb: str, done: Sequence[Done]) -> None:
    refused = [each for each in done if each.refused]
    text = f"{len(done) - len(refused)} jobs {PAST[verb]}"
    held = sum(bool(each.receipt and each.receipt.held) for each in done)
    text += f", {held} of them held (onehost job list --state held)" if held else ""
    click.echo(text + (f", {len(refused)} refused:" if refused else ""))
    for each in refused[:REFUSALS]:
        click.echo(f"  job {each.job_id}: {each.refused.what if each.refused else ''}")
    if len(refused) > REFUSALS:
        click.echo(f"  and {len(refused) - REFUSALS} more; -o json has all")
