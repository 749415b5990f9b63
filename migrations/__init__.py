"""Migrations of the store and of a node's ledger: two histories, each run under a lock, a second starter waits."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Connection, Engine, create_engine, make_url, text

if TYPE_CHECKING:
    from alembic.config import Config

Which = Literal["store", "ledger"]

#: Key of PostgreSQL's advisory lock for migrations ("oh" and a number).
LOCK = 0x6F68_0001

_one_at_a_time = threading.Lock()


def upgrade(url: str, which: Which = "store", revision: str = "head") -> None:
    """Brings the tables at `url` to `revision`. Does nothing, quickly, if they are there already."""
    from alembic import command

    with _locked(url) as connection:
        command.upgrade(_config(which, connection), revision)


def downgrade(url: str, which: Which = "store", revision: str = "base") -> None:
    """Takes the tables at `url` back to `revision`."""
    from alembic import command

    with _locked(url) as connection:
        command.downgrade(_config(which, connection), revision)


def current(url: str) -> str | None:
    """The revision the tables at `url` are at; None if there are none."""
    from alembic.runtime.migration import MigrationContext

    engine = create_engine(url)
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    engine.dispose()
    return found


def newest(which: Which = "store") -> str | None:
    """The revision this code wants."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config(which, None)).get_current_head()


def knows(revision: str, which: Which = "store") -> bool:
    """Whether tables of this revision can be brought up to date by this code."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config(which, None)).walk_revisions()
    return revision in {each.revision for each in scripts}


def _config(which: Which, connection: Connection | None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / which))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _locked(url: str) -> Iterator[Connection]:
    """A connection that alone may migrate. The database, or a lock file beside it, makes others wait."""
    parsed = make_url(url)
    engine = create_engine(url)
    # Alembic keeps the migration under way in module globals: one at a time in a process, whatever the database.
    _one_at_a_time.acquire()
    try:
        if parsed.get_backend_name() == "sqlite":
            yield from _beside_file(Path(parsed.database or ""), engine)
        else:
            with engine.connect() as connection:
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK})
                connection.commit()
                yield connection
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK})
                connection.commit()
    finally:
        _one_at_a_time.release()
        engine.dispose()


def _beside_file(database: Path, engine: Engine) -> Iterator[Connection]:
    database.parent.mkdir(parents=True, exist_ok=True)
    lock = database.with_name(database.name + ".migrate")
    with lock.open("w") as file:
        lock.chmod(0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            yield connection
        database.chmod(0o600)
