"""Which node starts an entry in a minute: the one that gets the lock on its record and finds no such minute in it.

The record stands in the account's home, on the storage that all nodes share, and is touched with the account's own
rights: root of a node may be nobody there. On NFS 4 such a lock holds between nodes, and is freed by the server when
its node has been dead for the time of a lease.

    /home/NAME/.cron/812     "000029412345 node1": the minute since 1970 started last, and the node
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

#: Below /home/NAME.
FOLDER = ".cron"
#: A record further ahead than so many minutes was written by a node whose clock is wrong, and must not stop the others.
AHEAD_MINUTES = 60
#: Records of entries that are no more are kept for so many days: longer than any node may lag behind.
KEPT_DAYS = 30
_RECORD = re.compile(rb"([0-9]{12}) [^\n]{1,64}\n")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK


def claim(home: Path, entry: int, minute: int, node: str) -> int | None:
    """The right to start an entry in a minute, as a descriptor that holds the lock; None: another has or had it.

    The minute is on disk before this returns: a node that dies now has used it up, and no other starts it again.
    Raises OSError where the record cannot be reached or written; then nobody may start it.
    """
    folder = os.open(home / FOLDER, _FOLDER)
    handle = -1
    try:
        handle = os.open(str(entry), _FILE, 0o600, dir_fd=folder)
        if stat.S_ISREG(os.fstat(handle).st_mode) and _take(handle, minute, node):
            os.fsync(folder)
            taken, handle = handle, -1
            return taken
        return None
    finally:
        os.close(folder)
        if handle >= 0:
            os.close(handle)


def _take(handle: int, minute: int, node: str) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # Read under the lock: NFS gives what the last holder has written.
    found = os.pread(handle, 4096, 0)
    last = _RECORD.fullmatch(found)
    if last and minute <= int(last[1]) <= minute + AHEAD_MINUTES:
        return False
    # Written over, so that a full disk does not stop an entry that ran before.
    record = f"{minute:012d} {node[:40]:40}\n".encode()
    if os.pwrite(handle, record, 0) != len(record):
        raise OSError("the record could not be written whole")
    if len(found) > len(record):
        os.ftruncate(handle, len(record))
    os.fsync(handle)
    # Of what cannot be read it is not known which minute it was: this one is given up.
    return not found or bool(last and int(last[1]) < minute)


def sweep(home: Path, living: Collection[int]) -> None:
    """Takes away records of entries that this node does not know and that nobody has touched for long."""
    folder = os.open(home / FOLDER, _FOLDER)
    try:
        for name in os.listdir(folder):
            if not name.isdecimal() or int(name) in living:
                continue
            with suppress(OSError):
                touched = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
                if touched < time.time() - KEPT_DAYS * 86400:
                    os.unlink(name, dir_fd=folder)
    finally:
        os.close(folder)
