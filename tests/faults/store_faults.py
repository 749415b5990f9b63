"""Rows: the manager's database is away, frozen, locked or full; the manager itself is off or there twice."""

from __future__ import annotations

import copy
import signal
import subprocess
import sys
import time

from sqlalchemy.engine import make_url

from onehost.producer.backup import backup
from onehost.producer.restore import restore

from .checks import wait_for_quiet
from .cluster import DUTIES, wait_until
from .disks import full
from .keeper import Kept
from .row import MARKER, Row, Trial

LOCKED_SECONDS = 5.0
#: Holds the write lock of a SQLite file until its standard input ends.
HOLD = """
import sqlite3, sys
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def database_crashed(trial: Trial) -> None:
    trial.cluster.database.stop(signal.SIGQUIT)
    time.sleep(1)
    trial.cluster.database.start()


def database_stopped(trial: Trial) -> None:
    trial.cluster.database.stop(signal.SIGINT)
    time.sleep(4)
    trial.cluster.database.start()


def database_frozen(trial: Trial) -> None:
    trial.cluster.database.freeze()
    try:
        time.sleep(8)
    finally:
        trial.cluster.database.thaw()


def database_locked(trial: Trial) -> None:
    """A person has opened a transaction and gone for coffee."""
    with trial.cluster.database.session(trial.cluster.store) as session, session.transaction():
        session.execute("LOCK TABLE placement, job IN ACCESS EXCLUSIVE MODE")
        time.sleep(LOCKED_SECONDS)


def sqlite_locked(trial: Trial) -> None:
    path = make_url(trial.cluster.store).database
    assert path
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout
    holder.stdout.readline()
    time.sleep(LOCKED_SECONDS)
    holder.communicate()


def store_full(trial: Trial) -> None:
    """Every wish is refused with a reason, nothing is half done; what nodes say waits for them."""
    before = trial.stream.unreached
    with full(trial.cluster.folder / "small"):
        wait_until(lambda: trial.stream.unreached > before + 3, what="a refused wish")
        time.sleep(2)


def manager_off(trial: Trial) -> None:
    """Relay and audit process are off while wishes come in and nodes go on."""
    kept = trial.cluster.kept
    for duty in DUTIES:
        kept[duty].stop(signal.SIGKILL)
    trial.stream.wait_for(20)
    time.sleep(4)
    for duty in trial.chance.sample(DUTIES, 2):
        kept[duty].start()


def second(duty: str, trial: Trial) -> None:
    """Somebody starts another one by mistake: it waits, and takes over when the first one dies."""
    first = trial.cluster.kept[duty]
    other = Kept(
        f"second {duty}",
        first.command,
        first.environment,
        trial.cluster.folder / f"second-{duty}-{time.monotonic_ns()}.log",
    )
    try:
        other.start()
        wait_until(lambda: "starting" in other.said(), what="the second one's start")
        trial.stream.wait_for(10)
        assert "consuming" not in other.said() and "idle" not in other.said(), f"two of {duty} at once"
        first.stop(signal.SIGKILL)
        trial.stream.wait_for(5)
        wait_until(lambda: "consuming" in other.said() or "idle" in other.said(), what="the second one's turn")
        first.start()
        trial.stream.wait_for(5)
    finally:
        other.close()


def second_after_crash(trial: Trial) -> None:
    """A database that crashed has let go of every lock: relay and audit process take theirs again."""
    database_crashed(trial)
    with trial.cluster.database.session(trial.cluster.store) as session:
        held = "SELECT count(DISTINCT objid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        wait_until(lambda: session.execute(held).fetchone()[0] >= len(DUTIES), what="the locks")
    second("audit", trial)


def restored(trial: Trial) -> None:
    """Yesterday's store is put back: what nodes have beyond it gets the store's spec as something newer."""
    cluster, model = trial.cluster, trial.stream.model
    for name in ("keeper", MARKER):
        if not model.living(name):
            trial.wish(name, "create")
    with trial.stream.paused():
        wait_for_quiet(cluster)
        path = cluster.folder / "backup"
        backup(cluster.onehost.engine, path, force=True)
        yesterday = copy.deepcopy(model)
        for verb in ("suspend", "unsuspend", "suspend"):
            trial.wish("keeper", verb)
        trial.wish(MARKER, "delete")
        with trial.watch.not_looking():
            for duty in DUTIES:
                cluster.kept[duty].stop()
            life = restore(cluster.store, path, "faults").incarnation
            cluster.onehost.engine.dispose()
            for duty in DUTIES:
                cluster.kept[duty].start()
            wait_for_quiet(cluster)
        model.lives, model.last_job = yesterday.lives, yesterday.last_job
        _adopt(trial)
    trial.notes.append(f"life {life}")


def _adopt(trial: Trial) -> None:
    """The store has given new generations, with the specs of yesterday."""
    for row in trial.cluster.onehost.list("account"):
        life = trial.stream.model.living(row["name"])
        assert life and life.id == row["id"], f"P4: {row}"
        assert row["generation"] >= life.generation, f"P4: {row}"
        life.specs[row["generation"]] = life.spec


ROWS = (
    Row("database crashed and started", database_crashed, "P1 P3 P11", "postgresql"),
    Row("database stopped for 4 s", database_stopped, "P1 P6", "postgresql"),
    Row("database frozen for 8 s", database_frozen, "P1 P7", "postgresql"),
    Row("database locked by a session", database_locked, "P1 P3", "postgresql"),
    Row("database locked by a process", sqlite_locked, "P1 P3"),
    Row("store disk full", store_full, "P2 P11", small="store", fresh=True),
    Row("yesterday's store restored", restored, "P4 P6", fresh=True),
    Row("yesterday's store restored", restored, "P4 P6", "postgresql", fresh=True),
    Row("manager off", manager_off, "P1 P6"),
    Row("second relay", lambda trial: second("relay", trial), "P1 P3"),
    Row("second audit, database crashed", second_after_crash, "P3 P11", "postgresql"),
    Row("second audit", lambda trial: second("audit", trial), "P3 P11", "postgresql"),
)
