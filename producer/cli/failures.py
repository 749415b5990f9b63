"""Whatever goes wrong becomes one line on standard error and an exit code; no secret is ever part of the line."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click

from ...models.errors import OnehostError

#: Set to anything, a mistake of onehost itself is shown with its traceback.
DEBUG = "ONEHOST_DEBUG"
#: Exit code of a mistake of onehost itself (EX_SOFTWARE of sysexits.h).
UNEXPECTED = 70
#: Exit code after Ctrl-C, as shells give it.
STOPPED = 130
USAGE = 2
#: Hashes of passwords, however they came into a message.
_HASHES = re.compile(r"\$(?:6|y)\$[^\s'\",]+")
#: The password in a URL.
_URL_PASSWORD = re.compile(r"(://[^:/@\s]+:)[^@\s]+@")


class Mistake(click.UsageError):
    """The command was put wrongly; `hint` names what to try."""

    def __init__(self, message: str, *, hint: str = "", ctx: click.Context | None = None) -> None:
        super().__init__(message, ctx)
        self.hint = hint


def guard(act: Callable[[], Any]) -> int:
    """Runs the command line and gives its exit code; says on standard error what went wrong."""
    try:
        result = act()
    except OnehostError as error:
        say(error.what, error.hint)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return USAGE
    except click.UsageError as error:
        say(*_usage(error))
        return USAGE
    except click.ClickException as error:
        say(error.format_message())
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("stopped; nothing was asked for")
        return STOPPED
    except Exception as error:
        return _unexpected(error)
    return result if isinstance(result, int) else 0


def say(what: str, hint: str = "") -> None:
    """`error: what. try: hint` on standard error."""
    line = f"error: {_shown(what).removesuffix('.')}"
    if hint:
        line += f". {_shown(hint)}" if hint.startswith("did you mean") else f". try: {_shown(hint)}"
    click.echo(line, err=True)


def _shown(text: str) -> str:
    return without_secrets(one_line(text))


def one_line(text: str) -> str:
    """Text with line breaks and control characters taken out, which could otherwise move a terminal's cursor."""
    joined = " ".join(text.split())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in joined)


def without_secrets(text: str) -> str:
    """Text without hashes of passwords and passwords in URLs."""
    return _URL_PASSWORD.sub(r"\1***@", _HASHES.sub("(hash)", text))


def _usage(error: click.UsageError) -> tuple[str, str]:
    ctx = error.ctx
    hint = getattr(error, "hint", "") or (f"{ctx.command_path} --help" if ctx else "onehost --help")
    message = error.format_message()
    if "unexpected extra argument" in message:
        # What stands there too much may be a password that was meant for --password.
        message = "there are more arguments than the command takes"
    return message, hint


def _unexpected(error: Exception) -> int:
    if os.environ.get(DEBUG):
        click.echo(without_secrets("".join(traceback.format_exception(error))), err=True)
    # A database's own error: SQLAlchemy's text around it repeats the statement's values.
    cause = getattr(error, "orig", None) or error
    what = str(cause).partition("\n")[0][:300]
    again = " ".join(os.path.basename(word) if number == 0 else word for number, word in enumerate(sys.argv[:3]))
    say(f"unexpected {type(cause).__name__}: {what}", f"{DEBUG}=1 {again} … shows where; please report it")
    return UNEXPECTED
