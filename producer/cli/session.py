"""What holds for one run of the command line: settings, who asks, how answers are written, the client."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...models.errors import Invalid, Unreachable

if TYPE_CHECKING:
    from ...models.settings import Manager
    from .. import Onehost

OUTPUTS = ("table", "json", "yaml")


@dataclass
class Session:
    """Filled by the global options; everything costly is made when first used."""

    config: Path | None = None
    actor: str = ""
    output: str = "table"
    color: bool = field(default_factory=lambda: "NO_COLOR" not in os.environ)

    @cached_property
    def settings(self) -> Manager:
        """The manager's settings. Raises Invalid, also if the file named by --config does not exist."""
        from ...models import settings

        if self.config is not None and not self.config.exists():
            raise Invalid(f"settings file {self.config} does not exist", hint=f"onehost --config {self.config} init")
        return settings.manager(self.config)

    @cached_property
    def client(self) -> Onehost:
        """The manager's client in the name of the actor. Raises Invalid or Unreachable."""
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError

        from ..client import Onehost

        self._look_for_file()
        try:
            return Onehost(self.settings, actor=self.actor or who(), source="command line")
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise Invalid(f"store: {error}", hint='store = "sqlite:////var/lib/onehost/store.db"') from error

    def _look_for_file(self) -> None:
        """SQLite would make an empty file where there is none."""
        path = self.settings.store.removeprefix("sqlite:///")
        if path != self.settings.store and not Path(path).exists():
            raise Unreachable(f"store {path} does not exist", hint="onehost init")

    def close(self) -> None:
        """Lets go of the store, if it was used."""
        if "client" in self.__dict__:
            self.client.close()


def who() -> str:
    """The person at the keyboard, also behind sudo, and the machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid{os.getuid()}"
    if os.getuid() == 0:
        user = os.environ.get("SUDO_USER") or user
    return f"{user}@{socket.gethostname()}"


def is_terminal() -> bool:
    """Whether answers go to a person."""
    return sys.stdout.isatty()


def current() -> Session:
    """The session of the command that runs."""
    found = click.get_current_context().find_object(Session)
    assert found is not None, "every command runs below the root group"
    return found
