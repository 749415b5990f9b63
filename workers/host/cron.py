"""Cron entries of accounts: files of this node, and one line for Debian's cron that looks at them each minute."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from ...models.errors import Blocked, Temporary
from ..cron import entry as entries
from ..cron.entry import FOLDER, PRIVATE, RUN, SERVING, CronEntry
from . import files
from .homes import HOME
from .machine import Machine
from .owned import Finding, Owned, check
from .tree import Tree

CONFIG = "/etc/cron.d/onehost"
PROGRAM = "/usr/sbin/cron"
#: The interpreter is the worker's own, so that both are of one version.
_CONFIG = """# onehost's own file, rewritten by its worker
SHELL=/bin/sh
MAILTO=""
* * * * * root {python} -I -m onehost.workers.cron
"""


class Cron:
    """The Daemon of cron: an entry's file by its owner, read anew by the next minute."""

    name = "cron"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.tree = Tree(machine.path(FOLDER))

    def get(self, owner: int) -> CronEntry | None:
        """The live entry of an owner; None if there is none or it cannot be read."""
        for content in self.tree.files(owner).values():
            try:
                return entries.parse(content)
            except ValueError:
                return None
        return None

    def put(self, entry: CronEntry) -> None:
        """Stages an entry."""
        self.tree.put(entry.owner, {f"{entry.name}.{entry.owner}.json": entry.render()})

    def drop(self, owner: int) -> None:
        """Stages the absence of an owner's entry."""
        self.tree.put(owner, {})

    def verify(self) -> None:
        """Raises Blocked if no cron could start anything here, or could start it a second time."""
        if self.machine.real and (why := locks_stay_here(Path("/proc/mounts").read_text())):
            raise Blocked(why)
        if self.machine.real and not Path(PROGRAM).exists():
            raise Blocked("cron is not installed on this node")
        if self.machine.real and self.machine.path(SERVING).exists() and not self._runs():
            raise Blocked("cron does not run on this node")

    # The contract of a Daemon.

    def changed(self) -> frozenset[int]:
        """See Daemon."""
        return self.tree.changed()

    def validate(self) -> None:
        """Nothing to try: each entry was checked when it was asked for, and is read by itself."""

    def switch(self) -> None:
        """See Daemon."""
        self.tree.switch()

    def signal(self) -> None:
        """Nothing to tell: the next minute reads what is live."""
        self.tree.signalled()

    def restore(self, owner: int) -> None:
        """See Daemon."""
        self.tree.restore(owner)

    def settle(self) -> None:
        """See Daemon."""
        self.tree.settle()

    def recover(self) -> None:
        """Sets up the folder, which only root may look into, and cron's one line."""
        folder = self.machine.path(PRIVATE)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self.tree.recover()
        files.ensure(self.machine.path(CONFIG), _config())

    def start(self) -> None:
        """See Daemon. Until then this node's cron starts nothing of accounts, though it may run since the boot."""
        run = self.machine.path(RUN)
        run.mkdir(parents=True, exist_ok=True)
        run.chmod(0o700)
        self.machine.path(SERVING).touch(mode=0o600)
        if self.machine.real and Path(PROGRAM).exists() and not self._runs():
            self.machine.runner.run(["systemctl", "start", "cron"], seconds=90).check(Temporary)

    def rest(self) -> None:
        """Cron is stopped on purpose: entries are applied all the same, and none is started, until `start`."""
        self.machine.path(SERVING).unlink(missing_ok=True)

    # See Checked.

    def check(self, settled: frozenset[int], known: frozenset[int]) -> list[Finding]:
        """See Checked. No command is shown."""
        wanted = [Owned(PRIVATE, mode=0o700, is_folder=True), Owned(CONFIG, _config().encode())]
        wanted += [replace(each, is_secret=True) for each in self.tree.owned(FOLDER, settled, known)]
        return check(self.machine, self.name, wanted, (FOLDER, f"{FOLDER}/trees/{self.tree.number}"))

    def forget(self) -> None:
        """See Checked."""
        self.tree.forget()

    def renew(self) -> None:
        """See Checked. Nothing to tell."""

    def _runs(self) -> bool:
        return not self.machine.runner.run(["systemctl", "is-active", "--quiet", "cron"]).code


def _config() -> str:
    return _CONFIG.format(python=sys.executable)


def locks_stay_here(mounts: str) -> str:
    """Why nodes could not see each other's locks in /home, from the text of /proc/mounts; empty if they can."""
    rows = [row for line in mounts.splitlines() if len(row := line.split()) > 3]
    found = [row for row in rows if row[1] in ("/", HOME)]
    if not found or not found[-1][2].startswith("nfs"):
        return ""
    wrong = {"nolock", "local_lock=all", "local_lock=flock"} & set(found[-1][3].split(","))
    return f"{HOME} is mounted with {wrong.pop()}: two nodes could start one entry" if wrong else ""
