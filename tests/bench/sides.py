"""The two sides of every measurement, each with processes of its own: onehost itself and the bare reference.

Both are asked the same: submit `count` jobs for every node, tell when all of it is acknowledged and durable.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bare
import bare_store
import pika
import psycopg
from sqlalchemy import func, select

from onehost import migrations
from onehost.broker_config import apply, bootstrap
from onehost.models import settings
from onehost.models.store import NodeStatus, reading
from onehost.producer import Onehost, Wish, nodes

HERE = Path(__file__).resolve().parent
#: Processes that share the nodes of one side.
FLEETS = 10
#: Longest wait for all nodes to be there, and for one measurement to end, in seconds.
READY_SECONDS, DONE_SECONDS = 600.0, 300.0
#: How often the store is asked whether all is done, in seconds: the same for both sides.
LOOK_SECONDS = 0.001


#: What is asked then: both stores have these columns.
OPEN = "SELECT 1 FROM placement WHERE done < wanted LIMIT 1"


def driver(store: str) -> Any:
    """A connection that looks into a store by the driver alone: what looking costs is the same for both sides."""
    path = store.removeprefix("sqlite://").replace("//", "/")
    if path.startswith("/"):
        return sqlite3.connect(path, isolation_level=None, timeout=30)
    return psycopg.connect(store.replace("+psycopg", ""), autocommit=True)


class Side:
    """One side. Subclasses submit."""

    name = ""

    def __init__(self, folder: Path, count: int, store: str) -> None:
        self.folder = folder
        self.url = store
        self.names = [f"n{number:04}" for number in range(1, count + 1)]
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.looks: Any = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, command: Sequence[str | Path], **environment: str) -> None:
        """Starts a process of this side; its words go to a file."""
        with (self.folder / f"{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(
                [*map(str, command)], stdout=log, stderr=log, text=True, env={**os.environ, **environment}, cwd=HERE
            )

    def fleets(self, command: Sequence[str | Path], config: dict[str, Any]) -> None:
        """Starts the processes that share the nodes."""
        for number in range(min(FLEETS, len(self.names))):
            path = self.folder / f"fleet{number}.json"
            mine = self.names[number::FLEETS]
            path.write_text(json.dumps(config | {"mine": mine, "nodes": self.names, "folder": str(self.folder)}))
            self.start(f"fleet{number}", [*command, path])

    def wait_until(self, is_true: Any, seconds: float, every: float = LOOK_SECONDS) -> None:
        until = time.monotonic() + seconds
        while not is_true():
            for name, process in self.processes.items():
                if process.poll() is not None:
                    words = (self.folder / f"{name}.log").read_text()[-2000:]
                    raise SystemExit(f"{self.name}: {name} ended:\n{words}")
            if time.monotonic() > until:
                raise SystemExit(f"{self.name}: not done after {seconds:g} s")
            time.sleep(every)

    def ready(self) -> None:
        """Waits until every process has said that it is."""
        logs = [self.folder / f"{name}.log" for name in self.processes]
        self.wait_until(lambda: all("ready" in log.read_text() for log in logs), READY_SECONDS, 0.1)

    def submit(self, count: int) -> None:
        """Submits `count` jobs, in one transaction, each for every node."""
        raise NotImplementedError

    def is_done(self) -> bool:
        """Whether everything submitted is acknowledged, by what is committed."""
        self.looks = self.looks or driver(self.url)
        return self.looks.execute(OPEN).fetchone() is None

    def took(self, jobs: int = 1) -> float:
        """Seconds from the submit of so many jobs until all their acknowledgements are durable."""
        began = time.perf_counter()
        self.submit(jobs)
        self.wait_until(self.is_done, DONE_SECONDS)
        return time.perf_counter() - began

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Takes its processes off the processor while the other side is measured."""
        for process in self.processes.values():
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in self.processes.values():
                process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends all its processes."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait(30)
        self.processes.clear()
        if self.looks:
            self.looks.close()


