"""`completion` and `version`: about the program itself."""

from __future__ import annotations

import click

from .groups import Command
from .output import emit
from .session import current

SHELLS = ("bash", "zsh", "fish")


def _completion(shell: str) -> None:
    from click.shell_completion import get_completion_class

    from .root import root

    found = get_completion_class(shell)
    assert found is not None, "click knows the three shells"
    click.echo(found(root, {}, "onehost", "_ONEHOST_COMPLETE").source())


def _version() -> None:
    import platform

    from ... import __version__

    about = {"onehost": __version__, "python": platform.python_version()}
    emit(current(), about, lambda: click.echo(f"onehost {about['onehost']} (Python {about['python']})"))


completion = Command(
    "completion",
    callback=_completion,
    params=[click.Argument(["shell"], type=click.Choice(SHELLS))],
    help="Print the completion script of a shell.",
    example="completion bash > /etc/bash_completion.d/onehost",
)
version = Command("version", callback=_version, help="The version of onehost and of Python.", example="version")
