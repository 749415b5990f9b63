"""The cluster of real processes: relay, audit process and four workers, kept alive, each behind a link of the proxy.

A worker's machine is a folder (`rehearse`), so that what it did can be read and compared. The three serving nodes and
the storage node share one /home.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from onehost import migrations
from onehost.broker_config import apply, bootstrap, routing
from onehost.broker_config.credentials import secret
from onehost.broker_config.management import Management
from onehost.models.settings import Broker, Manager
from onehost.producer import Onehost, nodes

from ..conftest import RabbitMQ
from .keeper import Kept
from .proxy import Proxy

NODES = {"store1": ["storage"], "web1": ["web", "ssh"], "web2": ["web", "ssh"], "web3": ["web", "ssh"]}
DUTIES = ("relay", "audit")
#: Silence after which a node is offline, in seconds; beats come each half second.
OFFLINE_SECONDS = 4.0


#: The brakes are tested elsewhere; here every wish goes its way at once.
BRAKES: dict[str, Any] = {"held_beyond_per_hour": 0, "grace_seconds": 0.0}


def prepare(store: str, folder: Path) -> None:
    """A store with its four nodes and their passwords, to be copied: making one takes longer."""
    migrations.upgrade(store)
    with Onehost(Manager(store=store), actor="birth") as onehost:
        for number, (node, roles) in enumerate(NODES.items(), 10):
            onehost.node_add(node, f"10.0.0.{number}", roles)
            password = folder / f"{node}.password"
            password.touch(mode=0o600)
            password.write_text(nodes.credentials(onehost.engine, node))


class Cluster:
    """See the module. `store` is a copy of what `prepare` made in `template`."""

    def __init__(self, broker: RabbitMQ, store: str, template: Path, folder: Path, seed: object,
                 small: str = "", database: Any = None) -> None:  # fmt: skip
        """Everything of node `small` is below `folder`/small, which the caller has made a small disk."""
        self.broker, self.store, self.folder, self._small = broker, store, folder, small
        #: The PostgreSQL that has the store; None: it is a SQLite file.
        self.database = database
        self.proxy = Proxy(broker.port, seed)
        self.settings: Manager = broker.settings(folder)
        self.settings = Manager(
            store=store, broker=Broker(port=broker.port), secrets=self.settings.secrets,
            management=broker.management, definitions=self.settings.definitions,
            offline_after_seconds=OFFLINE_SECONDS, **BRAKES,
        )  # fmt: skip
        self.onehost = Onehost(self.settings, actor="faults")
        self.kept: dict[str, Kept] = {}
        #: Nodes whose machine was lost and is new.
        self.wiped: set[str] = set()
        try:
            bootstrap.bootstrap(self.settings, lambda words, stdin: broker.ctl(words, stdin))
            self.api().delete("vhosts", "onehost")
            self.synchronise()
            (folder / "home").mkdir()
            for duty in DUTIES:
                self._keep_duty(duty)
            for node in NODES:
                shutil.copy2(template / f"{node}.password", folder)
                self._keep_worker(node)
            for kept in self.kept.values():
                kept.start()
        except BaseException:
            self.close()
            raise

    def api(self) -> Management:
        """RabbitMQ's management API, as a person would use it."""
        return Management(self.settings.management, "topology", secret(self.settings.secrets / "topology"))

    def synchronise(self) -> None:
        """`onehost broker apply`."""
        apply.synchronise(self.settings, nodes.hashes(self.onehost.engine))

    def python(self, *words: str) -> list[str]:
        return [sys.executable, *words]

    def environment(self, **more: str) -> dict[str, str]:
        """What every process of the cluster is given."""
        return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", **more}

    def _keep_duty(self, duty: str) -> None:
        config = self.folder / f"{duty}.toml"
        config.write_text(
            f'store = "{self.store}"\nsecrets = "{self.settings.secrets}"\nmanagement = "{self.settings.management}"\n'
            f'definitions = "{self.settings.definitions}"\noffline_after_seconds = {OFFLINE_SECONDS}\n'
            f"[broker]\nport = {self.proxy.link(duty)}\n"
        )
        self.kept[duty] = Kept(duty, self.python("-m", "onehost.producer", duty),
                               self.environment(ONEHOST_CONFIG=str(config)), self.folder / f"{duty}.log")  # fmt: skip

    def _keep_worker(self, node: str) -> None:
        machine = self.machine(node)
        machine.mkdir()
        (machine / "home").symlink_to(self.folder / "home")
        config = self.folder / f"{node}.toml"
        config.write_text(
            f'node = "{node}"\nledger = "{self.ledger(node)}"\nrehearse = "{machine}"\n'
            f"beat_seconds = 0.5\nhello_seconds = 3.0\n[broker]\nport = {self.proxy.link(node)}\n"
            f'user = "{routing.node_user(node)}"\npassword_file = "{self.folder}/{node}.password"\n'
        )
        self.kept[node] = Kept(node, self.python("-m", "onehost.workers"),
                               self.environment(ONEHOST_WORKER_CONFIG=str(config)),
                               self.folder / f"{node}.log")  # fmt: skip

    # ---- what is on disk

    def machine(self, node: str) -> Path:
        """The folder that stands for a node's machine."""
        return self._home(node) / node

    def _home(self, node: str) -> Path:
        return self.folder / "small" if node == self._small else self.folder

    def ledger(self, node: str) -> Path:
        return self._home(node) / f"{node}.ledger"

    def read_ledger(self, node: str, statement: str) -> list[sqlite3.Row]:
        """Rows of a node's ledger, read beside its worker; none if there is no ledger."""
        try:
            with closing(sqlite3.connect(f"file:{self.ledger(node)}?mode=ro", uri=True, timeout=5)) as db:
                db.row_factory = sqlite3.Row
                return db.execute(statement).fetchall()
        except sqlite3.OperationalError:
            return []

    def close(self) -> None:
        for kept in self.kept.values():
            kept.close()
        self.proxy.close()
        self.onehost.close()

    def logs(self) -> str:
        """The end of every process' log."""
        return "\n".join(f"---- {name}, ended {kept.ends}\n{kept.said()}" for name, kept in self.kept.items())


def wait_until(true: Callable[[], Any], seconds: float = 30.0, what: str = "it") -> None:
    """Waits for a condition; fails if it does not come true."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"{what} did not come true within {seconds:g} s"
        time.sleep(0.05)


@contextmanager
def stopped(kept: Kept) -> Iterator[None]:
    """The process is down while the block runs."""
    kept.stop()
    try:
        yield
    finally:
        kept.start()