class Chain(Side):
    """onehost: real relay, real audit process, real workers with a host that does nothing."""

    name = "onehost"

    def __init__(self, folder: Path, count: int, store: str, broker: Any, accounts: int = 50) -> None:
        super().__init__(folder, count, store)
        self.settings: settings.Manager = broker.settings(folder)
        self.settings = settings.replace(self.settings, store=store)
        self.accounts = accounts
        self.turn = -1
        migrations.upgrade(store)
        bootstrap.bootstrap(self.settings, lambda arguments, stdin: broker.ctl(arguments, stdin))
        self.onehost = Onehost(self.settings, actor="bench")
        self._make_nodes()

    def _make_nodes(self) -> None:
        # Every node has all roles, so that an account is opened on all of them at once: one stage, as the reference.
        fields = [{"address": f"10.{n >> 8}.{n & 255}.1", "roles": ["storage", "web", "ssh"]}
                  for n in range(1, len(self.names) + 1)]  # fmt: skip
        for at in range(0, len(fields), 100):
            pairs = zip(self.names[at : at + 100], fields[at : at + 100], strict=True)
            self.onehost.submit([self.onehost.wish("node", name, "add", given) for name, given in pairs])
        for name in self.names:
            secret = self.folder / f"{name}.password"
            secret.write_text(nodes.credentials(self.onehost.engine, name))
            secret.chmod(0o600)
        apply.synchronise(self.settings, nodes.hashes(self.onehost.engine))

    def run(self) -> None:
        """Starts manager and workers, waits until every node is in step, makes the accounts."""
        config = self.folder / "onehost.toml"
        own = self.settings
        config.write_text(
            f'store = "{own.store}"\nsecrets = "{own.secrets}"\nmanagement = "{own.management}"\n'
            f'definitions = "{own.definitions}"\noffline_after_seconds = 60\n[broker]\nport = {own.broker.port}\n'
        )
        for duty in ("relay", "audit"):
            command = [sys.executable, "-m", "onehost.producer", duty]
            self.start(duty, command, ONEHOST_CONFIG=str(config))
        self.fleets([sys.executable, HERE / "fleet.py"], {"port": own.broker.port})
        self.wait_until(self._are_online, READY_SECONDS, 0.2)
        self.wait_until(self.is_done, READY_SECONDS, 0.2)
        self.submit_wishes([self.onehost.wish("account", f"account{n}", "create", {"domain": f"account{n}.example.com"})
                            for n in range(self.accounts)])  # fmt: skip
        self.wait_until(self.is_done, READY_SECONDS, 0.2)

    def _are_online(self) -> bool:
        with reading(self.onehost.engine) as connection:
            online = select(func.count()).select_from(NodeStatus).where(NodeStatus.state == "online")
            return bool(connection.execute(online).scalar_one() == len(self.names))

    def submit_wishes(self, wishes: Sequence[Wish]) -> None:
        self.onehost.submit(wishes)

    def submit(self, count: int) -> None:
        wishes = []
        for _ in range(count):
            self.turn += 1
            spec = {"document_root": "web", "access": ("none", "sftp", "shell")[self.turn // self.accounts % 3]}
            wishes.append(self.onehost.wish("account", f"account{self.turn % self.accounts}", "set", spec))
        receipts = self.onehost.submit(wishes)
        assert all(receipt.job_id for receipt in receipts), "a wish changed nothing"

    def stop(self) -> None:
        super().stop()
        self.onehost.close()


class Bare(Side):
    """The bare reference on the same broker, disk and database server."""

    name = "bare"

    def __init__(self, folder: Path, count: int, store: str, broker: Any, accounts: int = 50) -> None:
        super().__init__(folder, count, store)
        self.port, self.accounts, self.turn = broker.port, accounts, 0
        self.store = bare_store.connect(store)
        self.store.create(accounts, count)
        if bare.VHOST not in broker.ctl(["list_vhosts"]).split():
            broker.ctl(["add_vhost", bare.VHOST])
            broker.ctl(["add_user", bare.USER, bare.USER])
        broker.ctl(["set_permissions", "-p", bare.VHOST, bare.USER, ".*", ".*", ".*"])
        self._make_roads()

    def _make_roads(self) -> None:
        with pika.BlockingConnection(bare.where(self.port)) as connection:
            channel = connection.channel()
            channel.exchange_declare(bare.JOBS, "topic", durable=True)
            quorum = {"x-queue-type": "quorum"}
            channel.queue_declare(bare.ACKS, durable=True, arguments=quorum)
            channel.queue_purge(bare.ACKS)
            for name in self.names:
                channel.queue_declare(
                    f"bare.{name}", durable=True, arguments=quorum | {"x-single-active-consumer": True}
                )
                channel.queue_purge(f"bare.{name}")
                channel.queue_bind(f"bare.{name}", bare.JOBS, f"*.{name}.*")

    def run(self) -> None:
        """Starts relay, audit and nodes."""
        config = {"port": self.port, "store": self.url, "nodes": self.names}
        (self.folder / "config.json").write_text(json.dumps(config))
        for duty in ("relay", "audit"):
            self.start(duty, [sys.executable, HERE / "bare.py", duty, self.folder / "config.json"])
        self.fleets([sys.executable, HERE / "bare.py", "nodes"], config)
        self.ready()

    def submit(self, count: int) -> None:
        self.store.submit([(self.turn + at) % self.accounts + 1 for at in range(count)])
        self.turn += count
