"""Site logs in the homes: /home/NAME/log/SITE.NODE.log, written with the account's own rights by one node each.

What a tenant does to them (a link, a folder in their place, no space left) hurts that tenant alone: its lines of that
time are lost, and told as a fault. Storage that is away is another matter: nothing is lost, and it is tried again.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...models.errors import Permanent, Temporary
from .homes import HOME
from .machine import Machine
from .site import label

#: A larger site log is set aside as .1 before more is written, the older ones move on, and the last one goes.
LARGEST = 10 << 20
KEPT = 5
#: What one account may take, in seconds: shared storage may hang.
ACCOUNT_SECONDS = 120.0
#: Errors of the storage, not of what a tenant did.
_AWAY = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN, errno.ECONNREFUSED})
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
#: Not blocking: a tenant may put a pipe there.
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK

#: Where the next line of a site log goes: the file's inode and its size.
Place = list[int]
#: What is written to a site log, and where it goes.
Piece = tuple[bytes, Place]


class SiteLogs:
    """The site logs of this node in an account's home. Nothing is thrown away that was not written for good."""

    def __init__(self, machine: Machine, node: str) -> None:
        self._machine = machine
        self._node = node

    def places(self, account: str, uid: int, gid: int, sites: Iterable[str]) -> tuple[dict[str, Place], dict[str, str]]:
        """Makes room, and gives where each log ends now; and faults by site. Raises Temporary."""
        return self._each(account, uid, gid, sites, lambda folder, site, file: _place(folder, file))

    def append(self, account: str, uid: int, gid: int, pieces: Mapping[str, Piece]) -> dict[str, str]:
        """Writes each piece once, at its place: what an earlier try left there is cut off. Gives faults by site.

        Raises Temporary.
        """
        return self._each(account, uid, gid, pieces, lambda folder, site, file: _append(folder, file, *pieces[site]))[1]

    def _each(self, account: str, uid: int, gid: int, sites: Iterable[str],
              act: Callable[[int, str, str], Any]) -> tuple[dict[str, Any], dict[str, str]]:  # fmt: skip
        """What `act` gives for each site, or the fault it met, from a child process with the account's rights."""
        answer = os.memfd_create("site-logs")
        folder = self._machine.path(f"{HOME}/{account}/log")

        def work() -> None:
            found: dict[str, Any] = {}
            faults: dict[str, str] = {}
            for site in sites:
                try:
                    found[site] = _within(folder, act, site, self._file(site))
                except OSError as error:
                    if error.errno in _AWAY:
                        raise
                    faults[site] = error.strerror or str(error)
            os.write(answer, json.dumps([found, faults]).encode())

        try:
            self._machine.runner.as_user(uid, gid, [], work, ACCOUNT_SECONDS)
            with open(answer, "rb", closefd=False) as said:
                said.seek(0)
                found, faults = json.load(said)
        except (Permanent, OSError, ValueError) as error:
            raise Temporary(f"{folder} cannot be written: {error}") from error
        finally:
            os.close(answer)
        return found, faults

    def _file(self, site: str) -> str:
        return f"{label(site)}.{self._node}.log"


def _within(folder: Path, act: Callable[[int, str, str], Any], site: str, file: str) -> Any:
    handle = os.open(folder, _FOLDER)
    try:
        return act(handle, site, file)
    finally:
        os.close(handle)


def _place(folder: int, file: str) -> Place:
    _rotate(folder, file)
    handle, its = _open(folder, file)
    os.close(handle)
    return [its.st_ino, its.st_size]


def _append(folder: int, file: str, data: bytes, place: Place) -> None:
    handle, its = _open(folder, file)
    try:
        end = its.st_size
        if its.st_ino == place[0] and place[1] < end:
            end = place[1]
            os.ftruncate(handle, end)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(handle, left) :]
            os.fsync(handle)
            os.fsync(folder)
        except OSError:
            # Half a line is worse than none.
            with suppress(OSError):
                os.ftruncate(handle, end)
            raise
    finally:
        os.close(handle)


def _open(folder: int, file: str) -> tuple[int, os.stat_result]:
    handle = os.open(file, _APPEND, 0o640, dir_fd=folder)
    its = os.fstat(handle)
    if not stat.S_ISREG(its.st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "is no file")
    return handle, its


def _rotate(folder: int, file: str) -> None:
    """Sets a large log aside. After a crash in between, a number is free further down, and it goes on from there."""
    try:
        its = os.stat(file, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(its.st_mode) or its.st_size < LARGEST:
        return
    free = next((number for number in range(1, KEPT) if not _is_there(folder, f"{file}.{number}")), KEPT)
    for number in range(free, 1, -1):
        os.rename(f"{file}.{number - 1}", f"{file}.{number}", src_dir_fd=folder, dst_dir_fd=folder)
    os.rename(file, f"{file}.1", src_dir_fd=folder, dst_dir_fd=folder)


def _is_there(folder: int, file: str) -> bool:
    try:
        os.stat(file, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
