"""`onehost dead`: messages that nobody could take in; each is kept until a person retries or drops it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ...models.errors import Refused
from .failures import Mistake
from .groups import Command, Group
from .output import emit, pairs, table
from .session import Session, current

if TYPE_CHECKING:
    from ..dead import DeadFilter

#: What both databases can hold.
_ANY_ID = click.IntRange(1, 2**63 - 1)
STATES = ("kept", "retrying", "retried", "dropped")


def _filter(queue: str | None, user: str | None, state: str | None, before: int | None = None) -> DeadFilter:
    from ..dead import DeadFilter

    return DeadFilter(queue=queue, user=user, state=state, before_id=before)


def _list(limit: int, before: int | None, **given: str | None) -> None:
    from ...models.store import reading
    from .. import dead as letters

    session = current()
    with reading(session.client.engine) as connection:
        found = letters.letters(connection, _filter(**given, before=before), limit)
    columns = ("id", "at", "queue", "user", "key", "bytes", "state", "why")
    rows = [
        (d["id"], d["at"], d["queue"], d["user"], d["routing_key"], d["size_bytes"], d["state"], d["why"])
        for d in found
    ]
    emit(session, found, lambda: table(session, columns, rows, "no dead letters"))


def _show(dead_id: int) -> None:
    from ...models.store import reading
    from .. import dead as letters

    session = current()
    with reading(session.client.engine) as connection:
        found = letters.letter(connection, dead_id)
    emit(session, found, lambda: pairs({name.replace("_", " "): value for name, value in found.items()}))


def _retry(**values: Any) -> int:
    from ..dead import retry

    return _decide("retry", retry, **values)


def _drop(**values: Any) -> int:
    from ..dead import drop

    return _decide("drop", drop, **values)


def _decide(word: str, act: Callable[..., dict[str, Any]], dead_id: int | None, everything: bool, yes: int | None,
            queue: str | None, user: str | None) -> int:  # fmt: skip
    """One letter, or all that the filters leave; those that a rule keeps from it are named."""
    session = current()
    if everything == (dead_id is not None):
        raise Mistake("give the id of a dead letter, or --all", hint="onehost dead list")
    refused: list[str] = []
    if dead_id is not None:
        if queue or user:
            raise Mistake("--queue and --user go with --all only", hint=f"onehost dead {word} --all --queue NAME")
        done = [_one(session, act, dead_id)]
    else:
        done, refused = _all(session, word, act, _filter(queue, user, "kept"), yes)

    def words() -> None:
        for each in done[:20]:
            click.echo(f"dead letter {each['id']}: {each['state']}")
        if len(done) > 20 or not done:
            click.echo(f"{len(done)} dead letters in all")
        for why in refused[:20]:
            click.echo(why, err=True)

    emit(session, {"done": done, "refused": refused}, words)
    return Refused.exit_code if refused else 0


def _one(session: Session, act: Callable[..., dict[str, Any]], dead_id: int) -> dict[str, Any]:
    from ...models.moment import now
    from ...models.store import writing

    with writing(session.client.engine) as connection:
        return act(connection, dead_id, session.client.actor, now())


def _all(session: Session, word: str, act: Callable[..., dict[str, Any]], which: DeadFilter,
         yes: int | None) -> tuple[list[dict[str, Any]], list[str]]:  # fmt: skip
    ids = list(_ids(session, which))
    if ids:
        _confirm(word, len(ids), yes)
    done: list[dict[str, Any]] = []
    refused: list[str] = []
    for dead_id in ids:
        try:
            done.append(_one(session, act, dead_id))
        except Refused as error:
            refused.append(error.what)
    return done, refused


def _ids(session: Session, which: DeadFilter) -> Iterator[int]:
    """Every letter that matches now, page by page, the oldest of a page last."""
    from dataclasses import replace

    from ...models.store import reading
    from .. import dead as letters

    while True:
        with reading(session.client.engine) as connection:
            page = [each["id"] for each in letters.letters(connection, which, letters.ALL_AT_ONCE)]
        yield from page
        if len(page) < letters.ALL_AT_ONCE:
            return
        which = replace(which, before_id=page[-1])


def _confirm(word: str, count: int, yes: int | None) -> None:
    """The count comes first. Raises Refused unless somebody means that many."""
    if yes == count:
        return
    what = f"{count} dead letter{'' if count == 1 else 's'}"
    if yes is not None:
        raise Refused(f"there are {what}, not {yes}; nothing was changed", hint=f"--yes {count}")
    if not sys.stdin.isatty():
        raise Refused(f"this would {word} {what}", hint=f"--yes {count}")
    click.confirm(f"This will {word} {what}. Go on?", abort=True, err=True)


_WHICH: list[click.Parameter] = [
    click.Option(["--queue"], metavar="NAME", help="Only letters that died in this queue, such as onehost.node.web1."),
    click.Option(["--user"], metavar="USER", help="Only letters of this broker user, such as relay or node-web1."),
]
_LIST: list[click.Parameter] = [
    *_WHICH,
    click.Option(["--state"], type=click.Choice(STATES), help="Only letters in this state."),
    click.Option(["--before"], type=_ANY_ID, metavar="ID", help="Only older letters: the next page."),
    click.Option(["--limit"], type=click.IntRange(1, 10000), default=50, show_default=True, help="How many at most."),
]
_DECIDE: list[click.Parameter] = [
    click.Argument(["dead_id"], type=_ANY_ID, metavar="[ID]", required=False),
    click.Option(["--all", "everything"], is_flag=True, help="All that are kept, and match the filters."),
    *_WHICH,
    click.Option(["--yes"], type=click.IntRange(0), metavar="COUNT", help="How many, instead of being asked."),
]

dead = Group("dead", help="Messages that nobody could take in.", example="dead list --state kept", no_args_is_help=True)
for command in (
    Command("list", callback=_list, params=_LIST, help="Dead letters, newest first.",
            example="dead list --state kept --user node-web1"),
    Command("show", callback=_show, params=[click.Argument(["dead_id"], type=_ANY_ID, metavar="ID")],
            help="One dead letter with its body; secrets are masked.", example="dead show 3"),
    Command("retry", callback=_retry, params=_DECIDE, example="dead retry --all --queue onehost.node.web1",
            help="Send a dead letter on its way once more: the relay to its node, or the audit process takes it in."),
    Command("drop", callback=_drop, params=_DECIDE, example="dead drop 3",
            help="Give a dead letter up. What it was and who dropped it stays on record; its body goes."),
):  # fmt: skip
    dead.add_command(command)
