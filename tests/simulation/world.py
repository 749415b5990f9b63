"""The whole system in one thread: real duties of manager and nodes around one store, driven step by step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from onehost.broker_config import routing
from onehost.models import settings
from onehost.models.store import reading
from onehost.producer import Onehost
from onehost.producer.audit import Audit
from onehost.producer.main import Duties
from onehost.producer.membership import nodes
from onehost.producer.presence import Presence
from onehost.producer.relay import Relay
from onehost.workers.main import Worker

from .bus import MANAGER_QUEUES, Bus, Fault, Publisher
from .machine import Machine
from .seams import CLOCK, POINTS, Asleep, Crash, Turns
from .template import ROLES, Template

OFFLINE_SECONDS = 15.0
BEAT_SECONDS = 5.0


class IdleHost:
    """A host without daemons."""

    daemons = ()

    def recover(self, roles: frozenset[str]) -> None: ...
    def start(self, roles: frozenset[str]) -> None: ...
    def sweep(self, roles: frozenset[str]) -> None: ...


class Node:
    """One node: its disk, its machine, and a worker process that may be gone."""

    def __init__(self, name: str, folder: Path, bus: Bus, ledger: bytes, machine: Machine) -> None:
        self.name = name
        self.queue = routing.node_queue(name)
        self.machine = machine
        self._bus = bus
        self._path = folder / f"{name}.ledger"
        self.worker: Worker | None = None
        self._is_connected = False
        #: Counts ledgers: numbers of another life may be lower.
        self.life = 0
        self.replace_ledger(ledger)

    def start(self) -> None:
        """A new process of the worker: a new epoch, nothing in memory."""
        if self.worker is not None:
            return
        user = routing.node_user(self.name)
        config = settings.Worker(self.name, settings.Broker(user=user), self._path, beat_seconds=BEAT_SECONDS)
        worker = Worker(config, IdleHost(), known=self.machine.reconcilers())  # type: ignore[arg-type]
        worker.reporter._publisher = Publisher(self._bus, routing.EVENTS, user)  # type: ignore[assignment]
        worker.executor._news = Turns()  # type: ignore[assignment]
        self.worker, self._is_connected = worker, False
        self.machine.older_open = self._older_open

    def kill(self) -> None:
        if self.worker is not None:
            self.worker.ledger.close()
            self.worker = None

    def ledger(self) -> bytes:
        """The ledger as a backup would have it: the worker is stopped for that."""
        self.kill()
        return self._path.read_bytes()

    def replace_ledger(self, content: bytes) -> None:
        self.kill()
        self._path.write_bytes(content)
        self.life += 1

    def deliver(self, limit: int, *, settled: bool = True) -> None:
        """The receiver takes a batch. Unless it is settled, the connection is lost and the batch comes again."""
        if self.worker is None or not self._connect():
            return
        batch = self._bus.take(self.queue, limit)
        if not batch:
            return
        try:
            dead = self.worker.receiver.store(batch)
            assert not dead, f"{self.name} refused {dead}"
        except Crash:
            self._bus.put_back(batch)
            self.kill()
            return
        if not settled:
            self._bus.put_back(batch)
            self._is_connected = False
            self._connect()

    def _connect(self) -> bool:
        """Consuming; says hello after each new connection."""
        assert self.worker is not None
        if self.queue in self._bus.cut:
            self._bus.cut.discard(self.queue)
            self._is_connected = False
        if not self._is_connected and self.queue in self._bus.queues:
            self._is_connected = True
            self.worker.sync.say_hello()
        return self._is_connected

    def round(self) -> None:
        """The executor goes on until nothing is due."""
        if self.worker is None:
            return
        try:
            self.worker.executor.run(Turns())  # type: ignore[arg-type]
        except Asleep:
            return
        except Crash:
            self.kill()

    def report(self, fault: Fault | None = None) -> None:
        """One turn of the reporter."""
        if self.worker is None:
            return
        self._bus.fail(routing.node_user(self.name), fault)
        self._connect()
        self.worker.reporter._news = Turns(1)  # type: ignore[assignment]
        try:
            self.worker.reporter.run(self.worker.sync, Turns())  # type: ignore[arg-type]
        except Asleep:
            return
        except Crash:
            self.kill()

    def work(self) -> None:
        """Takes in what has arrived, applies it, reports."""
        self.deliver(1000)
        self.round()
        self.report()

    def _older_open(self, entry: Any) -> list[int]:
        assert self.worker is not None
        query = "SELECT id FROM entry WHERE noun = ? AND name = ? AND id < ? AND done < wanted"
        return [row[0] for row in self.worker.ledger._file.read(query, (entry.noun, entry.name, entry.id))]


class World:
    """Manager, bus and nodes at the start of a history."""

    def __init__(self, template: Template) -> None:
        CLOCK.reset()
        POINTS.reset()
        self.template = template
        template.store.restore(template.saved)
        self.raw = template.store.raw
        self.onehost = Onehost(
            settings.Manager(store="sqlite://", grace_seconds=0, held_beyond_per_hour=0), actor="simulation"
        )
        self.onehost.engine.dispose()
        self.engine = self.onehost.engine = template.store.engine
        self.bus = Bus(past={queue: [*its] for queue, its in template.past.items()})
        self.nodes = {
            name: Node(name, template.folder, self.bus, template.ledgers.get(name, template.empty_ledger),
                       template.machines.get(name, Machine()).copy())
            for name in ROLES
        }  # fmt: skip
        self.addresses = 0
        #: Nodes that came back on their old disk.
        self.rejoined: set[str] = set()
        self.start_manager()
        self.bus.synchronise(self.living())
        for node in self.nodes.values():
            node.start()

    def close(self) -> None:
        for node in self.nodes.values():
            node.kill()

    # ---- the manager

    def start_manager(self) -> None:
        """Relay and audit processes, with nothing in memory."""
        self.relay = Relay(self.engine, Publisher(self.bus, routing.JOBS, "relay"), self.apply)  # type: ignore[arg-type]
        self.start_audit()

    def start_audit(self) -> None:
        presence = Presence(OFFLINE_SECONDS, looked_at=CLOCK.monotonic())
        self.audit_process, self.duties_process = Audit(self.engine, presence), Duties(self.engine, presence)

    def living(self) -> set[str]:
        with reading(self.engine) as connection:
            return {node.name for node in nodes(connection).values()}

    def apply(self) -> Sequence[str]:
        """`broker apply`."""
        return self.bus.synchronise(self.living())

    def add_node(self, name: str) -> None:
        self.addresses += 1
        self.onehost.node_add(name, f"10.0.0.{self.addresses}", ROLES[name])
        if self.nodes[name].machine.state:
            self.rejoined.add(name)

    def publish(self, fault: Fault | None = None) -> int:
        """One turn of the relay; it may die in it. Gives how many letters it took."""
        self.bus.fail("relay", fault)
        try:
            taken, _ = self.relay.once()
            return taken
        except Crash:
            self.relay = Relay(self.engine, Publisher(self.bus, routing.JOBS, "relay"), self.apply)  # type: ignore[arg-type]
            return 0

    def audit(self, limit: int, *, settled: bool = True) -> int:
        """One batch of the audit process; it may die in it. Gives how many it took."""
        batch = [each for queue in MANAGER_QUEUES for each in self.bus.take(queue, limit)]
        self.bus.cut -= set(MANAGER_QUEUES)
        if not batch:
            return 0
        try:
            self.audit_process.store(batch)
        except Crash:
            self.start_audit()
            settled = False
        if not settled:
            self.bus.put_back(batch)
        return len(batch)

    def duties(self) -> None:
        """What the audit process does by the clock."""
        with suppress(Crash):
            self.duties_process.once()
            return
        self.start_audit()

    # ---- all together

    def turn(self, names: Sequence[str] = tuple(ROLES)) -> None:
        """Everything goes on a little, undisturbed."""
        while self.publish():
            pass
        for name in names:
            self.nodes[name].work()
        while self.audit(1000):
            pass
        self.duties()

    def is_busy(self) -> bool:
        """Whether anything is on its way."""
        held = any(queue != routing.BEAT_QUEUE and its for queue, its in self.bus.queues.items())
        waiting = (
            "SELECT 1 FROM action UNION ALL SELECT 1 FROM hello UNION ALL SELECT 1 FROM placement WHERE sent < wanted"
        )
        return (
            held
            or self.raw.execute(waiting).fetchone() is not None
            or any(
                node.worker and (node.worker.ledger.outgoing.unpublished(1) or node.worker.sync._waiting)
                for node in self.nodes.values()
            )
        )

    def heal(self) -> None:
        """All faults end and everybody is there."""
        POINTS.reset()
        CLOCK.come_right()
        self.bus.faults.clear()
        for node in self.nodes.values():
            node.machine.broken.clear()
        for name in ROLES.keys() - self.living():
            self.add_node(name)
        self.apply()
        for node in self.nodes.values():
            node.start()


def chance(number: int) -> random.Random:
    """Chance that a history can repeat."""
    return random.Random(number)
