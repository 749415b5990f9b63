"""Wakes whoever waits, at the commit that gives them work: NOTIFY on PostgreSQL, a datagram beside a SQLite file.

A bell only saves waiting. Nothing depends on it being heard: every listener also looks by itself now and then.
"""

from __future__ import annotations

import os
import select
import socket
import uuid
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

#: Rung when placements, letters or nodes wait for the relay.
RELAY = "relay"
#: Rung when a job ends or a target does.
JOBS = "jobs"


def ring(connection: Connection, *names: str) -> None:
    """Rings when the transaction of `connection` (made by `writing`) is committed, and only then."""
    connection.info.setdefault("bells", set()).update(names)


def before_commit(connection: Connection) -> None:
    """Part of `writing`: PostgreSQL itself delivers at commit."""
    if connection.dialect.name != "sqlite":
        for name in connection.info.pop("bells", ()):
            connection.execute(text("SELECT pg_notify(:name, '')"), {"name": f"onehost_{name}"})


def after_commit(connection: Connection) -> None:
    """Part of `writing`: sends the datagrams of a SQLite store."""
    bells = connection.info.pop("bells", ())
    if not bells:
        return
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.setblocking(False)
    for name in bells:
        for path in _folder(connection.engine).glob(f"{name}.*"):
            _send(sender, path)
    sender.close()


def _send(sender: socket.socket, path: Path) -> None:
    try:
        sender.sendto(b"1", str(path))
    except BlockingIOError:
        return  # it has not read the last one yet: it is awake
    except (ConnectionRefusedError, FileNotFoundError):
        path.unlink(missing_ok=True)  # its listener was killed


def _folder(engine: Engine) -> Path:
    return Path(f"{engine.url.database}.bells")


class Listener:
    """Hears one bell. Also usable in `select`, by its descriptor."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._sqlite = engine.dialect.name == "sqlite"
        self._path: Path | None = None
        if self._sqlite:
            folder = _folder(engine)
            folder.mkdir(mode=0o700, exist_ok=True)
            self._path = folder / f"{name}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(str(self._path))
            self._socket.setblocking(False)
        else:
            self._connection: Any = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._connection.exec_driver_sql(f"LISTEN onehost_{name}")
            self._driver: Any = self._connection.connection.driver_connection

    def fileno(self) -> int:
        """What becomes readable when the bell rings."""
        return self._socket.fileno() if self._sqlite else int(self._driver.fileno())

    def wait(self, seconds: float) -> bool:
        """Whether it rang within `seconds`. Several rings are heard as one."""
        # Not select(): a panel may have more than a thousand files open.
        waiter = select.poll()
        waiter.register(self, select.POLLIN)
        rang = bool(waiter.poll(seconds * 1000))
        if rang:
            self._drain()
        return rang

    def _drain(self) -> None:
        if not self._sqlite:
            for _ in self._driver.notifies(timeout=0):
                pass
            return
        try:
            while self._socket.recv(16):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Stops listening."""
        if self._sqlite and self._path is not None:
            self._socket.close()
            self._path.unlink(missing_ok=True)
        elif not self._sqlite:
            try:
                # The connection goes back to the pool, and must not go on listening there.
                self._connection.exec_driver_sql("UNLISTEN *")
            except DBAPIError:
                self._connection.invalidate()
            self._connection.close()
