"""Hello with many resources: what the running digest costs, what three differences cost, how a fresh node is filled.

The store holds every account on every node. One node is real: first it is new and empty, then three of its entries are
wrong.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from fleet import IdleHost, Nothing
from results import Row
from sides import Chain
from sqlalchemy import event, func, insert, select, text

from onehost.broker_config import apply, routing
from onehost.broker_config.consumer import Consumer, Delivery
from onehost.broker_config.publisher import Letter, Publisher, Report
from onehost.models import settings
from onehost.models.canonical import canonical
from onehost.models.moment import now
from onehost.models.store import NodeStatus, Placement, Resource, Revision, digests, reading, writing
from onehost.producer import Wish, nodes
from onehost.producer.audit import Audit
from onehost.producer.presence import Presence
from onehost.producer.relay import Relay
from onehost.workers.main import Worker

FRESH = "fresh"
#: Acknowledgements of one batch, and batches of each kind, by which the digest's cost is measured.
BATCH, ROUNDS = 500, 7


class Crowded(Chain):
    """A manager whose store holds `accounts` on each of `count` nodes, all applied; no process runs yet."""

    def fill(self) -> None:
        """Straight into the tables, each like the one that was submitted: it is not what is measured."""
        model = self.onehost.account_create("model", domain="model.example.com")
        with writing(self.onehost.engine) as connection:
            first = self.first = 1 + (connection.execute(select(func.max(Resource.id))).scalar() or 0)
            at, numbers = now(), range(first, first + self.accounts)
            payload = select(Revision.payload).where(Revision.resource_id == model.resource_id)
            spec = json.loads(connection.execute(payload).scalar_one())
            connection.execute(insert(Resource), [
                {"id": n, "noun": "account", "name": f"account{n}", "generation": 1, "absent": False, "replaces": 0,
                 "created_at": at, "changed_at": at} for n in numbers])  # fmt: skip
            connection.execute(insert(Revision), [
                {"resource_id": n, "generation": 1, "payload": _payload(spec, n), "secrets": None, "created_at": at}
                for n in numbers])  # fmt: skip
            connection.execute(text("UPDATE counter SET value = :last WHERE name = 'resource'"), {"last": numbers[-1]})
            connection.execute(text(
                "INSERT INTO placement (resource_id, node_id, wanted, sent, done, applied, outcome, leaving) "
                "SELECT a.id, n.id, 1, 1, 1, 1, 1, false FROM resource a CROSS JOIN resource n "
                "WHERE a.noun = 'account' AND n.noun = 'node' AND a.name <> 'model'"))  # fmt: skip
            connection.execute(text("UPDATE placement SET sent = wanted, done = wanted, applied = wanted, outcome = 1"))
        with writing(self.onehost.engine) as connection:
            for node_id in connection.execute(select(NodeStatus.node_id)).scalars().all():
                digests.recount(connection, node_id, range(256))
        if self.settings.store.startswith("postgresql"):
            with self.onehost.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")

    def add_fresh(self) -> None:
        """One more node, and its roads."""
        self.onehost.node_add(FRESH, "10.9.9.9", ["storage", "web", "ssh"])
        secret = self.folder / f"{FRESH}.password"
        secret.write_text(nodes.credentials(self.onehost.engine, FRESH))
        secret.chmod(0o600)
        apply.synchronise(self.settings, nodes.hashes(self.onehost.engine))

    def start_manager(self) -> None:
        """Relay and audit process."""
        own = self.settings
        config = self.folder / "onehost.toml"
        config.write_text(
            f'store = "{own.store}"\nsecrets = "{own.secrets}"\nmanagement = "{own.management}"\n'
            f'definitions = "{own.definitions}"\n[broker]\nport = {own.broker.port}\n'
        )
        for duty in ("relay", "audit"):
            self.start(duty, [sys.executable, "-m", "onehost.producer", duty], ONEHOST_CONFIG=str(config))

    def start_worker(self) -> None:
        """The fresh node's worker, a process of its own."""
        config = {"port": self.settings.broker.port, "mine": [FRESH], "folder": str(self.folder)}
        (self.folder / "fleet.json").write_text(json.dumps(config))
        self.start("worker", [sys.executable, Path(__file__).parent / "fleet.py", self.folder / "fleet.json"])

    def node_id(self, name: str) -> int:
        with reading(self.onehost.engine) as connection:
            which = (Resource.noun == "node", Resource.name == name)
            return int(connection.execute(select(Resource.id).where(*which)).scalar_one())


def measure(bench: Any) -> None:
    """All of it, store by store."""
    accounts, count = (1000, 10) if bench.options.small else (20_000, 100)
    for kind in bench.options.stores:
        place = bench.place()
        crowd = Crowded(place / "onehost", count, bench.store(kind, place), bench.broker, accounts)
        words = f"{accounts:,} resources x {count} nodes, {kind}"
        try:
            crowd.fill()
            change(bench, crowd, words)
            fresh(bench, crowd, words)
            differing(bench, crowd, words)
        finally:
            crowd.stop()


