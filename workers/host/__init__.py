"""The machine: the only place of onehost that touches files, users, daemons and processes of a node."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from ...models.errors import HostError
from . import machine as machines
from .access_log import AccessLog
from .apache import Apache
from .cron import Cron
from .daemon import Daemon
from .director import Director
from .ftp import Ftp
from .homes import Homes
from .identity import Identity
from .kept import Kept, sweep
from .machine import Machine
from .owned import Checked
from .php import Php
from .program import PhpMasters, Program, fingerprint
from .sessions import Sessions
from .ssh import Ssh
from .tls import Tls
from .users import Users

__all__ = ["Daemon", "Host"]

log = logging.getLogger(__name__)

#: Which daemons a node needs, by what it does for the cluster.
NEEDS = {
    "web": ("users", "php", "apache", "identity", "tls", "cron"),
    "ssh": ("users", "ssh", "identity", "cron"),
    "ftp": ("users", "ftp", "identity"),
    "director": ("director",),
    "storage": (),
}


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
        self.ftp = Ftp(machine, self.sessions)
        self.cron = Cron(machine)
        self.apache = Apache(machine)
        self.access_log = AccessLog(machine)
        self.tls = Tls(machine, self.apache)
        self.identity = Identity(machine, (self.apache,))
        self.director = Director(machine)
        #: What a person may name and order about.
        self.programs = _programs(self)
        #: Programs that somebody stopped on purpose: nothing starts them but another order.
        self.stopped: frozenset[str] = frozenset()
        self._recovered: set[str] = set()
        self._serving = False
        self.daemons: tuple[Daemon, ...] = (
            self.users,
            self.php,
            self.ssh,
            self.ftp,
            self.cron,
            self.tls,
            self.apache,
            self.identity,
            self.director,
        )

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
                    self._keep_own(daemon)
                    self._recover(daemon)
                except HostError as error:
                    log.warning("not set up", extra={"action": "recover", "daemon": daemon.name, "why": str(error)})

    def start(self, roles: frozenset[str]) -> None:
        """Starts what the node's roles need. A daemon that does not start is tried again by the next signal."""
        self._serving = True
        for daemon in self._needed(roles):
            try:
                self._start(daemon)
            except HostError as error:
                log.warning("not started", extra={"action": "start", "daemon": daemon.name, "why": str(error)})

    def sweep(self, roles: frozenset[str]) -> None:
        """Deletes what was kept for long enough: overwritten files; on a storage node, homes in the trash."""
        sweep(self.machine, datetime.now(UTC))
        if "storage" in roles:
            for gone in self.homes.sweep(datetime.now(UTC)):
                log.info("deleted from the trash", extra={"action": "sweep", "home": gone})

    def require(self, roles: frozenset[str]) -> None:
        """Makes sure that what these roles need is set up. Raises Blocked or Temporary if it cannot be."""
        for daemon in self._needed(roles):
            if daemon.name not in self._recovered:
                self._recover(daemon)

    def _keep_own(self, daemon: Daemon) -> None:
        """Keeps what stands in place of the daemon's own files: setting it up overwrites that."""
        try:
            is_checked = isinstance(daemon, Checked) and daemon.name != "users"  # whose files a start leaves alone
            found = daemon.check(frozenset(), frozenset()) if is_checked else []  # type: ignore[attr-defined]
        except (HostError, OSError, ValueError):
            return  # it was never set up here
        kept = Kept(self.machine)
        for each in found:
            if each.kind == "content" and not each.owner and (where := kept.keep(each.path)):
                log.warning("overwritten", extra={"action": "recover", "path": each.path, "kept": where})

    def _recover(self, daemon: Daemon) -> None:
        daemon.recover()
        self._recovered.add(daemon.name)
        if self._serving:
            self._start(daemon)

    def _start(self, daemon: Daemon) -> None:
        if not any(each.part is daemon and each.name in self.stopped for each in self.programs.values()):
            daemon.start()

    def needs(self, name: str, roles: frozenset[str]) -> bool:
        """Whether a node that does this needs the daemon of that name."""
        return any(name in NEEDS.get(role, ()) for role in roles)

    def recover_again(self, names: Collection[str]) -> None:
        """Sets these daemons up as at the start of the worker. Raises Blocked or Temporary."""
        for daemon in self.daemons:
            if daemon.name in names:
                self._recovered.discard(daemon.name)
                self._recover(daemon)

    def needed_programs(self, roles: frozenset[str]) -> list[Program]:
        """Those that this node needs, for what it does in the cluster, and has."""
        needed = self._needed(roles)
        return [each for each in self.programs.values() if each.part in needed and each.installed]

    def down(self, roles: frozenset[str]) -> list[str]:
        """Programs that should run and do not; none before they may run, and none that was stopped on purpose."""
        if not self._serving or not self.machine.real:
            return []
        mine = [each for each in self.needed_programs(roles) if each.name not in self.stopped]
        return [each.name for each in mine if not each.runs()]

    def fingerprint(self, roles: frozenset[str]) -> int:
        """Changes whenever a file that `check` looks at does. Costs a look at each, and reads none."""
        places = ["/etc/onehost", "/var/lib/extrausers", *(place for each in self.programs.values()
                                                           for place in each.reads)]  # fmt: skip
        homes = self.homes.marked() if "storage" in roles else ()
        return hash((fingerprint(self.machine, places), homes))

    def _needed(self, roles: frozenset[str]) -> list[Daemon]:
        needed = {name for role in roles for name in NEEDS.get(role, ())}
        return [daemon for daemon in self.daemons if daemon.name in needed]


def _programs(host: Host) -> dict[str, Program]:
    """Every daemon that a node may have, by the name that people know."""
    machine, apache, director, ssh = host.machine, host.apache, host.director, host.ssh
    logs, ftp = "/var/log", host.ftp
    known = (
        Program(machine, "apache", "apache2", ("/usr/sbin/apache2",), (f"{logs}/apache2/error.log",), ("/etc/apache2",),
                apache.test, apache, is_ours=True),
        PhpMasters(machine, "php", "", ("/usr/sbin/php-fpm[0-9]*",), (f"{logs}/onehost/php-shard*.log",), (),
                   host.php.test, host.php, is_ours=True),
        Program(machine, "ssh", "ssh", ("/usr/sbin/sshd",), (f"{logs}/auth.log",), ("/etc/ssh",), ssh.test, ssh),
        Program(machine, "proftpd", "proftpd", ("/usr/sbin/proftpd",), (f"{logs}/proftpd/proftpd.log",),
                ("/etc/proftpd",), ftp.test, ftp, is_ours=True),
        Program(machine, "haproxy", "haproxy", ("/usr/sbin/haproxy",), (f"{logs}/haproxy.log",), ("/etc/haproxy",),
                director.test, director, is_ours=True, has_work=director.has_work),
        Program(machine, "keepalived", "keepalived", ("/usr/sbin/keepalived",), (), ("/etc/keepalived",),
                lambda: _words(machine, "keepalived", "-t")),
        Program(machine, "cron", "cron", ("/usr/sbin/cron",), (f"{logs}/cron.log",), part=host.cron),
    )  # fmt: skip
    return {each.name: each for each in known}


def _words(machine: Machine, *argv: str) -> str:
    """What a program says of its configuration; empty if it takes it."""
    said = machine.runner.run(argv)
    return f"{argv[0]}: {said.words}" if said.code else ""
