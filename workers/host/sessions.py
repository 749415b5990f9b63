"""Ends every process of an account: shells, SFTP and PHP, and sshd's own processes that serve its connections."""

from __future__ import annotations

import os
import re
import select
import signal
import time
from contextlib import suppress
from enum import Enum
from pathlib import Path

from ...models.errors import Temporary
from .machine import Machine

#: How long processes may take to end by themselves.
GRACE_SECONDS = 0.5
#: After it, how long until what still appears is somebody's trouble.
LIMIT_SECONDS = 5.0
_PARENT = re.compile(rb"^PPid:\t(\d+)$", re.MULTILINE)
_UIDS = re.compile(rb"^Uid:\t(\d+)\t(\d+)\t(\d+)\t(\d+)$", re.MULTILINE)


class Php(Enum):
    """Which children of FPM masters are ended with an account's other processes."""

    ALL = "all"
    #: Those that do something. FPM replaces each that ends, so with a pool that stays an idle one is always left.
    BUSY = "busy"
    NONE = "none"


class Sessions:
    """The processes of accounts on this machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def end(self, uid: int, name: str, php: Php = Php.ALL) -> int:
        """Ends all processes of `uid`, and sshd's that speak for `name`. Returns how many there were.

        Raises Temporary if new ones appear faster than they end. Without any process of it, costs one look at /proc.
        """
        if not self.machine.real:
            return 0
        first = found = self.of(uid, name, php)
        deadline = time.monotonic() + LIMIT_SECONDS
        if found:
            _send(found, signal.SIGTERM)
            _await(found, GRACE_SECONDS)
        while found := self.of(uid, name, php):
            if time.monotonic() > deadline:
                raise Temporary(f"processes of uid {uid} do not end: {', '.join(map(str, sorted(found)[:5]))}")
            # All at once, so that none of them can fork behind our back.
            if php is not Php.NONE:
                self.machine.runner.as_user(uid, uid, [], _kill_all_of_mine)
            _send(found, signal.SIGKILL)
            _await(found, GRACE_SECONDS)
        return len(first)

    def end_children(self, main: int, uid: int, title: bytes = b"") -> int:
        """Ends children of a daemon that run with `uid` and whose title begins so. Returns how many there were.

        A daemon has a child for each connection; with its own uid 0 it is one that nobody has logged in by yet.
        """
        first = found = _children(main, uid, title)
        for number in (signal.SIGTERM, signal.SIGKILL):
            _send(found, number)
            _await(found, GRACE_SECONDS)
            found = found & _children(main, uid, title)
        if found:
            raise Temporary(f"processes {sorted(found)[:5]} do not end")
        return len(first)

    def of(self, uid: int, name: str, php: Php = Php.ALL) -> set[int]:
        """Process ids of what runs with `uid` or is sshd's for `name`, without the PHP children that `php` spares."""
        title = re.compile(rb"^sshd(?:-session)?: " + re.escape(name.encode()) + rb"(?:@| \[|\0|$)")
        found = set()
        for entry in os.listdir("/proc"):
            if entry.isdigit() and _belongs(entry, uid, title) and not _is_spared(entry, php):
                found.add(int(entry))
        return found


def _belongs(pid: str, uid: int, title: re.Pattern[bytes]) -> bool:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            status = file.read()
        uids = _UIDS.search(status)
        if b"\nState:\tZ" in status or not uids:
            return False
        if str(uid).encode() in uids.groups():
            return True
        # Only root's and the system's own processes: a tenant may give itself any title.
        if int(uids[2]) >= 1000 or not status.startswith(b"Name:\tsshd"):
            return False
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return bool(title.match(file.read()))
    except (FileNotFoundError, ProcessLookupError):
        return False


def _children(main: int, uid: int, title: bytes) -> set[int]:
    found: set[int] = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for pid in Path(f"/proc/{main}/task/{main}/children").read_text().split() if main else ():
            with suppress(FileNotFoundError, ProcessLookupError):
                uids = _UIDS.search(Path(f"/proc/{pid}/status").read_bytes())
                is_its = uids is not None and int(uids[1]) == uid
                if is_its and Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title):
                    found.add(int(pid))
    return found


def _is_spared(pid: str, php: Php) -> bool:
    """Whether a process is a child of root's FPM master that may go on. Tenants may start FPM too, but not as root."""
    if php is Php.ALL:
        return False
    try:
        parent = _PARENT.search(Path(f"/proc/{pid}/status").read_bytes())
        master = parent[1].decode() if parent else "0"
        if not (_runs_fpm(pid) and _runs_fpm(master) and os.stat(f"/proc/{master}").st_uid == 0):
            return False
        # One that waits has the socket it listens on and no other.
        opened = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
        return php is Php.NONE or sum(name.startswith("socket:") for name in opened) <= 1
    except OSError:
        return False


def _runs_fpm(pid: str) -> bool:
    return os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("php-fpm")


def _send(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _kill_all_of_mine() -> None:
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


def _await(pids: set[int], seconds: float) -> None:
    """Waits until all of them have ended, or the time is up."""
    waiting = select.poll()
    handles = set()
    for pid in pids:
        with suppress(ProcessLookupError):
            handles.add(handle := os.pidfd_open(pid))
            waiting.register(handle, select.POLLIN)
    left, deadline = set(handles), time.monotonic() + seconds
    while left and (rest := deadline - time.monotonic()) > 0:
        for handle, _ in waiting.poll(rest * 1000):
            waiting.unregister(handle)
            left.discard(handle)
    for handle in handles:
        os.close(handle)
