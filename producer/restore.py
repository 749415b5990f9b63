"""Puts a backup back as a new life of the store. The relay and the audit process must be stopped.

Until the new life has begun the store can be used for nothing: its incarnation is below zero, and every process that
needs a number refuses. A restore that was cut off is simply done again.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.exc import DBAPIError

from .. import migrations
from ..models import states
from ..models.errors import OnehostError, Refused, Unreachable
from ..models.moment import now as time_now
from ..models.store import Action, Base, Counter, Job, connect, reading, writing
from ..models.store.sole import sole
from . import archive, lives, numbers, postgresql, stages
from .archive import Manifest

#: The processes that must not run meanwhile, by the duty that they hold.
DUTIES = ("relay", "audit")
#: How far clocks of two machines may differ.
CLOCK_BEHIND = timedelta(seconds=60)


@dataclass(frozen=True)
class Restored:
    """What was put back, and the life that began with it."""

    manifest: Manifest
    incarnation: int
    nodes: int


def restore(url: str, path: Path, actor: str) -> Restored:
    """Replaces the store at `url` by a backup. Raises Refused, Invalid, NotFound or Unreachable."""
    with archive.opened(path.absolute()) as (manifest, copy):
        _fits(url, path, manifest)
        refuse_clock_behind(manifest)
        engine = connect(url)
        if manifest.database == "sqlite":
            Path(str(engine.url.database)).parent.mkdir(parents=True, exist_ok=True)
        try:
            with _held(engine):
                above = max(_incarnation(engine), manifest.incarnation)
                if manifest.database == "sqlite":
                    return _restore_sqlite(engine, manifest, copy, above, actor)
                _put_back_postgresql(engine, copy)
                migrations.upgrade(url)
                return _begin(engine, manifest, above, actor)
        finally:
            engine.dispose()


def refuse_clock_behind(manifest: Manifest) -> None:
    """Raises Refused where this machine's clock shows a time before the backup was made.

    Lives of a lost store are told apart by the time alone: with a clock behind, one could begin a second time.
    """
    behind = datetime.fromisoformat(manifest.at) - time_now()
    if behind > CLOCK_BEHIND:
        raise Refused(
            f"this backup was made at {manifest.at}, and the clock here shows {int(behind.total_seconds())} s before",
            hint="set the clock right first: timedatectl",
        )


def _fits(url: str, path: Path, manifest: Manifest) -> None:
    ours = "sqlite" if url.startswith("sqlite") else "postgresql"
    if manifest.database != ours:
        raise Refused(
            f"{path} is a backup of {manifest.database}, and the store is {ours}", hint="see `store` in the settings"
        )
    if not migrations.knows(manifest.revision):
        raise Refused(
            f"{path} was made by onehost {manifest.version} with tables {manifest.revision}, newer than this one knows",
            hint=f"install onehost {manifest.version} or newer",
        )


@contextmanager
def _held(engine: Engine, duties: tuple[str, ...] = DUTIES) -> Iterator[None]:
    """Holds the duties, so that neither process runs or starts meanwhile. Raises Refused."""
    at_once = threading.Event()
    at_once.set()
    if not duties:
        yield
        return
    with sole(engine, duties[0], at_once) as held:
        if not held:
            raise Refused(
                f"`onehost {duties[0]} run` is running on this store",
                hint="stop relay and audit first: supervisorctl -c ops/supervisor/manager.conf stop all",
            )
        with _held(engine, duties[1:]):
            yield


def _incarnation(engine: Engine) -> int:
    """The life of the store that is replaced; 0 if there is none, or nobody can tell."""
    try:
        with reading(engine) as connection:
            found = connection.execute(select(Counter.value).where(Counter.name == "incarnation")).scalar() or 0
    except (OnehostError, DBAPIError):
        return 0
    return abs(found)


def _begin(engine: Engine, manifest: Manifest, above: int, actor: str) -> Restored:
    now = time_now()
    with writing(engine) as connection:
        away = now - datetime.fromisoformat(manifest.at)
        for row in connection.execute(select(Job.id, Job.grace_until_at).where(Job.grace_until_at.is_not(None))).all():
            # What was to be removed after a while may have been cancelled since: the while begins where it stood.
            connection.execute(update(Job).where(Job.id == row.id).values(grace_until_at=row.grace_until_at + away))
        _end_actions(connection, now)
        detail = {"backup": {key: value for key, value in asdict(manifest).items() if key != "format"}}
        life = lives.begin(connection, above, actor, now, "store.restore", detail)
        waiting = len(numbers.unreported(connection))
    return Restored(manifest, life, waiting)


def _end_actions(connection: Connection, now: datetime) -> None:
    """What was to be done once is not done later: its letters are gone with the old life."""
    found = connection.execute(select(Action.job_id).where(Action.job_id.is_not(None)).distinct()).scalars()
    jobs = [job_id for job_id in found if job_id is not None]
    stages.close_targets(connection, jobs, states.Target.LOST, "the store was restored", now, only_unopened=False)
    connection.execute(
        update(Job).where(Job.id.in_(jobs), Job.ended_at.is_(None)).values(state=states.Job.EXPIRED, ended_at=now)
    )
    stages.advance(connection, jobs, now)  # counts them


# ---- SQLite


def _restore_sqlite(engine: Engine, manifest: Manifest, copy: Path, above: int, actor: str) -> Restored:
    """Made ready beside the store, new life included, then copied over it in one transaction.

    The file stays the same one: panels that hold it open go on with what was restored.
    """
    store = Path(str(engine.url.database))
    with tempfile.TemporaryDirectory(dir=store.parent, prefix=f".{store.name}.") as folder:
        ready = Path(folder) / "store.db"
        shutil.copyfile(copy, ready)
        ready.chmod(0o600)
        url = f"sqlite:///{ready}"
        migrations.upgrade(url)
        beside = connect(url)
        try:
            restored = _begin(beside, manifest, above, actor)
        finally:
            beside.dispose()
        engine.dispose()
        _copy_over(ready, store)
    return restored


def _copy_over(ready: Path, store: Path) -> None:
    try:
        if not _is_database(store):
            _set_aside(store)
        with closing(sqlite3.connect(ready)) as source, closing(sqlite3.connect(store, timeout=30)) as target:
            target.execute("PRAGMA synchronous=FULL")
            source.backup(target)
            target.execute("PRAGMA journal_mode=WAL")
            target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise Unreachable(f"store {store}: {error}", hint="is the disk full, or the store in use?") from error
    store.chmod(0o600)


def _is_database(store: Path) -> bool:
    if not store.exists():
        return True
    try:
        with closing(sqlite3.connect(store)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError:
        return False
    return True


def _set_aside(store: Path) -> None:
    """What is no database any more is kept for whoever wants to look at it."""
    for part in ("", "-wal", "-shm"):
        broken = store.with_name(store.name + part)
        if broken.exists():
            broken.replace(store.with_name(f"{store.name}.broken{part}"))


# ---- PostgreSQL


def _put_back_postgresql(engine: Engine, copy: Path) -> None:
    """All tables as in the backup, and the mark that no life has begun, in one transaction of the database."""
    with tempfile.TemporaryDirectory(prefix="onehost-restore-", dir=copy.parent) as folder:
        before, content, mark = (Path(folder) / name for name in ("before.sql", "content.sql", "mark.sql"))
        postgresql.script(copy, content)
        tables = ", ".join(f'"{name}"' for name in sorted({*Base.metadata.tables, "alembic_version"}))
        # Also what the backup does not know yet; and not for ever if a panel is in the middle of something.
        before.write_text(f"SET lock_timeout = '30s'; DROP TABLE IF EXISTS {tables} CASCADE;\n")
        mark.write_text(
            "INSERT INTO public.counter (name, value) VALUES ('incarnation', -1) "
            "ON CONFLICT (name) DO UPDATE SET value = -1 - counter.value;\n"
        )
        postgresql.run_scripts(engine, [before, content, mark])
