"""A little cluster: real store, real broker, real workers whose host does nothing. What tests of the chain stand on."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from onehost import migrations
from onehost.broker_config import apply, bootstrap, routing
from onehost.broker_config.consumer import Consumer
from onehost.broker_config.publisher import Publisher
from onehost.models import settings
from onehost.models.errors import Unreachable
from onehost.models.store import bells, writing
from onehost.producer import Onehost, nodes
from onehost.producer.audit import QUEUES, Audit
from onehost.producer.main import Duties
from onehost.producer.presence import Presence
from onehost.producer.relay import Relay
from onehost.producer.repair import Look, Repair
from onehost.workers.entry import Difference, Entry
from onehost.workers.main import Worker

from .manager import Store

#: Silence after which a node is offline, in seconds; beats come each half second.
OFFLINE_SECONDS = 4.0


class IdleHost:
    """A machine on which nothing is done."""

    daemons = ()

    def recover(self, roles: frozenset[str]) -> None: ...
    def start(self, roles: frozenset[str]) -> None: ...
    def sweep(self, roles: frozenset[str]) -> None: ...


@dataclass
class Recorder:
    """A reconciler that changes a dictionary instead of a machine, and remembers every change."""

    noun: str
    state: dict[str, tuple[int, Any]] = field(default_factory=dict)
    changes: list[tuple[int, int]] = field(default_factory=list)
    fail: Callable[[Entry], None] = lambda entry: None

    def compare(self, entry: Entry, host: Any, view: Any) -> Difference:
        now = self.state.get(entry.name)
        if entry.spec is None:
            return {"it": "removed"} if now and now[0] == entry.id else {}
        return {} if now == (entry.id, dict(entry.spec)) else {"it": "made" if now is None else "changed"}

    def prepare(self, entry: Entry, host: Any, view: Any) -> None:
        self.fail(entry)

    def stage(self, entry: Entry, host: Any, view: Any) -> None:
        if self.compare(entry, host, view):
            self.changes.append((entry.id, entry.generation))
        if entry.spec is None:
            if self.state.get(entry.name, (0,))[0] == entry.id:
                del self.state[entry.name]
        else:
            self.state[entry.name] = (entry.id, dict(entry.spec))

    def finish(self, entry: Entry, host: Any, view: Any) -> None: ...
    def verify(self, entry: Entry, host: Any, view: Any) -> None: ...


class Process:
    """A loop on a thread that can be stopped."""

    def __init__(self, run: Callable[[threading.Event], None]) -> None:
        self.stop_event = threading.Event()
        self.thread = threading.Thread(target=run, args=(self.stop_event,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.stop_event.set()
        self.thread.join(15)
        assert not self.thread.is_alive(), "a process did not stop"


class Cluster:
    """Manager and nodes in this process."""

    def __init__(self, broker: Any, store: str, folder: Path, **more: Any) -> None:
        self.folder = folder
        more = {"store": store, "offline_after_seconds": OFFLINE_SECONDS, "grace_seconds": 0} | more
        self.settings: settings.Manager = replace(broker.settings(folder), **more)
        migrations.upgrade(store)
        bootstrap.bootstrap(self.settings, lambda arguments, stdin: broker.ctl(arguments, stdin))
        self.onehost = Onehost(self.settings, actor="test")
        self.workers: dict[str, Worker] = {}
        self.recorders: dict[str, dict[str, Recorder]] = {}
        #: Machines of nodes that are to have one.
        self.hosts: dict[str, Any] = {}
        self.processes: dict[str, Process] = {}
        self.worker_processes: dict[str, Process] = {}

    def add_node(self, name: str, roles: list[str], address: str) -> None:
        self.onehost.node_add(name, address, roles)
        (self.folder / f"{name}.password").write_text(nodes.credentials(self.onehost.engine, name))
        (self.folder / f"{name}.password").chmod(0o600)
        apply.synchronise(self.settings, nodes.hashes(self.onehost.engine))
        self.recorders[name] = {noun: Recorder(noun) for noun in ("account", "node", "virtual_service")}

    def start_manager(self) -> None:
        engine = self.onehost.engine
        publisher = Publisher(self.settings.as_user("relay"), routing.JOBS)

        def make_fit() -> list[str]:
            return [str(step) for step in apply.synchronise(self.settings, nodes.hashes(engine))]

        relay, look = Relay(engine, publisher, make_fit), Look(Repair(engine, "audit", make_fit))
        self.presence = Presence(self.settings.offline_after_seconds)
        consumer = Consumer(self.settings.as_user("audit"), QUEUES, Audit(engine, self.presence).store, prefetch=1000,
                            on_state=lambda text: print("audit:", text), idle_seconds=0.1,
                            ready=look.ask)  # fmt: skip
        self.processes["look"] = Process(look.run)
        self.processes["relay"] = Process(relay.run)
        self.processes["audit"] = Process(consumer.run)
        self.processes["duties"] = Process(Duties(engine, self.presence).run)

    def restart_relay(self) -> None:
        """Ends the relay's loop; the next one knows nothing but the store."""
        self.processes["relay"].stop_event.set()
        with writing(self.onehost.engine) as connection:
            bells.ring(connection, bells.RELAY)
        self.processes.pop("relay").stop()
        publisher = Publisher(self.settings.as_user("relay"), routing.JOBS)
        self.processes["relay"] = Process(Relay(self.onehost.engine, publisher).run)

    def start_worker(self, name: str) -> None:
        user, password_file = routing.node_user(name), self.folder / f"{name}.password"
        own = replace(self.settings.broker, user=user, password_file=password_file)
        config = settings.Worker(name, own, self.folder / f"{name}.ledger", beat_seconds=0.5, hello_seconds=3.0)

        def run(stop: threading.Event) -> None:
            try:
                worker = Worker(config, self.hosts.get(name, IdleHost()), stop, self.recorders[name])  # type: ignore[arg-type]
            except Unreachable:
                assert stop.is_set(), "it waited for the ledger until it was stopped"
                return
            self.workers[name] = worker
            worker.run()

        self.worker_processes[name] = Process(run)

    def stop_worker(self, name: str) -> None:
        self.worker_processes.pop(name).stop()
        self.workers.pop(name, None)

    def close(self) -> None:
        for process in (*self.worker_processes.values(), *self.processes.values()):
            process.stop_event.set()
        with writing(self.onehost.engine) as connection:
            bells.ring(connection, bells.RELAY)  # the relay looks at its stop at once
        for process in (*self.worker_processes.values(), *self.processes.values()):
            process.stop()
        self.onehost.close()


