"""What entries of an account said, for the account to read: /home/NAME/log/cron.log, kept small."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

#: Of one run, in bytes.
KEPT_BYTES = 64 * 1024
#: A log that is longer, in bytes, becomes cron.log.1, in place of an earlier one.
LOG_BYTES = 1024 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK


def keep(home: Path, minute: int, line: str, words: bytes) -> None:
    """Adds a run to the log. Raises OSError where it cannot be written: no run depends on it."""
    folder = os.open(home / "log", _FOLDER)
    try:
        handle = os.open("cron.log", _FILE, 0o600, dir_fd=folder)
        try:
            # So that two nodes do not write over each other; who cannot wait writes all the same.
            with suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(handle, text(minute, line, words))
            if os.fstat(handle).st_size > LOG_BYTES:
                os.rename("cron.log", "cron.log.1", src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            os.close(handle)
    finally:
        os.close(folder)


def text(minute: int, line: str, words: bytes) -> bytes:
    """A run as it stands in the log: its line, then what it said, each line moved in."""
    lines = words[:KEPT_BYTES].splitlines()
    if len(words) > KEPT_BYTES:
        lines.append(b"(more was said than is kept)")
    moment = datetime.fromtimestamp(minute * 60, UTC)
    return b"".join([f"{moment:%Y-%m-%dT%H:%MZ} {line}\n".encode(), *(b"  " + each + b"\n" for each in lines)])
