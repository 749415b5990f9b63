"""One group of commands per noun, made from what the noun declares: a command per verb, `list` and `show`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import click

from ...models import nouns
from ...models.nouns import Action, Noun, Verb
from . import account, given, node
from .completing import name_of
from .groups import Command, Group
from .output import cell, emit, pairs, table
from .session import Session, current
from .writing import How, confirm, needs_something, tell, tell_dry_run, write_options

#: Columns of the table of nodes of a resource.
NODE_COLUMNS = ("node", "state", "wanted", "done", "node is", "reason")


def noun_group(noun: Noun) -> Group:
    """The group of a noun."""
    word = noun.name.replace("_", "-")
    first = f"{word} {noun.verbs[0].example}" if noun.verbs else f"{word} list"
    text = f"{noun.name.replace('_', ' ').capitalize()}: " + ", ".join(verb.name for verb in noun.verbs)
    group = Group(word, help=text, example=first, no_args_is_help=True)
    for verb in noun.verbs:
        group.add_command(_verb_command(noun, verb, word))
    for action in (each for each in noun.actions if not each.kind):
        group.add_command(_action_command(noun, action, word))
    group.add_command(_list_command(noun, word))
    group.add_command(_show_command(noun, word))
    for command in _own(noun):
        group.add_command(command)
    return group


def _own(noun: Noun) -> Sequence[Command]:
    """What a noun has beside the verbs that it declares: COMMANDS of a module here that is called as it is."""
    if importlib.util.find_spec(f".{noun.name}", __package__) is None:
        return ()
    found: Sequence[Command] = getattr(importlib.import_module(f".{noun.name}", __package__), "COMMANDS", ())
    return found


def _verb_command(noun: Noun, verb: Verb, word: str) -> Command:
    own = node.options(noun, verb)

    def run(name: str, **values: Any) -> int:
        session = current()
        how = How.taken(values)
        after = node.after(session, name, values) if own else None
        only_password = len(verb.options) == 1 and verb.options[0].kind == "password"
        fields = given.fields(verb.options, values, must_ask=only_password)
        if own:
            fields |= node.said(values)
        if verb.options and not (verb.makes or verb.fixed):
            flags = ["--" + option.field.replace("_", "-") for option in verb.options]
            needs_something(fields, flags, f"onehost {word} {verb.name}")
        return wish(session, noun, name, verb.name, fields, how, asks=verb.asks, after=after)

    named = click.Argument(["name"]) if verb.makes else name_of(noun)
    params = [named, *given.parameters(verb.options), *write_options(asks=verb.asks), *own]
    return Command(verb.name, callback=run, params=params, help=verb.help, example=f"{word} {verb.example}")


def _action_command(noun: Noun, action: Action, word: str) -> Command:
    def run(name: str, **values: Any) -> int:
        return wish(current(), noun, name, action.name, {}, How.taken(values))

    params = [name_of(noun), *write_options(dry_run=False, generation=False)]
    text = f"{action.help} Once, within {action.deadline_seconds:g} s or not at all."
    return Command(action.name, callback=run, params=params, help=text, example=f"{word} {action.example}")


def wish(session: Session, noun: Noun, name: str, verb: str, fields: dict[str, Any], how: How, *, asks: bool = False,
         after: Callable[[], None] | None = None) -> int:  # fmt: skip
    """Asks the manager, tells the outcome, gives the exit code. `after` is done once the wish is in the store."""
    name = noun.check_name(name)
    if asks:
        session.client.get(noun.name, name)
        confirm(f"{noun.name} {name}", name, how)
    if after:
        # A node that was just added has no worker yet: waiting is not usual.
        how = how.not_waiting()
    if how.dry_run:
        tell_dry_run(session, *session.client.dry_run(session.client.wish(noun.name, name, verb, fields, **how.said())))
        return 0
    receipt = session.client.do(noun.name, name, verb, fields, **how.said())
    if after is None:
        return tell(session, receipt, how)
    if how.waits():
        after()
        return tell(session, receipt, how)
    code = tell(session, receipt, how)
    after()
    return code


def _list_command(noun: Noun, word: str) -> Command:
    def run() -> None:
        session = current()
        found = session.client.list(noun.name)
        columns = ("name", *(column.replace("_", " ") for column in noun.columns), "nodes", "open", "failed")
        rows = [
            (each["name"], *(each["spec"].get(column) for column in noun.columns), each["placements"], each["open"],
             each["failed"])
            for each in found
        ]  # fmt: skip
        empty = f"no {noun.plural.replace('_', ' ')}"
        emit(session, found, lambda: table(session, columns, rows, empty))

    text = f"Every {noun.name.replace('_', ' ')}, and on how many nodes it is open or failed."
    return Command("list", callback=run, help=text, example=f"{word} list -o json")


def _show_command(noun: Noun, word: str) -> Command:
    def run(name: str) -> None:
        session = current()
        found = session.client.get(noun.name, name) | account.beside(session, noun.name, name)
        emit(session, found, lambda: show(session, found))

    text = "What is wanted of it, and where each node stands."
    return Command("show", callback=run, params=[name_of(noun)], help=text, example=f"{word} show NAME")


def show(session: Session, found: dict[str, Any]) -> None:
    """A resource for people: its spec, then its nodes."""
    about = {"name": found["name"], "id": found["id"], "generation": found["generation"]}
    pairs(about | {key.replace("_", " "): value for key, value in found["spec"].items()})
    for key, daemons in found.get("machine", {}).items():
        for about, text in daemons.items():
            click.echo(f"{key}: {cell(about)}: {cell(text)}")
    click.echo()
    account.write_beside(session, found)
    if not found["nodes"] and not nouns.noun(found["noun"]).stages():
        return
    rows = [(n["node"], n["state"], n["wanted"], n["done"], n["node_state"], n["reason"]) for n in found["nodes"]]
    table(session, NODE_COLUMNS, rows, "it belongs on no node yet")
