"""The daemons of a node as a person knows them: state, log, their own check, and what can be done to them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...models.errors import Permanent, Temporary
from .machine import Machine
from .owned import mask
from .php import Php

#: Lines of a log in one answer, the longest of them, and how far back in a file they are looked for, in bytes.
MOST_LINES, LONGEST_LINE, LOOK_BACK_BYTES = 500, 500, 1 << 20
#: Characters of a log in one answer.
MOST_TEXT = 100_000


@dataclass
class Program:
    """One daemon under the machine's init. `tests` gives the daemon's words about its live files; empty: they pass."""

    machine: Machine
    name: str
    unit: str
    #: Where its program is, as patterns; it is installed if one is there.
    binaries: tuple[str, ...]
    logs: tuple[str, ...] = ()
    #: Folders and files whose change may break it.
    reads: tuple[str, ...] = ()
    tests: Callable[[], str] = lambda: ""
    #: The part of the host that keeps its files; its `serving` says whether it may be started.
    part: Any = None
    #: Started by the worker, and never by the machine's init.
    is_ours: bool = False
    #: Whether it has anything to serve; if not, it need not run.
    has_work: Callable[[], bool] = lambda: True
    _seen: int = field(default=0, init=False)
    _ill: str = field(default="", init=False)

    @property
    def installed(self) -> bool:
        """Whether this machine has it."""
        return any(next(Path("/").glob(pattern.lstrip("/")), None) for pattern in self.binaries)

    @property
    def key(self) -> str:
        """Its name among the host's own parts."""
        return self.part.name if self.part is not None else self.name

    def pids(self) -> dict[str, int]:
        """Its main processes by name; 0 for one that should run and does not."""
        said = self._systemctl("show", "-p", "MainPID", "--value")
        pid = int(said) if said.isdigit() else 0
        return {self.unit: pid} if pid or self.has_work() else {}

    def runs(self) -> bool:
        """Whether all of it runs."""
        return all(self.pids().values())

    def enabled(self) -> bool:
        """Whether it comes with the next boot: by the worker, or by the machine's init."""
        return self.is_ours or self._systemctl("is-enabled") == "enabled"

    def start(self) -> None:
        """Starts it. Raises Temporary with its own words."""
        self._do("start")

    def stop(self) -> None:
        """Stops it, and has the init of the machine not start it."""
        self._do("stop")

    def restart(self) -> None:
        """Stops and starts it. Raises Permanent, and stops nothing, if it would not start again."""
        self.must_pass()
        self._do("restart")

    def reload(self) -> None:
        """Has it read its files again. Raises Permanent if it would not take them."""
        self.must_pass()
        self._do("reload")

    def boots(self, comes: bool) -> None:
        """Whether it comes with the next boot. What the worker starts is not enabled in the machine's init."""
        if not self.is_ours:
            self._do("enable" if comes else "disable")

    def must_pass(self) -> None:
        """Raises Permanent with the daemon's words if its live files do not pass its own check."""
        if words := self.tests():
            raise Permanent(words)

    def ill(self, *, again: bool) -> str:
        """Why its live files do not pass; cheap while nothing of what it reads has changed. `again`: try anyway."""
        seen = fingerprint(self.machine, self.reads)
        if again or self._ill or seen != self._seen:
            self._ill, self._seen = self.tests(), seen
        return self._ill

    def tail(self, lines: int, only: str, secrets: Iterable[str]) -> list[str]:
        """The last lines of its log that hold `only` (case does not count), oldest first, without secrets."""
        wanted = min(lines, MOST_LINES)
        files_ = [path for pattern in self.logs for path in sorted(self.machine.root.glob(pattern.lstrip("/")))]
        text = "\n".join(_end(path) for path in files_ if path.is_file())
        if not files_:
            command = ["journalctl", "-u", self.unit, "-n", str(MOST_LINES * 4), "--no-pager", "-o", "short-iso"]
            text = self.machine.runner.run(command).output
        found = [line for line in mask(text, secrets).splitlines() if only.lower() in line.lower()]
        kept: list[str] = []
        for line in reversed(found[-wanted:]):
            if sum(map(len, kept)) > MOST_TEXT:
                break
            kept.append("".join(char if char.isprintable() else " " for char in line[:LONGEST_LINE]))
        return kept[::-1]

    def _do(self, verb: str) -> None:
        self.machine.runner.run(["systemctl", verb, self.unit], seconds=90).check(Temporary)

    def _systemctl(self, *words: str) -> str:
        return self.machine.runner.run(["systemctl", *words, self.unit]).output.strip()


class PhpMasters(Program):
    """PHP-FPM: a master for each shard, which no init knows; changed by hand-over."""

    @property
    def _php(self) -> Php:
        assert isinstance(self.part, Php)
        return self.part

    def pids(self) -> dict[str, int]:
        """See Program."""
        return {f"shard{shard}": pid for shard, pid in self._php.masters().items()}

    def start(self) -> None:
        """See Program."""
        self._php.start()

    def stop(self) -> None:
        """See Program."""
        self._php.stop()

    def restart(self) -> None:
        """See Program: a new master takes the sockets, the old one finishes. Pools begin with an empty cache."""
        self.must_pass()
        self._php.hand_over()

    def reload(self) -> None:
        """See Program."""
        self.restart()


def fingerprint(machine: Machine, places: Iterable[str]) -> int:
    """Changes whenever a file below these places is made, written, renamed, linked or given to somebody else."""
    return hash(tuple(row for place in places for row in _stats(machine.path(place))))


def _stats(place: Path | os.DirEntry[str]) -> Iterator[tuple[Any, ...]]:
    try:
        is_ = place.lstat() if isinstance(place, Path) else place.stat(follow_symlinks=False)
        path = os.fspath(place)
        yield (path, is_.st_ino, is_.st_mode, is_.st_uid, is_.st_gid, is_.st_size, is_.st_ctime_ns)
        if stat.S_ISDIR(is_.st_mode):
            with os.scandir(path) as entries:
                for entry in sorted(entries, key=lambda each: each.name):
                    yield from _stats(entry)
    except OSError:
        return  # gone in this moment: the next look sees another picture


def _end(path: Path) -> str:
    """The end of a file, without the part of a line that it begins with."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOOK_BACK_BYTES))
        text = file.read(LOOK_BACK_BYTES).decode("utf-8", "replace")
    return text if size <= LOOK_BACK_BYTES else re.sub(r"\A[^\n]*\n", "", text)
