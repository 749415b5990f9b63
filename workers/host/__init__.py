"""The machine: the only place of onehost that touches files, users, daemons and processes of a node."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

from ...models.errors import HostError
from . import machine as machines
from .apache import Apache
from .daemon import Daemon
from .director import Director
from .homes import Homes
from .machine import Machine
from .php import Php
from .sessions import Sessions
from .ssh import Ssh
from .users import Users

__all__ = ["Daemon", "Host"]

log = logging.getLogger(__name__)

#: Which daemons a node needs, by what it does for the cluster.
NEEDS = {"web": ("users", "php", "apache"), "ssh": ("users", "ssh"), "director": ("director",), "storage": ()}


class Host:
    """The parts of one machine. `daemons` is the order in which a round switches them.

    Users come first, so that nothing is served for a uid without a name; PHP before Apache, so that no site is served
    whose socket does not listen; the director last.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.users = Users(machine)
        self.homes = Homes(machine)
        self.sessions = Sessions(machine)
        self.php = Php(machine)
        self.ssh = Ssh(machine, self.users)
        self.apache = Apache(machine)
        self.director = Director(machine)
        self._recovered: set[str] = set()
        self._serving = False
        self.daemons: tuple[Daemon, ...] = (self.users, self.php, self.ssh, self.apache, self.director)

    @classmethod
    def real(cls) -> Host:
        """This machine."""
        return cls(machines.real())

    @classmethod
    def rehearsal(cls, folder: Path | str) -> Host:
        """A machine that is only a folder: every file is written below it, no daemon or process is touched."""
        return cls(machines.rehearsal(Path(folder)))

    def recover(self, roles: frozenset[str]) -> None:
        """Sets up, once in this process, what the node's roles need. Starts nothing.

        A daemon whose own files are broken is left for `require`, which says so to each resource that needs it.
        """
        for daemon in self._needed(roles):
            if daemon.name not in self._recovered:
                try:
                    self._recover(daemon)
                except HostError as error:
                    log.warning("not set up", extra={"action": "recover", "daemon": daemon.name, "why": str(error)})

    def start(self, roles: frozenset[str]) -> None:
        """Starts what the node's roles need. A daemon that does not start is tried again by the next signal."""
        self._serving = True
        for daemon in self._needed(roles):
            try:
                daemon.start()
            except HostError as error:
                log.warning("not started", extra={"action": "start", "daemon": daemon.name, "why": str(error)})

    def sweep(self, roles: frozenset[str]) -> None:
        """Deletes, on a storage node, homes that have been in the trash for longer than they are kept."""
        if "storage" in roles:
            for gone in self.homes.sweep(datetime.now(UTC)):
                log.info("deleted from the trash", extra={"action": "sweep", "home": gone})

    def require(self, roles: frozenset[str]) -> None:
        """Makes sure that what these roles need is set up. Raises Blocked or Temporary if it cannot be."""
        for daemon in self._needed(roles):
            if daemon.name not in self._recovered:
                self._recover(daemon)

    def _recover(self, daemon: Daemon) -> None:
        daemon.recover()
        self._recovered.add(daemon.name)
        if self._serving:
            daemon.start()

    def _needed(self, roles: frozenset[str]) -> list[Daemon]:
        needed = {name for role in roles for name in NEEDS.get(role, ())}
        return [daemon for daemon in self.daemons if daemon.name in needed]