def wait_until(true: Callable[[], Any], seconds: float = 20.0) -> None:
    """Waits for a condition of the cluster; fails with it."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.02)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Makes copies of a migrated store with one storage node and two web nodes: making one anew takes longer."""
    folder = tmp_path_factory.mktemp("template")
    url = f"sqlite:///{folder}/store.db"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql")
        url = server.new_database()
    migrations.upgrade(url)
    made = Store(url, folder)
    made.cluster()
    made.close()

    def copy(to: Path) -> str:
        if request.param == "postgresql":
            return str(server.new_database(template=url))
        shutil.copy(folder / "store.db", to / "store.db")
        return f"sqlite:///{to}/store.db"

    return copy


@pytest.fixture
def store(template: Callable[[Path], str], tmp_path: Path) -> Iterator[Store]:
    """A manager's store, on both databases, with nodes s1, w1 and w2; no broker, no process."""
    made = Store(template(tmp_path), tmp_path)
    made.numbers = {"s1": 1, "w1": 1, "w2": 1}
    yield made
    wrong = made.wrong_digests()
    made.close()
    assert not wrong, "a placement was changed and its node's digest was not"


@contextmanager
def running(broker: Any, store: str, folder: Path, **more: Any) -> Iterator[Cluster]:
    """Manager, one storage node and three web nodes, all running."""
    made = Cluster(broker, store, folder, **more)
    try:
        made.add_node("store1", ["storage"], "10.0.0.10")
        for number in (1, 2, 3):
            made.add_node(f"web{number}", ["web", "ssh"], f"10.0.0.1{number}")
        made.start_manager()
        for name in made.recorders:
            made.start_worker(name)
        yield made
    finally:
        made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    made: str = request.getfixturevalue("postgresql").new_database()
    return made


@pytest.fixture
def cluster(rabbitmq: Any, store_url: str, tmp_path: Path) -> Iterator[Cluster]:
    """A running cluster, on both databases."""
    with running(rabbitmq, store_url, tmp_path) as made:
        yield made
