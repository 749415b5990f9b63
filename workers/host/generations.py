"""Generations of Apache's children: a graceful signal makes a new one, while the old ones finish what they have."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from ...models.errors import Temporary
from . import files

#: Least time between two signals.
SPACING_SECONDS = 0.3
#: Old generations that may still serve slow requests when a new one is asked for.
OLD_GENERATIONS = 2
#: A main process that sleeps this long after a signal, in seconds, while no old child accepts, naps.
NUDGE_SECONDS = 0.01
NAP_SECONDS = 1.1
#: How long a signal waits for an old generation to end, or for room beside it.
ROOM_SECONDS = 3.0
#: Children beyond which there is no room for another generation: half of ServerLimit.
ROOM_CHILDREN = 16


class Generations:
    """What is known of the children of one main process, from one signal to the next."""

    def __init__(self) -> None:
        self._of: dict[int, int] = {}
        self._last_signal = -SPACING_SECONDS
        self._old: list[int] = []
        self._listening: set[str] = set()

    def forget(self) -> None:
        """The main process is another one now."""
        self._of = {}

    def wait_for_room(self, main: int) -> None:
        """Spaces signals. Raises Temporary if slow requests hold so many old children that there is no room."""
        time.sleep(max(0.0, self._last_signal + SPACING_SECONDS - time.monotonic()))
        deadline = time.monotonic() + ROOM_SECONDS
        while True:
            listening, children = _listening(main), _children(main)
            old = {self._of.get(pid, 0) for pid in children if not _sockets(pid) & listening}
            if len(old) < OLD_GENERATIONS:
                return
            if time.monotonic() > deadline:
                if len(children) < ROOM_CHILDREN:
                    return
                raise Temporary(f"{len(old)} old generations of Apache still serve slow requests, no room for another")
            time.sleep(0.05)

    def begin(self, main: int) -> None:
        """Sends the signal, and returns when the first child of the new generation is there."""
        self._old, self._listening = _children(main), _listening(main)
        generation = max(self._of.values(), default=0) + 1
        self._of = {pid: self._of.get(pid, generation) for pid in self._old}
        self._last_signal = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(main, signal.SIGUSR1)
        self._await_children(main)

    def old_ones_accept(self) -> bool:
        """Whether a child of before the last signal still takes connections."""
        return any(_sockets(pid) & self._listening for pid in self._old)

    def _await_children(self, main: int) -> None:
        """Waits at most as long as Apache's nap.

        Apache looks for dead children once and then naps for a second: children that stop a little later are replaced
        only after the nap, and nobody accepts meanwhile. Another signal ends it, and they are found at once.
        """
        nudge_at = self._last_signal + NUDGE_SECONDS
        while not set(_children(main)) - set(self._old) and time.monotonic() < self._last_signal + NAP_SECONDS:
            if time.monotonic() > nudge_at and _sleeps(main) and not self.old_ones_accept():
                with suppress(ProcessLookupError):
                    os.kill(main, signal.SIGUSR1)
                nudge_at = time.monotonic() + NUDGE_SECONDS
            time.sleep(0.001)


def _children(pid: int) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _sleeps(pid: int) -> bool:
    """Whether a process waits for something instead of working."""
    stat = files.read(Path(f"/proc/{pid}/stat")) or b""
    return stat.rpartition(b")")[2].split()[:1] == [b"S"]


def _listening(pid: int) -> set[str]:
    """The sockets of a process that listen. Apache's main process has another one, which all children inherit."""
    tables = [files.read(Path(f"/proc/{pid}/net/{name}")) or b"" for name in ("tcp", "tcp6")]
    rows = [row for table in tables for line in table.splitlines()[1:] if (row := line.split())[3] == b"0A"]
    return {f"socket:[{row[9].decode()}]" for row in rows} & _sockets(pid)


def _sockets(pid: int) -> set[str]:
    """The sockets a process has open; none if it has ended."""
    found: set[str] = set()
    with suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    return {name for name in found if name.startswith("socket:")}
