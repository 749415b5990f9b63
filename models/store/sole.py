"""One relay and one audit process per store: a second one started by mistake waits."""

from __future__ import annotations

import fcntl
import logging
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

log = logging.getLogger(__name__)

#: How often a second one asks again, in seconds.
ASK_AGAIN_SECONDS = 1.0
#: How often the holder looks whether PostgreSQL still knows it, in seconds.
LOOK_SECONDS = 5.0


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
    key, over = zlib.crc32(f"onehost.{duty}".encode()), threading.Event()
    connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        while not _taken(connection, key):
            if stop.wait(ASK_AGAIN_SECONDS):
                yield False
                return
        held = _Held(engine, duty, key, connection)
        keeper = threading.Thread(target=held.keep, args=(stop, over), name="sole", daemon=True)
        keeper.start()
        try:
            yield True
        finally:
            over.set()
            keeper.join(2)  # a frozen server holds it up
            connection = held.connection
    finally:
        # Not back into the pool, where it would go on holding the duty.
        connection.invalidate()
        connection.close()


def _taken(connection: Connection, key: int) -> bool:
    return bool(connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}).scalar())


@dataclass
class _Held:
    """A duty that is held by a session of PostgreSQL, and lost with it: the server was started again, say."""

    engine: Engine
    duty: str
    key: int
    connection: Connection

    def keep(self, stop: threading.Event, over: threading.Event) -> None:
        """Until `over`: takes it again when the session was lost. Sets `stop` if somebody else was quicker."""
        while not over.wait(LOOK_SECONDS):
            try:
                self.connection.execute(text("SELECT 1"))
            except DBAPIError:
                self.connection.invalidate()
                self.connection.close()
                if not self._take_again(over):
                    log.error("another process has the duty", extra={"action": "sole", "duty": self.duty})
                    stop.set()
                    return

    def _take_again(self, over: threading.Event) -> bool:
        """Waits for the server. Gives False if another process holds the duty by then."""
        while not over.wait(ASK_AGAIN_SECONDS):
            try:
                self.connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                return _taken(self.connection, self.key)
            except DBAPIError:
                continue
        return True