def _payload(model: dict[str, Any], number: int) -> bytes:
    own = {"domain": f"account{number}.example.com", "uid": 20_001 + number, "gid": 20_001 + number}
    return canonical(model | own)


# ---- what a change costs


def change(bench: Any, crowd: Crowded, words: str) -> None:
    """Microseconds of a digest's change: what the same transactions take with it and without it, in turn."""
    taken: dict[str, dict[str, list[float]]] = {}
    said = Said(crowd)
    for number in range(2 * ROUNDS + 2):
        with_it = number % 2 == 0
        with mock.patch.object(digests, "changed", digests.changed if with_it else lambda *_: None):
            jobs = -(-BATCH // len(crowd.names))
            began = time.perf_counter()
            receipts = crowd.onehost.submit(
                [Wish("account", f"account{crowd.first + n}", "retry") for n in range(jobs)]
            )
            submitted = time.perf_counter() - began
            batch = [said.applied(name, receipt) for receipt in receipts for name in crowd.names][:BATCH]
            began = time.perf_counter()
            said.audit.store(batch)
            stored = time.perf_counter() - began
            said.audit.store([said.applied(name, receipt) for receipt in receipts for name in crowd.names][BATCH:])
        if number >= 2:
            side = "with digest" if with_it else "without"
            targets = jobs * len(crowd.names)
            for what, seconds, changes in (("submit", submitted, targets), ("acknowledgement", stored, len(batch))):
                taken.setdefault(what, {}).setdefault(side, []).append(seconds / changes * 1e6)
    for what, samples in taken.items():
        bench.results.add(Row(f"a change by {what}, {words}", "us", samples,
                              ("with digest", "without", "cost of the digest")))  # fmt: skip
    with writing(crowd.onehost.engine) as connection:
        for node_id in connection.execute(select(NodeStatus.node_id)).scalars().all():
            digests.recount(connection, node_id, range(256))


class Said:
    """What nodes would say, handed to the audit process's own code."""

    def __init__(self, crowd: Crowded) -> None:
        self.audit = Audit(crowd.onehost.engine, Presence(60.0))
        self.numbers: dict[str, int] = {}
        beats = [self._delivery(name, {"form": "beat", "epoch": 7, "last": 0, "at": time.time(), "synced": True})
                 for name in crowd.names]  # fmt: skip
        self.audit.store(beats)

    def applied(self, name: str, receipt: Any) -> Delivery:
        number = self.numbers[name] = self.numbers.get(name, 0) + 1
        return self._delivery(name, {
            "form": "ack", "epoch": 7, "number": number, "incarnation": 0, "id": receipt.resource_id, "noun": "account",
            "name": receipt.name, "generation": receipt.generation, "outcome": "applied", "at": time.time(),
            "difference": {"it": "changed"}, "seconds": {"node": 0.1}})  # fmt: skip

    def _delivery(self, name: str, body: dict[str, Any]) -> Delivery:
        data = json.dumps(body | {"node": name}).encode()
        return Delivery(routing.AUDIT_QUEUE, f"ack.{name}.account", routing.node_user(name), "m", data, False)


# ---- a fresh node


def fresh(bench: Any, crowd: Crowded, words: str) -> None:
    """Seconds until a new node has applied everything, and the most memory that each process ever had."""
    began = time.perf_counter()
    crowd.add_fresh()
    bench.results.add(Row(f"node add, {words}", "s", {"onehost": [time.perf_counter() - began]}))
    node_id = crowd.node_id(FRESH)
    crowd.start_manager()
    crowd.start_worker()
    began = time.perf_counter()
    crowd.wait_until(lambda: _is_applied(crowd, node_id), 1800, 0.2)
    took = time.perf_counter() - began
    peaks = {name: [_peak(process.pid)] for name, process in crowd.processes.items()}
    bench.results.add(Row(f"a fresh node is filled, {words}", "s", {"onehost": [took]},
                          note=f"{crowd.accounts / took:,.0f} resources/s"))  # fmt: skip
    bench.results.add(Row(f"highest memory meanwhile, {words}", "MiB", peaks))
    crowd.wait_until(lambda: _agrees(crowd, node_id), 60, 0.2)
    for process in crowd.processes.values():
        process.terminate()
    for process in crowd.processes.values():
        process.wait(30)
    crowd.processes.clear()


def _is_applied(crowd: Crowded, node_id: int) -> bool:
    with reading(crowd.onehost.engine) as connection:
        is_open = select(Placement.node_id).where(Placement.node_id == node_id, Placement.done < Placement.wanted)
        return connection.execute(is_open.limit(1)).first() is None


def _agrees(crowd: Crowded, node_id: int) -> bool:
    """Whether the node's newest beat has the store's digest."""
    with reading(crowd.onehost.engine) as connection:
        beat = connection.execute(select(NodeStatus.beat).where(NodeStatus.node_id == node_id)).scalar()
        return bool(beat) and json.loads(beat)["root"] == digests.read(connection, node_id).root()


def _peak(pid: int) -> float:
    """MiB that were resident at the highest."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


# ---- three differences


class Counted(Publisher):
    """A publisher that keeps what it was given."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.letters: list[Letter] = []

    def send(self, letters: Sequence[Letter]) -> Report:
        self.letters += letters
        return super().send(letters)


def differing(bench: Any, crowd: Crowded, words: str) -> None:
    """One entry lost, one older, one with another outcome: bytes, seconds and queries until all agrees again."""
    node_id, ledger = crowd.node_id(FRESH), crowd.folder / f"{FRESH}.ledger"
    samples: dict[str, list[float]] = {}
    for _ in range(3):
        _spoil(ledger)
        for what, value in _exchange(crowd, node_id, ledger).items():
            samples.setdefault(what, []).append(value)
    for what, unit in (("bytes", "bytes"), ("letters", "letters"), ("queries", "queries"), ("seconds", "s")):
        bench.results.add(Row(f"hello with 3 differences, {words}: {what}", unit, {"onehost": samples[what]}))


def _spoil(ledger: Path) -> None:
    with sqlite3.connect(ledger) as db:
        ids = [
            row[0] for row in db.execute("SELECT id FROM entry WHERE noun = 'account' ORDER BY id LIMIT 3 OFFSET 99")
        ]
        db.execute("DELETE FROM entry WHERE id = ?", ids[:1])
        db.execute(
            "UPDATE entry SET wanted = wanted - 1, done = done - 1, applied = applied - 1 WHERE id = ?", ids[1:2]
        )
        db.execute("UPDATE entry SET outcome = 2 WHERE id = ?", ids[2:])
    db.close()


def _exchange(crowd: Crowded, node_id: int, ledger: Path) -> dict[str, float]:
    """From the worker's start until store and node agree, in this process, so that everything can be counted."""
    own, engine = crowd.settings, crowd.onehost.engine
    broker = settings.Broker(port=own.broker.port, user=routing.node_user(FRESH),
                             password_file=crowd.folder / f"{FRESH}.password")  # fmt: skip
    config = settings.Worker(FRESH, broker, ledger, beat_seconds=0.5)
    stop, queries = threading.Event(), []
    with mock.patch("onehost.workers.main.Publisher", Counted):
        worker = Worker(config, IdleHost(), stop, {n: Nothing(n) for n in ("account", "node", "virtual_service")})  # type: ignore[arg-type]
    relay = Relay(engine, Counted(own.as_user("relay"), routing.JOBS))
    presence = Presence(60.0)
    audit = Consumer(own.as_user("audit"), [routing.AUDIT_QUEUE, routing.BEAT_QUEUE], Audit(engine, presence).store,
                     prefetch=1000, idle_seconds=0.1)  # fmt: skip
    said: Counted = worker.reporter._publisher  # type: ignore[assignment]
    with _threads(stop, [relay.run, audit.run]), _counting(engine, queries):
        runner = threading.Thread(target=worker.run)
        began = time.perf_counter()
        runner.start()
        crowd.wait_until(lambda: worker.sync.synced.is_set() and _same(crowd, node_id, worker), 60, 0.005)
        took = time.perf_counter() - began
        counted = len(queries)
        stop.set()
        runner.join(20)
    letters = [*relay.publisher.letters, *(each for each in said.letters if each.type != "beat")]  # type: ignore[attr-defined]
    return {"bytes": sum(len(each.body) for each in letters), "letters": len(letters), "queries": counted,
            "seconds": took}  # fmt: skip


def _same(crowd: Crowded, node_id: int, worker: Worker) -> bool:
    """Asked on the main thread, whose queries nobody counts."""
    with reading(crowd.onehost.engine) as connection:
        return worker.ledger.digest.text() == digests.read(connection, node_id).text()


@contextmanager
def _counting(engine: Any, queries: list[str]) -> Iterator[None]:
    main = threading.current_thread()

    def hear(_c: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if threading.current_thread() is not main:
            queries.append(statement)

    event.listen(engine, "before_cursor_execute", hear)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", hear)


@contextmanager
def _threads(stop: threading.Event, runs: Sequence[Callable[[threading.Event], None]]) -> Iterator[None]:
    threads = [threading.Thread(target=run, args=(stop,)) for run in runs]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1.5)
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
