"""How a noun's options are written on the command line, and how what was written becomes fields of a spec."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.termui import prompt

from ...models.errors import Invalid
from ...models.nouns import Option
from ..passwords import hashed
from .failures import Mistake

#: A file of items (SSH keys) is never larger, in bytes.
MAX_FILE_BYTES = 1024 * 1024
#: A line read from standard input (a password, a hash) is never longer, in bytes.
MAX_LINE_BYTES = 4096
STDIN = "-"


def parameters(options: Sequence[Option]) -> list[click.Parameter]:
    """Click's parameters for these options: positional ones in order, then the others."""
    made: list[click.Parameter] = [_argument(option) for option in options if option.positional]
    for option in options:
        if not option.positional:
            made += _options(option)
    return made


def _argument(option: Option) -> click.Parameter:
    kind = click.INT if option.kind == "number" else click.STRING
    return click.Argument([option.field], type=kind, required=option.required)


def _options(option: Option) -> list[click.Parameter]:
    flag = "--" + option.field.replace("_", "-")
    more: dict[str, Any] = {"help": option.help, "required": option.required, "default": None}
    match option.kind:
        case "password":
            hash_help = "A sha512-crypt or yescrypt hash instead; - reads it from standard input."
            return [
                click.Option(["--password", "password"], is_flag=True, help=option.help),
                click.Option([flag, option.field], metavar="HASH", help=hash_help),
            ]
        case "limit":
            return [click.Option([flag, option.field], type=LIMIT, metavar="N|none", **more)]
        case "mapping":
            more["help"] += f' May be given again; {flag} "" takes all away.'
            return [click.Option([flag, option.field], multiple=True, metavar="NAME=VALUE", **more)]
        case "yes_no":
            return [click.Option([f"{flag}/--no-{flag[2:]}", option.field], **more)]
        case "number":
            return [click.Option([flag, option.field], type=int, metavar="N", **more)]
        case "choice":
            return [click.Option([flag, option.field], type=click.Choice(option.choices), **more)]
        case "list":
            kind = click.Choice(option.choices) if option.choices else None
            return [click.Option([flag, option.field], type=kind, multiple=True, **more)]
        case "file":
            more["help"] += " - is standard input."
            return [click.Option([flag, option.field], metavar="FILE", **more)]
        case _:
            return [click.Option([flag, option.field], metavar=option.field.rpartition("_")[2].upper(), **more)]


class _Limit(click.ParamType[Any]):
    """A number, or none; an empty text, as `fields` knows it, for none."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if str(value) == "none":
            return ""
        return click.INT.convert(value, param, ctx)


LIMIT = _Limit()
#: Words for what is no number.
_WORDS: dict[str, bool | None] = {"none": None, "yes": True, "no": False}


def mapping(given: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE each, where a value is a number, yes, no or none. Raises Mistake."""
    found: dict[str, Any] = {}
    for text in filter(None, given):
        name, equals, value = (part.strip() for part in text.partition("="))
        name = name.replace("-", "_")
        if not equals or not (value in _WORDS or (value.isascii() and value.isdigit() and len(value) < 16)):
            raise Mistake(f"{text!r} is not NAME=VALUE", hint="a value is a number, yes, no or none")
        if name in found:
            raise Mistake(f"{name} is said twice")
        found[name] = _WORDS[value] if value in _WORDS else int(value)
    return found


def fields(options: Sequence[Option], values: dict[str, Any], *, must_ask: bool = False) -> dict[str, Any]:
    """The spec's fields that were given. `must_ask`: a password is asked for even without --password."""
    found: dict[str, Any] = {}
    for option in options:
        value = values.get(option.field)
        if option.kind == "password":
            if (password := _password(option, values, must_ask)) is not None:
                found[option.field] = password
        elif option.kind == "file" and value is not None:
            found[option.field] = items(value)
        elif option.kind == "list" and value:
            found[option.field] = list(value)
        elif option.kind == "mapping" and value:
            found[option.field] = mapping(value)
        elif option.kind not in ("list", "mapping") and value is not None:
            # An empty text takes a setting away: --domain "".
            found[option.field] = None if value == "" else value
    return found


def _password(option: Option, values: dict[str, Any], must_ask: bool) -> str | None:
    given: str | None = values.get(option.field)
    if given is not None:
        if values.get("password"):
            raise Mistake("--password and its hash cannot be given together")
        return read_line("a hash") if given == STDIN else given
    if not values.get("password") and not must_ask:
        return None
    if sys.stdin.isatty():
        return hashed(prompt("Password", hide_input=True, confirmation_prompt="The same again", err=True))
    return hashed(read_line("a password"))


def read_line(what: str) -> str:
    """One line of standard input. Raises Invalid, without repeating it."""
    line = sys.stdin.buffer.readline(MAX_LINE_BYTES + 1)
    if not line or len(line) > MAX_LINE_BYTES:
        raise Invalid(f"{what} is expected as one line on standard input")
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise Invalid(f"{what} must be UTF-8") from None


def items(path: str) -> list[str]:
    """The lines of a file that say something. Raises Invalid."""
    lines = read_text(path, MAX_FILE_BYTES).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def source(path: str) -> str:
    """How a file is called in messages."""
    return "standard input" if path == STDIN else path


def read_text(path: str, max_bytes: int) -> str:
    """A text file, or standard input for `-`. Raises Invalid if it cannot be read, is too large or no UTF-8."""
    try:
        if path == STDIN:
            content = sys.stdin.buffer.read(max_bytes + 1)
        else:
            with Path(path).open("rb") as file:
                content = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise Invalid(f"{source(path)}: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > max_bytes:
        raise Invalid(f"{source(path)} is larger than {max_bytes} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Invalid(f"{source(path)} is not UTF-8 text") from None
