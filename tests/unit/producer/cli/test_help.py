"""Help answers at once, without the store's libraries, and every command has a text and an example that parses."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator

import click
import pytest

from onehost.models import nouns
from onehost.producer.cli.root import root

PROGRAM = [sys.executable, "-c", "from onehost.producer.cli import main; main()"]
#: Libraries that take long to load: none of them may be loaded to answer --help.
SLOW = ("sqlalchemy", "rich", "kombu", "pika", "alembic", "yaml", "passlib")


def commands(command: click.Command, ctx: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Every command below `command`, each with its context."""
    yield command, ctx
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            found = command.get_command(ctx, name)
            assert found is not None, name
            yield from commands(found, click.Context(found, parent=ctx, info_name=name))


ALL = list(commands(root, click.Context(root, info_name="onehost")))


def test_help_costs_little_more_than_the_library_it_is_written_with() -> None:
    bare, ours = [], []
    for _ in range(5):  # by turns, so that a busy machine slows both
        bare.append(seconds(sys.executable, "-c", "import click"))
        ours.append(seconds(*PROGRAM, "--help"))
    assert min(ours) < 8 * min(bare), (ours, bare)


def seconds(*command: str) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


@pytest.mark.parametrize("words", [("--help",), ("account", "create", "--help"), ("node", "--help"), ("version",)])
def test_no_slow_library_is_loaded_for_help(words: tuple[str, ...]) -> None:
    code = (
        f"import sys, atexit; atexit.register(lambda: print([n for n in {SLOW} if n in sys.modules], file=sys.stderr));"
    )
    program = [sys.executable, "-c", code + PROGRAM[-1], *words]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(("command", "ctx"), ALL, ids=[ctx.command_path for _, ctx in ALL])
def test_every_command_has_help_and_an_example(command: click.Command, ctx: click.Context) -> None:
    text = command.get_help(ctx)
    assert command.help and len(command.help) > 10
    assert "Example:\n  onehost " in text and "--help" in text


@pytest.mark.parametrize(("command", "ctx"), ALL, ids=[ctx.command_path for _, ctx in ALL])
def test_every_example_parses(command: click.Command, ctx: click.Context) -> None:
    words = shlex.split(command.example.partition(" > ")[0])  # type: ignore[attr-defined]
    assert words
    found: click.Command = root
    at = click.Context(root, info_name="onehost")
    while isinstance(found, click.Group) and words:
        name, found_next, words = found.resolve_command(at, words)
        assert found_next is not None
        at, found = click.Context(found_next, parent=at, info_name=name), found_next
    if not any("/etc/onehost" in word for word in words):
        found.parse_args(at, list(words))


def test_every_noun_and_verb_is_a_command() -> None:
    paths = {ctx.command_path for _, ctx in ALL}
    for noun in nouns.nouns().values():
        for verb in (*(verb.name for verb in noun.verbs), "list", "show"):
            assert f"onehost {noun.name.replace('_', '-')} {verb}" in paths


def test_underscores_are_taken_for_hyphens() -> None:
    ctx = click.Context(root, info_name="onehost")
    group = root.get_command(ctx, "virtual_service")
    assert group is not None and group.name == "virtual-service"


def test_completion_offers_commands() -> None:
    environment = {"_ONEHOST_COMPLETE": "bash_complete", "COMP_WORDS": "onehost acc", "COMP_CWORD": "1"}
    done = subprocess.run(PROGRAM, env=environment, capture_output=True, text=True, check=True)
    assert "plain,account" in done.stdout
