"""A consistent copy of the store while everything runs: one look at the database, with a manifest, in one file.

It holds everything the store holds: hashes of accounts' passwords and of nodes' broker passwords. It does not hold the
settings and the secrets of the manager's own broker users.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from .. import __version__, migrations
from ..models.errors import Conflict, Invalid, OnehostError, Refused, Unreachable
from ..models.moment import now as time_now
from ..models.store import reading
from ..models.store.engine import sqlite
from . import archive, numbers, postgresql, seal
from .archive import Manifest


def backup(engine: Engine, path: Path, *, force: bool = False) -> Manifest:
    """Writes a backup to `path` and proves it. Raises Conflict if there is a file already, Invalid or Unreachable."""
    path = path.absolute()
    if path.exists() and not force:
        raise Conflict(f"{path} exists already", hint=f"onehost backup {path} --force")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".onehost-backup-") as folder:
            copy = Path(folder) / archive.COPY
            take = _take_sqlite if engine.dialect.name == "sqlite" else _take_postgresql
            archive.write(path, take(engine, copy), copy)
    except OSError as error:
        raise Invalid(f"backup {path} cannot be written: {error.strerror or error}") from error
    return check(path)


def check(path: Path) -> Manifest:
    """Whether a backup can be read to its last byte, and its audit chain holds. Raises NotFound, Invalid or Refused."""
    with archive.opened(path.absolute()) as (manifest, copy):
        if manifest.database == "sqlite":
            _check_sqlite(path, manifest, copy)
        else:
            postgresql.script(copy, Path("/dev/null"))
        return manifest


def _take_sqlite(engine: Engine, copy: Path) -> Manifest:
    try:
        with closing(sqlite3.connect(str(engine.url.database), timeout=30)) as source:
            # One read transaction: writers go on meanwhile.
            source.execute("VACUUM INTO ?", (str(copy),))
    except sqlite3.Error as error:
        raise Unreachable(f"store {engine.url.database}: {error}", hint="is the disk full?") from error
    copied = sqlite(f"sqlite:///{copy}", journal_mode="DELETE")
    try:
        with reading(copied) as connection:
            return _manifest(connection, "sqlite")
    finally:
        copied.dispose()


def _take_postgresql(engine: Engine, copy: Path) -> Manifest:
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        snapshot = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
        manifest = _manifest(connection, "postgresql")
        postgresql.dump(engine, str(snapshot), copy)
    return manifest


def _manifest(connection: Connection, database: str) -> Manifest:
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    head = seal.head(connection)
    life = numbers.incarnation(connection)
    return Manifest(database, __version__, revision, life, head.position, head.hash, time_now().isoformat())


def _check_sqlite(path: Path, manifest: Manifest, copy: Path) -> None:
    with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as database:
        try:
            found = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            found = str(error)
    if found != "ok":
        raise Invalid(f"backup {path} is damaged: {found}")
    if manifest.revision != migrations.newest():
        return  # the chain is read with the tables of this version only
    copied = sqlite(f"sqlite:///{copy}", journal_mode="DELETE")
    try:
        with reading(copied) as connection:
            verdict = seal.verify(connection, seal.Head(manifest.position, manifest.hash))
    except OnehostError as error:
        raise Invalid(f"backup {path}: {error.what}") from error
    finally:
        copied.dispose()
    if verdict.problem:
        raise Refused(f"backup {path}: its audit chain is broken: {verdict.problem}")
