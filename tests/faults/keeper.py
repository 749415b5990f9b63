"""Keeps one process of the cluster alive as supervisor would: started again at once, however it ended."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from onehost.models.crash import VARIABLE

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
#: Between two starts, in seconds: a process that cannot start must not take the machine.
AGAIN_SECONDS = 0.2


class Kept:
    """One process and its lives. `ends` holds the exit status of each life that is over."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.command = list(command)
        self.environment = dict(environment)
        self.ends: list[int] = []
        self._command = self.command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._on = threading.Event()
        self._over = threading.Event()
        #: Put before the command, and into the environment, of every life from now on.
        self._prefix: list[str] = []
        self._more: dict[str, str] = {}
        #: Crash points still to be met, one for each life from now on.
        self._crashes: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._keep, name=f"keeper of {name}", daemon=True)
        self._thread.start()

    def start(self) -> None:
        """Keeps it running from now on."""
        self._on.set()

    def stop(self, how: int = signal.SIGTERM) -> None:
        """Ends it and keeps it down; returns when it is gone."""
        self._on.clear()
        lives = len(self.ends)
        if process := self._process:
            self.thaw()
            self.signal(how)
            self._wait(lambda: len(self.ends) > lives or self._process is not process, 30)

    def kill(self) -> None:
        """SIGKILL; the keeper starts it anew."""
        self.signal(signal.SIGKILL)

    def crash_at(self, point: str, lives: int = 1) -> None:
        """Starts it anew with a crash point, for as many lives."""
        self._crashes = [point] * lives
        self.kill()

    def run_as(self, *prefix: str, command: Sequence[str] = (), **environment: str) -> None:
        """Starts it anew behind other words, or as another command, until `run_plain`."""
        self._prefix, self._more = [*prefix], environment
        self._command = [*command] or self.command
        self.kill()

    def run_plain(self) -> None:
        """Starts it anew as it was."""
        self.run_as()

    def wait_for_crashes(self, seconds: float = 60.0) -> None:
        """Waits until every crash point has been met."""
        self._wait(lambda: not self._crashes, seconds)
        assert not self._crashes, f"{self.name} never came to the point {self._crashes[0]}"

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        if process := self._process:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                pass

    @property
    def pid(self) -> int:
        """Its process id. Waits until it runs."""
        self._wait(lambda: self._process, 10)
        assert self._process
        return self._process.pid

    def close(self) -> None:
        self._over.set()
        self.stop(signal.SIGKILL)
        self._on.set()
        self._thread.join(10)

    def said(self) -> str:
        """The end of what it wrote."""
        return self._log.read_text(errors="replace")[-4000:] if self._log.exists() else ""

    def _keep(self) -> None:
        while self._on.wait() and not self._over.is_set():
            crashes = self._crashes
            environment = self.environment | self._more | ({VARIABLE: crashes[0]} if crashes else {})
            began = time.monotonic()
            with self._log.open("ab") as log:
                process = subprocess.Popen([*self._prefix, *self._command], env=environment, stdin=subprocess.DEVNULL,
                                           stdout=log, stderr=log, start_new_session=True,
                                           preexec_fn=_die_with_the_tests)  # fmt: skip
            self._process = process
            status = process.wait()
            self._process = None
            with self._changed:
                # The life that `crash_at` itself ended had other crash points, or none.
                if crashes and self._crashes is crashes and status == -signal.SIGKILL:
                    crashes.pop(0)
                self.ends.append(status)
                self._changed.notify_all()
            self._over.wait(max(0.0, AGAIN_SECONDS - (time.monotonic() - began)))

    def _wait(self, true: Callable[[], object], seconds: float) -> None:
        with self._changed:
            until = time.monotonic() + seconds
            while not true() and time.monotonic() < until:
                self._changed.wait(0.05)


def _die_with_the_tests() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
