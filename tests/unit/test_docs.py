"""The documents are true as far as a machine can tell: commands exist, files are there, words are explained."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from onehost.producer.cli.root import root

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md")])
#: The words of the project; each is explained in the glossary, and nowhere else.
WORDS = """resource noun spec generation revision placement claim job target stage action question relay ledger epoch
    incarnation round reconciler host acknowledgement event seal digest drift orphan role cordon drain uncordon director
    virtual_service real_server scheduler persistence weight plan daemon store verb outcome hello wish shard tombstone
    actor difference account batch hold grace_time pause""".split()
#: `onehost` as the first word of a command: not part of a path, an address or another word.
COMMAND = re.compile(r"(?<![\w./@:'-])onehost (?=[a-z-])")


def commands(text: str) -> Iterator[str]:
    """Every `onehost …` of fenced blocks (one a line, continued by a backslash) and of inline code."""
    fences = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    lines = [line for fence in fences for line in fence.replace("\\\n", " ").splitlines()]
    for line in [*lines, *inline]:
        code = re.split(r"\s#\s|\s#$", line)[0]
        for part in re.split(r"\s(?:\||&&|;|>)\s", code):
            if match := COMMAND.search(part):
                yield part[match.end() :].strip()


def problem(command: str) -> str:
    """What is wrong with a command, told by the program's own tree without running anything; empty if it exists."""
    words, is_cut = shlex.split(command), False
    if (cut := next((n for n, word in enumerate(words) if word in ("…", "...")), None)) is not None:
        words, is_cut = words[:cut], True
    context: click.Context = click.Context(root, info_name="onehost")
    given: click.Command = root
    while True:
        try:
            values, words, _ = given.make_parser(context).parse_args(words)
        except click.UsageError as error:
            return error.format_message()
        if not isinstance(given, click.Group):
            break
        if not words:
            return ""  # a group is only named
        found = given.get_command(context, words[0])
        if found is None:
            return f"{context.command_path} has no command {words[0]}"
        context = click.Context(found, info_name=words[0], parent=context)
        given, words = found, words[1:]
        if not words:
            return ""  # a command is only named
    if words:
        return f"{words[0]!r} is too much"
    return next(_wrong(context, given, values, is_cut), "")


def _wrong(context: click.Context, command: click.Command, values: dict[str, object], is_cut: bool) -> Iterator[str]:
    for parameter in command.params:
        value = values.get(parameter.name or "")
        texts = [each for each in (value if isinstance(value, list | tuple) else [value]) if isinstance(each, str)]
        if parameter.required and not texts and not is_cut:
            yield f"{parameter.name} is missing"
        if isinstance(parameter.type, click.Choice):
            for text in texts:
                if text not in parameter.type.choices:
                    yield f"{text} is none of {', '.join(parameter.type.choices)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_exists(document: Path) -> None:
    found = list(commands(document.read_text(encoding="utf-8")))
    assert {command: why for command in found if (why := problem(command))} == {}


def test_enough_commands_are_seen() -> None:
    found = {document.name: len(list(commands(document.read_text(encoding="utf-8")))) for document in DOCUMENTS}
    assert found["README.md"] >= 8 and found["operating.md"] >= 20 and found["quickstart.md"] >= 5


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("account create alice --domain example.com", ""),
        ("account create alice --colour red", "No such option"),
        ("account create alice bob", "too much"),
        ("account create --no-php", "name is missing"),
        ("account create …", ""),
        ("account create alice --access telnet", "none of"),
        ("acount create alice", "no command acount"),
        ("--actor panel:shop account suspend alice", ""),
        ("node add", ""),
    ],
)
def test_a_wrong_command_is_noticed(command: str, why: str) -> None:
    said = problem(command)
    assert why.lower() in said.lower() and bool(said) == bool(why)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_is_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = set(
        re.findall(r"`((?:models|broker_config|producer|workers|migrations|ops|tests|docs|examples)/[\w./-]+)`", text)
    )
    linked = {
        (document.parent / link).resolve()
        for link in re.findall(r"\]\(([^)#]+)\)", text)
        if not link.startswith("http")
    }
    missing = {str(path) for path in {CHECKOUT / name for name in named} | linked if not path.exists()}
    assert missing == set() or all("NAME" in each for each in missing)


def test_every_word_is_explained_once() -> None:
    rows = re.findall(r"^\| ([^|]+) \|", (CHECKOUT / "docs/glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    explained = [word.strip() for row in rows for word in row.split(",")]
    missing = [word.replace("_", " ") for word in WORDS if word.replace("_", " ") not in explained]
    assert missing == []
    assert len(explained) == len(set(explained))
