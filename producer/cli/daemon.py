"""`onehost daemon`: the daemons of a node. What changes one is an action with a job; the rest is asked and answered."""

from __future__ import annotations

from typing import Any

import click

from ...models import names, nouns
from ...models.nouns.node import DAEMON_VERBS, DAEMONS
from .groups import Command, Group
from .noun_group import wish
from .output import cell, emit, pairs, table
from .session import current
from .writing import How, write_options

COLUMNS = ("daemon", "state", "enabled", "needed", "processes", "note")


def _node() -> click.Argument:
    return click.Argument(["node"])


def _daemon() -> click.Argument:
    return click.Argument(["daemon"], type=click.Choice(DAEMONS))


def _act_command(verb: str, text: str) -> Command:
    def run(node: str, daemon: str, **values: Any) -> int:
        session, how = current(), How.taken(values)
        if how.dry_run:
            state = session.client.ask_daemon(names.node(node), "status", daemon=daemon)
            said = {"dry_run": True, "would": verb, **state}
            emit(session, said, lambda: click.echo(f"{daemon} on {node}: would {verb} it; it is {_words(state)}"))
            return 0
        return wish(session, nouns.noun("node"), node, f"daemon-{verb}", {"daemon": daemon}, how)

    params = [_node(), _daemon(), *write_options(generation=False)]
    return Command(verb, callback=run, params=params, help=text, example=f"daemon {verb} web1 apache")


def _words(state: dict[str, Any]) -> str:
    note = f"blocked: {state['blocked']}" if state["blocked"] else state["stopped"]
    return f"{state['state']}, {cell(note)}" if note else str(state["state"])


def _row(state: dict[str, Any]) -> tuple[Any, ...]:
    processes = ", ".join(f"{name} {pid}" for name, pid in state["pids"].items() if pid)
    note = f"blocked: {state['blocked']}" if state["blocked"] else state["stopped"]
    return (state["daemon"], state["state"], state["enabled"], state["needed"], processes, note)


def _list(node: str) -> None:
    session = current()
    told = session.client.ask_daemon(names.node(node), "list")
    rows = [_row(each) for each in told["daemons"]]
    emit(session, told["daemons"], lambda: table(session, COLUMNS, rows, "it has none"))


def _status(node: str, daemon: str) -> int:
    session = current()
    state = session.client.ask_daemon(names.node(node), "status", daemon=daemon)
    emit(session, state, lambda: pairs(dict(zip(COLUMNS, _row(state), strict=True))))
    return 0 if state["state"] in ("running", "idle") and not state["blocked"] else 1


def _test(node: str, daemon: str) -> int:
    session = current()
    told = session.client.ask_daemon(names.node(node), "test", daemon=daemon)
    emit(session, told, lambda: click.echo(f"{daemon} on {node}: {cell(told['words'])}"))
    return 0 if told["passes"] else 1


def _log(node: str, daemon: str, lines: int, only: str) -> None:
    session = current()
    told = session.client.ask_daemon(names.node(node), "log", daemon=daemon, lines=lines, only=only)
    emit(session, told, lambda: click.echo("\n".join(told["lines"]) if told["lines"] else "no such line"))


def _group() -> Group:
    group = Group("daemon", help="Daemons of a node: their state, their log, and what can be done to them.",
                  example="daemon list web1", no_args_is_help=True)  # fmt: skip
    more = [
        click.Option(["--lines", "-n"], type=click.IntRange(1, 500), default=50, show_default=True, metavar="N",
                     help="The last N lines."),
        click.Option(["--only"], default="", metavar="TEXT", help="Only lines with this text in them."),
    ]  # fmt: skip
    group.add_command(Command("list", callback=_list, params=[_node()], help="Every daemon that the node has.",
                              example="daemon list web1 -o json"))  # fmt: skip
    for verb, text in DAEMON_VERBS.items():
        group.add_command(_act_command(verb, text))
    both: list[click.Parameter] = [_node(), _daemon()]
    texts = {
        "status": (_status, both, "How it is: exit code 0 if it runs and is not blocked, else 1."),
        "log": (_log, [*both, *more], "The last lines of its log. Secrets that are known are masked."),
        "test": (_test, both, "What its own check says of the files it would read: exit code 0 if it takes them."),
    }
    for name, (run, params, text) in texts.items():
        example = f"daemon {name} web1 apache" + (" --lines 20 --only error" if name == "log" else "")
        group.add_command(Command(name, callback=run, params=params, help=text, example=example))
    return group


daemon = _group()
