"""Apache's one log of all sites, set aside now and then; who still writes to what was set aside is seen in /proc.

    /var/log/onehost/access/access.log              where Apache writes, the site's name first in each line
    /var/log/onehost/access/access.log.STAMP        set aside, and not yet split by site
    /var/log/onehost/access/access.log.STAMP.split  split; kept for a day

The folder is root's alone, as lines of all tenants stand there together, and it is out of logrotate's way: what
logrotate renames would be split by nobody.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from . import files
from .machine import Machine

LOGS = "/var/log/onehost/access"
LOG = f"{LOGS}/access.log"
#: What was split is kept for this long: lines of names that no site has, and of homes that could not be written.
KEPT = timedelta(days=1)
_STAMP = "%Y%m%dT%H%M%SZ"
_ASIDE = re.compile(r"access\.log\.(\d{8}T\d{6}Z)(\.split)?")


class AccessLog:
    """See the module."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._folder, self._log = machine.path(LOGS), machine.path(LOG)

    def make(self) -> None:
        """Makes its folder, without which Apache would not start."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)

    def size(self) -> int:
        """Bytes that Apache has written since it was set aside last."""
        with suppress(FileNotFoundError):
            return self._log.stat().st_size
        return 0

    def set_aside(self, now: datetime) -> None:
        """Renames it, if there is anything in it. Apache goes on writing there until it opens its logs anew."""
        stamp = now.astimezone(UTC).strftime(_STAMP)
        if self.size() and not any(found.startswith(f"{self._log.name}.{stamp}") for found in self._names()):
            os.rename(self._log, f"{self._log}.{stamp}")
            files.sync_folder(self._folder)

    def waiting(self) -> list[Path]:
        """What was set aside and is not split, the oldest first."""
        found = sorted(name for name in self._names() if (match := _ASIDE.fullmatch(name)) and not match[2])
        return [self._folder / name for name in found]

    def writers(self, path: Path) -> set[int]:
        """Processes of Apache that have it open: its main process before a signal, then children with slow requests."""
        if not self._machine.real:
            return set()
        wanted = path.stat()
        return {pid for pid in _processes("apache2") if (wanted.st_dev, wanted.st_ino) in _open_files(pid)}

    def put_away(self, path: Path) -> None:
        """It is split."""
        os.rename(path, f"{path}.split")
        files.sync_folder(self._folder)

    def sweep(self, now: datetime) -> None:
        """Deletes what was split and kept for long enough."""
        for name in self._names():
            match = _ASIDE.fullmatch(name)
            if match and match[2] and datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC) < now - KEPT:
                (self._folder / name).unlink()

    def _names(self) -> list[str]:
        return os.listdir(self._folder) if self._folder.is_dir() else []


def _processes(name: str) -> list[int]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(int(pid))
    return found


def _open_files(pid: int) -> set[tuple[int, int]]:
    """Device and inode of each file that a process has open; none if it has ended."""
    found: set[tuple[int, int]] = set()
    with suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                its = os.stat(f"/proc/{pid}/fd/{number}")
                found.add((its.st_dev, its.st_ino))
    return found
