"""What another hand had made of an owned file, put aside before it is overwritten. Only root can read it."""

from __future__ import annotations

import os
import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from .machine import Machine

FOLDER = "/var/lib/onehost/kept"
#: Days that it is kept.
RETENTION_DAYS = 30
_STAMP = "%Y%m%dT%H%M%S.%fZ"


class Kept:
    """One folder for all that is overwritten together."""

    def __init__(self, machine: Machine, now: datetime | None = None) -> None:
        self.machine = machine
        self.folder = f"{FOLDER}/{(now or datetime.now(UTC)).strftime(_STAMP)}"
        self._done: set[str] = set()

    @property
    def is_used(self) -> bool:
        """Whether anything was kept."""
        return bool(self._done)

    def keep(self, path: str, *, take_away: bool = False) -> str:
        """Copies what is at `path`, or moves it away; gives where it is kept, empty if there was nothing."""
        place = self.machine.path(path)
        if path in self._done or not os.path.lexists(place):
            return self.folder + path if path in self._done else ""
        to = self._room(path)
        is_file = stat.S_ISREG(place.lstat().st_mode)
        if take_away:
            shutil.move(place, to)
        elif is_file:
            shutil.copyfile(place, to, follow_symlinks=False)
            to.chmod(0o600)
        else:
            return ""
        self._done.add(path)
        return self.folder + path

    def _room(self, path: str) -> Path:
        to = self.machine.path(self.folder + path)
        self.machine.path(FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.machine.path(FOLDER).chmod(0o700)
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return to


def sweep(machine: Machine, now: datetime, days: int = RETENTION_DAYS) -> None:
    """Deletes what has been kept for longer than `days`."""
    folder = machine.path(FOLDER)
    for place in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            kept_at = datetime.strptime(place.name, _STAMP).replace(tzinfo=UTC)
        except ValueError:
            continue
        if kept_at < now - timedelta(days=days):
            shutil.rmtree(place)
