"""What all writes share: their options, the question before something is destroyed, and how the outcome is told."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
from click.termui import prompt

from ...models.errors import Invalid, Refused, TimedOut
from .failures import Mistake
from .moments import duration
from .output import as_json, cell, emit
from .session import Session, is_terminal

if TYPE_CHECKING:
    from ..wish import Receipt

#: How long a write waits, in seconds, unless --timeout says otherwise.
WAIT_SECONDS = 60.0


class _Seconds(click.ParamType[float]):
    """Seconds from 0 to a week; not "nan", which no clock ever reaches."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            found = float(value)
        except ValueError:
            found = -1.0
        if not 0 <= found <= 7 * 86400:
            self.fail(f"{value!r} is not a number of seconds from 0 to a week", param, ctx)
        return found


class _Duration(click.ParamType[timedelta]):
    """30s, 10m, 2h, 1d; a year at most."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        try:
            found = duration(str(value))
        except Invalid as error:
            self.fail(f"{error.what}; {error.hint}", param, ctx)
        if found > timedelta(days=366):
            self.fail(f"{value!r} is more than a year", param, ctx)
        return found


SECONDS = _Seconds()
DURATION = _Duration()


@dataclass(frozen=True)
class How:
    """The values of the shared options."""

    #: None: as is usual on this output.
    wait: bool | None = None
    timeout: float = WAIT_SECONDS
    everyone: bool = False
    dry_run: bool = False
    reason: str | None = None
    if_generation: int | None = None
    idempotency_key: str | None = None
    deadline: timedelta | None = None
    batch: str | None = None
    max_fail: int | None = None
    yes: str | None = None

    @classmethod
    def taken(cls, values: dict[str, Any]) -> How:
        """Takes the shared options out of a command's values."""
        known = {name: values.pop(name) for name in cls.__dataclass_fields__ if name in values}
        return cls(**known)

    def waits(self) -> bool:
        """Whether to wait for the nodes."""
        return is_terminal() if self.wait is None else self.wait

    def not_waiting(self) -> How:
        """The same, where waiting is not usual."""
        return self if self.wait is not None else replace(self, wait=False)

    def said(self) -> dict[str, Any]:
        """What the client takes along with a wish."""
        names = ("reason", "if_generation", "idempotency_key", "deadline", "batch", "max_fail")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def waiting_options() -> list[click.Parameter]:
    """Options of everything that can wait for a job."""
    return [
        click.Option(["--wait/--no-wait", "wait"], default=None, help="Wait for the nodes; usual on a terminal."),
        click.Option(["--wait-all", "everyone"], is_flag=True, help="Wait for nodes that are offline, too."),
        click.Option(["--timeout"], type=SECONDS, default=WAIT_SECONDS, metavar="SECONDS", show_default=True,
                     help="How long to wait; the job goes on after it."),
    ]  # fmt: skip


def write_options(
    *, asks: bool = False, dry_run: bool = True, generation: bool = True, key: bool = True
) -> list[click.Parameter]:
    """The shared options of a write."""
    made = waiting_options()
    if dry_run:
        made.append(click.Option(["--dry-run"], is_flag=True, help="Say what would change, and change nothing."))
    made.append(click.Option(["--reason"], metavar="TEXT", help="Why, for the audit store."))
    made += _way_options()
    if generation:
        help_text = "Refuse unless the resource is at this generation; 0: unless it does not exist."
        made.append(click.Option(["--if-generation"], type=click.IntRange(0), metavar="N", help=help_text))
    if key:
        help_text = "The same key again gives the same job instead of a second one."
        made.append(click.Option(["--idempotency-key"], metavar="KEY", help=help_text))
    if asks:
        made.append(click.Option(["--yes"], metavar="NAME", help="The name again, instead of being asked for it."))
    return made


def _way_options() -> list[click.Parameter]:
    """How a job is to go its way."""
    batch_help = "Change so many nodes at a time, or such a share of them; the next ones when these are done."
    fail_help = "Open no further stage once more nodes than this have failed; 0 with --batch."
    return [
        click.Option(["--deadline"], type=DURATION, metavar="TIME", help="How long the job counts: 30s, 10m, 2h; 1d."),
        click.Option(["--batch"], metavar="N|N%", help=batch_help),
        click.Option(["--max-fail"], type=click.IntRange(0), metavar="K", help=fail_help),
    ]


