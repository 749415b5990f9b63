"""The whole system in one thread: real duties of manager and nodes around one store, driven step by step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress

from onehost.broker_config import routing
from onehost.models import settings
from onehost.models.errors import Refused
from onehost.models.store import reading
from onehost.producer import Onehost
from onehost.producer.audit import Audit
from onehost.producer.main import Duties
from onehost.producer.membership import nodes
from onehost.producer.presence import Presence
from onehost.producer.relay import Relay

from .bus import MANAGER_QUEUES, Bus, Fault, Publisher
from .machine import Machine
from .node import Node
from .seams import CLOCK, POINTS, Crash
from .template import ROLES, Template

OFFLINE_SECONDS = 15.0
#: A removal may be taken back so long.
GRACE_SECONDS = 15.0
#: Removals and suspensions of one actor that are begun; the next ones are held.
HELD_BEYOND = 3


class World:
    """Manager, bus and nodes at the start of a history."""

    def __init__(self, template: Template) -> None:
        CLOCK.reset()
        POINTS.reset()
        self.template = template
        template.store.restore(template.saved)
        self.raw = template.store.raw
        self.onehost = Onehost(
            settings.Manager(store="sqlite://", grace_seconds=GRACE_SECONDS, held_beyond_per_hour=HELD_BEYOND),
            actor="simulation",
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
        with suppress(Refused):
            self.onehost.resume()
        self._end_held()
        for name in ROLES.keys() - self.living():
            self.add_node(name)
        self.apply()
        for node in self.nodes.values():
            node.start()

    def remove_orphan(self, orphan: int) -> None:
        """A person has looked at what a node holds beyond a restored store, and does not want it."""
        self.onehost.remove_orphan(orphan)
        for node in self.nodes.values():
            node.machine.orphans.add(orphan)

    def _end_held(self) -> None:
        """A person releases what is held, or cancels it where a rule says no by now."""
        for (job,) in self.raw.execute("SELECT id FROM job WHERE state = 'held' AND ended_at IS NULL").fetchall():
            try:
                self.onehost.release(job)
            except Refused:
                self.onehost.cancel(job)


def chance(number: int) -> random.Random:
    """Chance that a history can repeat."""
    return random.Random(number)
