"""How the store is opened, and the two ways to use it: reading, and writing in one transaction."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.pool import QueuePool

from ..errors import Unreachable
from . import bells, digests, rested
from .pipeline import pipelined

#: How long a writer waits for another one, in seconds.
BUSY_SECONDS = 30
#: PostgreSQL's words for a deadlock and for a transaction that cannot be put in any order.
RACES = ("40P01", "40001")
#: Whoever has lost a race waits up to this long, so that it does not meet the same one again.
RACE_SECONDS = 0.05

T = TypeVar("T")


def connect(url: str) -> Engine:
    """An engine for the store's URL, SQLite or PostgreSQL. Connects lazily: use it by `reading` and `writing`."""
    if url.startswith("sqlite"):
        return sqlite(url)
    engine = create_engine(
        url, poolclass=QueuePool, pool_size=4, connect_args={"connect_timeout": 5}, hide_parameters=True
    )
    rested.look_after(engine)
    return engine


def sqlite(url: str, **pragmas: str) -> Engine:
    """A SQLite engine that decides itself when a transaction begins, durable (WAL, synchronous=FULL)."""
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False}, poolclass=QueuePool,
                           hide_parameters=True)  # fmt: skip
    settings = {"journal_mode": "WAL", "synchronous": "FULL", "foreign_keys": "ON", **pragmas}

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None
        for name, value in settings.items():
            connection.execute(f"PRAGMA {name}={value}")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        # A read that becomes a write can fail with BUSY in spite of the timeout: writers say so at once.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that may write, committed at the end. Raises Unreachable if the store does not answer."""
    with _reached(engine), engine.connect() as connection:
        connection = connection.execution_options(writes=True)
        with connection.begin() as transaction:
            digests.begin(connection)
            yield connection
            with pipelined(connection):
                digests.before_commit(connection)
                bells.before_commit(connection)
                transaction.commit()
        bells.after_commit(connection)


@contextmanager
def part(connection: Connection) -> Iterator[None]:
    """A part of a transaction of `writing` that is taken back by itself if it raises."""
    kept = digests.kept(connection)
    try:
        with connection.begin_nested():
            yield
    except BaseException:
        digests.put_back(connection, kept)
        raise


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent look at the store."""
    with _reached(engine), engine.connect() as connection, connection.begin():
        digests.begin(connection)
        yield connection


def retried(transact: Callable[[], T]) -> T:
    """Runs a whole transaction, again where another writer was quicker: all is read again, and fits or is refused."""
    for last in (False, False, False, True):
        try:
            return transact()
        except (IntegrityError, Unreachable) as error:
            if last or not _is_race(error):
                raise
        time.sleep(random.random() * RACE_SECONDS)
    raise AssertionError("the last try returns or raises")


def _is_race(error: IntegrityError | Unreachable) -> bool:
    cause = error if isinstance(error, IntegrityError) else error.__cause__
    return isinstance(error, IntegrityError) or getattr(getattr(cause, "orig", None), "sqlstate", "") in RACES


@contextmanager
def _reached(engine: Engine) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        url = engine.url.render_as_string(hide_password=True)
        hint = "onehost db upgrade" if "no such table" in str(error.orig) else "is the database running, the disk full?"
        raise Unreachable(f"store {url}: {error.orig}", hint=hint) from error
    except DBAPIError as error:
        if "does not exist" in str(error.orig) and "relation" in str(error.orig):
            raise Unreachable(f"store has no tables: {error.orig}", hint="onehost db upgrade") from error
        raise


__all__ = ["BUSY_SECONDS", "connect", "part", "reading", "retried", "sqlite", "writing"]