def confirm(what: str, name: str, how: How) -> None:
    """Makes sure that somebody means to destroy `name`. Raises Refused."""
    if how.dry_run or how.yes == name:
        return
    if how.yes is not None:
        raise Refused(f"--yes {how.yes} does not name {name}", hint=f"--yes {name}")
    if not sys.stdin.isatty():
        raise Refused(f"{what} must be confirmed by its name", hint=f"--yes {name}")
    if prompt(f"This removes {what}. Type its name to go on", err=True) != name:
        raise Refused("the name is another one; nothing was changed")


def tell(session: Session, receipt: Receipt, how: How, nodes: Mapping[str, str] | None = None) -> int:
    """Tells what a wish became, waiting if asked to; `nodes`: what it means on each. Gives the exit code."""
    from . import follow

    about = f"{receipt.noun} {receipt.name}"
    job, late = None, None
    if receipt.job_id is not None and how.waits():
        try:
            job = follow.follow(session, receipt.job_id, how.timeout, everyone=how.everyone)
        except TimedOut as error:
            job, late = session.client.job(receipt.job_id), error
    data = {"receipt": receipt, "job": job} | ({"nodes": dict(nodes)} if nodes is not None else {})
    lines = [f"  {node}: {text}" for node, text in (nodes or {}).items()]
    emit(session, data, lambda: click.echo("\n".join([_sentence(about, receipt, job), *lines])))
    if late:
        raise late
    return follow.exit_code(session, job) if job else 0


def tell_dry_run(session: Session, receipt: Receipt, nodes: Mapping[str, Any]) -> None:
    """Tells what would change, in what is wanted and on each node that answered."""

    def show() -> None:
        print_difference(f"{receipt.noun} {receipt.name}", receipt.difference)
        if receipt.owned:
            click.echo(f"  with it: {counted(receipt.owned)}")
        if receipt.held:
            click.echo(
                "  it would be held for a person: the limit of removals and suspensions within an hour is reached"
            )
        for node, said in nodes.items():
            found = ", ".join(f"{part}: {cell(text)}" for part, text in said.get("difference", {}).items())
            click.echo(f"  on {node}: {said.get('reason') or found or 'nothing would change'}")

    emit(session, as_json(receipt) | {"job_id": None, "dry_run": True, "nodes": dict(nodes)}, show)


def counted(numbers: Mapping[str, int]) -> str:
    """3 domains, 1 ftp login."""
    from ...models import nouns

    words = ((number, nouns.noun(name).plural if number != 1 else name) for name, number in numbers.items())
    return ", ".join(f"{number} {word.replace('_', ' ')}" for number, word in words)


def _sentence(about: str, receipt: Receipt, job: Mapping[str, Any] | None) -> str:
    from . import follow

    if receipt.dropped is not None:
        return f"{about}: job {receipt.dropped} is cancelled; it was held, so nothing had been changed"
    if receipt.job_id is None:
        return f"{about}: unchanged"
    if receipt.held:
        return follow.held(about, receipt.job_id)
    if job is not None:
        return follow.summary(job)
    if receipt.grace_until_at is not None:
        return f"{about}: job {receipt.job_id} {follow.grace(receipt.job_id, receipt.grace_until_at)}"
    nodes = f"for {receipt.targets} node" + ("" if receipt.targets == 1 else "s")
    if not receipt.targets and receipt.owned:
        nodes = f"for {counted(receipt.owned)}"
    return f"{about}: job {receipt.job_id} {nodes} (onehost job wait {receipt.job_id})"


def print_difference(about: str, difference: Mapping[str, str]) -> None:
    """What would change, a field a line."""
    if not difference:
        click.echo(f"{about}: nothing would change")
        return
    click.echo(f"{about}: would change")
    for name, text in difference.items():
        click.echo(f"  {name}: {cell(text)}")


def needs_something(values: Mapping[str, Any], options: Sequence[str], command: str) -> None:
    """Raises Mistake if none of the options was given."""
    if not values:
        raise Mistake(f"nothing to set; give at least one of {', '.join(options)}", hint=f"{command} --help")
