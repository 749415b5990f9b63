"""A daemon's own sight of /home, in which the kernel follows no link.

Who looks whether a link may be followed, and opens the file a moment later, can be raced by a tenant who exchanges one
for the other. Where no link is followed there is nothing to win.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...models.errors import Temporary
from . import files
from .machine import Machine
from .owned import Owned

_STARTER = """#!/bin/sh
# onehost's own file, rewritten by its worker
exec unshare --mount --propagation private sh -ec '
    mount --rbind /home /home
    mount -o remount,bind,nosymfollow,nosuid,nodev /home
    exec {command}'
"""
_UNIT = """# onehost's own file, rewritten by its worker
[Unit]
RequiresMountsFor=/home
[Service]
ExecStart=
ExecStart={starter}
"""


@dataclass(frozen=True)
class OwnHome:
    """How one unit of the machine's init is started so."""

    machine: Machine
    unit: str
    command: str
    starter: str

    def settle(self) -> bool:
        """Writes the script that starts the daemon, and has its unit use it. Returns whether the script is new."""
        is_new = files.ensure(self.machine.path(self.starter), self._starter, 0o755)
        if files.ensure(self.machine.path(self._drop_in), self._unit) and self.machine.real:
            self.machine.runner.run(["systemctl", "daemon-reload"], seconds=90).check(Temporary)
        return is_new

    def has(self, pid: int) -> bool:
        """Whether the process sees a /home on which no link is followed."""
        lines = (files.read(Path(f"/proc/{pid}/mountinfo")) or b"").splitlines()
        home = [row[5].split(b",") for line in lines if (row := line.split()) and row[4] == b"/home"]
        return bool(home) and b"nosymfollow" in home[-1]

    def owned(self) -> list[Owned]:
        """How its files should be."""
        return [Owned(self._drop_in, self._unit.encode()), Owned(self.starter, self._starter.encode(), 0o755)]

    @property
    def _starter(self) -> str:
        return _STARTER.format(command=self.command)

    @property
    def _unit(self) -> str:
        return _UNIT.format(starter=self.starter)

    @property
    def _drop_in(self) -> str:
        return f"/etc/systemd/system/{self.unit}.service.d/onehost.conf"
