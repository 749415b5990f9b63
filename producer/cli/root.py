"""The root of the command line: global options, every command by section, one place where errors end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from ...models import nouns
from .failures import Mistake, guard
from .groups import Group, global_options
from .session import Session

#: Commands of each section of the help: name to (module, attribute, help). Nouns stand before them.
RESOURCES = {
    "lb": ("lb", "lb", "Virtual services with their real servers."),
    "get": ("documents", "get", "Any noun as a document that `apply` takes."),
    "apply": ("documents", "apply", "Make resources be as a file says."),
    "delete": ("documents", "delete", "Remove a resource of any noun."),
}
RECORDS = {
    "daemon": ("daemon", "daemon", "The daemons of a node: state, log, start, stop."),
    "status": ("status", "status", "One sentence on how the cluster is; its nodes."),
    "job": ("jobs", "job", "What became of wishes."),
    "dead": ("dead", "dead", "Messages that nobody could take in."),
    "audit": ("audit", "audit", "Who did what, when, on which node; proof of it."),
}
BRAKES = {
    "pause": ("brakes", "pause", "Stop every node between two rounds; wishes wait."),
    "resume": ("brakes", "resume", "Let them go on."),
}
MANAGER = {
    "init": ("setup", "init", "Set up this machine as the manager."),
    "db": ("setup", "db", "The store's tables."),
    "backup": ("backup", "backup", "The store in one file, while everything runs."),
    "restore": ("backup", "restore", "That file back, as a new life of the store."),
    "broker": ("broker", "broker", "Exchanges, queues, users and rights on RabbitMQ."),
    "relay": ("processes", "relay", "The process that sends what waits."),
    "worker": ("processes", "worker", "The process of a node."),
}
PROGRAM = {
    "completion": ("program", "completion", "Completion for bash, zsh or fish."),
    "version": ("program", "version", "The version of onehost."),
}


class Root(Group):
    """Nouns first, made from what they declare; then the rest."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*noun_names(), *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = cmd_name.replace("_", "-")
        if name in noun_names():
            from .noun_group import noun_group

            return noun_group(nouns.noun(name.replace("-", "_")))
        return super().get_command(ctx, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        first = [(name, _first_sentence(noun)) for name, noun in zip(noun_names(), nouns.nouns().values(), strict=True)]
        sections = {"Resources": RESOURCES, "Records": RECORDS, "Brakes": BRAKES, "The manager": MANAGER,
                    "This program": PROGRAM}  # fmt: skip
        for title, late in sections.items():
            with formatter.section(title):
                formatter.write_dl((first if late is RESOURCES else []) + self.rows(ctx, list(late)))

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *rest: Any, **more: Any) -> Any:
        """Runs, says what went wrong, and ends the process with the exit code."""
        given = sys.argv[1:] if args is None else list(args)
        run = super().main
        more["standalone_mode"] = False

        def act() -> Any:
            if any(0xD800 <= ord(char) <= 0xDFFF for word in given for char in word):
                raise Mistake("an argument holds bytes that are not UTF-8")
            return run(given, prog_name or "onehost", *rest, **more)

        sys.exit(guard(act))


def noun_names() -> list[str]:
    """Nouns as they are written on the command line."""
    return [name.replace("_", "-") for name in nouns.nouns()]


def _first_sentence(noun: nouns.Noun) -> str:
    text = (sys.modules[type(noun).__module__].__doc__ or noun.name).strip().splitlines()[0]
    meaning = text.partition(": ")[2]
    return meaning[:1].upper() + meaning[1:] or text


@click.pass_context
def _begin(ctx: click.Context) -> None:
    ctx.call_on_close(ctx.ensure_object(Session).close)


root = Root(
    "onehost",
    callback=_begin,
    params=global_options(hidden=False),
    late=RESOURCES | RECORDS | BRAKES | MANAGER | PROGRAM,
    no_args_is_help=True,
    help="A rack of Linux servers as one virtual web host.\n\nExit codes: 0 done, 1 failed on some node, 2 usage, "
    "3 refused, 4 not found, 5 conflict, 6 timeout (the job goes on), 7 store or broker out of reach.",
    example="account create alice --domain example.com --password",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
