"""The file behind the ledger: one process at a time holds it, every commit is durable, tables are made when missing."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..models.errors import Unreachable
from ..models.metrics import Tally
from .metrics import COMMITS

#: The values of one statement, by place or by name.
Row = Sequence[Any] | Mapping[str, Any]
#: The revision of the tables that this code reads.
REVISION = "0004"
#: How often a second worker asks whether the first one is gone, in seconds.
ASK_AGAIN_SECONDS = 0.5


class LedgerFile:
    """An open ledger. Statements of several threads take turns by `transaction` and `reading`."""

    def __init__(self, path: Path, stop: threading.Event | None = None) -> None:
        """Waits until no other process holds it. Raises Unreachable if `stop` is set before that."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = Path(f"{path}.lock").open("w")  # noqa: SIM115
        try:
            _hold(self._lock, path, stop or threading.Event())
            _migrate(path)
            self._db = _open(path)
        except BaseException:
            self._lock.close()
            raise
        self._mutex = threading.RLock()
        #: How long commits take.
        self.tally = Tally()

    def close(self) -> None:
        """Lets another worker have it."""
        with self._mutex:
            self._db.close()
            self._lock.close()

    def probe(self) -> None:
        """A durable write, for nothing: raises sqlite3.Error where the disk is full or broken."""
        self.write("INSERT OR REPLACE INTO fact (name, value) VALUES ('probed', ?)", [(str(time.time()),)])

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One durable commit, or nothing at all.

        Not durable: it outlives this process, but a failing machine may take it back, until the next durable commit:
        that one puts everything before it on disk too.
        """
        with self._mutex, self._synchronous(durable):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            began = time.monotonic()
            self._db.execute("COMMIT")
            self.tally.observe(COMMITS, time.monotonic() - began)

    @contextmanager
    def _synchronous(self, durable: bool) -> Iterator[None]:
        if durable:
            yield
            return
        self._db.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            self._db.execute("PRAGMA synchronous=FULL")

    def write(self, statement: str, rows: Iterable[Row], *, durable: bool = True) -> None:
        """One statement for each of these rows, in one commit."""
        rows = list(rows)
        if len(rows) == 1:
            self._write_alone(statement, rows[0], durable)
        elif rows:
            with self.transaction(durable=durable) as db:
                db.executemany(statement, rows)

    def _write_alone(self, statement: str, row: Row, durable: bool) -> None:
        """A statement by itself is a transaction: nothing is said around it."""
        with self._mutex, self._synchronous(durable):
            began = time.monotonic()
            self._db.execute(statement, row)
            self.tally.observe(COMMITS, time.monotonic() - began)

    def read(self, statement: str, values: Row = ()) -> list[sqlite3.Row]:
        """What a query gives."""
        with self._mutex:
            return self._db.execute(statement, values).fetchall()

    def one(self, statement: str, values: Row = ()) -> sqlite3.Row | None:
        """The first row of what a query gives."""
        with self._mutex:
            row: sqlite3.Row | None = self._db.execute(statement, values).fetchone()
        return row


def _hold(lock: IO[str], path: Path, stop: threading.Event) -> None:
    # Asked again and again: a blocking flock would sit through SIGTERM.
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if stop.wait(ASK_AGAIN_SECONDS):
                raise Unreachable(f"ledger {path} is held by another worker") from None
        else:
            return


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    try:
        db.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
            db.execute(f"PRAGMA {pragma}")
        path.chmod(0o600)
    except BaseException:
        db.close()
        raise
    return db


def is_current(path: Path) -> bool:
    """Whether the ledger is there with the tables that this code reads."""
    return path.exists() and _revision(path) == (REVISION,)


def _migrate(path: Path) -> None:
    """Makes or raises the tables. Alembic is only loaded where there is something to do."""
    if is_current(path):
        return
    from .. import migrations

    migrations.upgrade(f"sqlite:///{path}", "ledger")


def _revision(path: Path) -> Any:
    probe = sqlite3.connect(path)
    try:
        if probe.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone() is None:
            return None
        return probe.execute("SELECT version_num FROM alembic_version").fetchone()
    finally:
        probe.close()
