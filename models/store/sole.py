"""One relay and one audit process per store: a second one started by mistake waits."""

from __future__ import annotations

import fcntl
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sqlalchemy import Engine, text

#: How often a second one asks again, in seconds.
ASK_AGAIN_SECONDS = 1.0


@contextmanager
def sole(engine: Engine, duty: str, stop: threading.Event) -> Iterator[bool]:
    """Holds the duty alone while the block runs. Gives False if `stop` was set before it was free.

    Asked once at least: with `stop` set from the beginning it does not wait.

    The kernel, or PostgreSQL, lets go of it however the process ends.
    """
    holder = _file(engine, duty, stop) if engine.dialect.name == "sqlite" else _advisory(engine, duty, stop)
    yield from holder


def _file(engine: Engine, duty: str, stop: threading.Event) -> Iterator[bool]:
    with Path(f"{engine.url.database}.{duty}").open("w") as file:
        while not _locked(file):
            if stop.wait(ASK_AGAIN_SECONDS):
                yield False
                return
        yield True


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _advisory(engine: Engine, duty: str, stop: threading.Event) -> Iterator[bool]:
    key = {"key": zlib.crc32(f"onehost.{duty}".encode())}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar():
            if stop.wait(ASK_AGAIN_SECONDS):
                yield False
                return
        yield True
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)
