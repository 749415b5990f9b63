"""A broker in memory, with the faults of a real one: lost confirmations, wiped queues, duplicates, disorder."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from onehost.broker_config import routing
from onehost.broker_config.consumer import Delivery
from onehost.broker_config.letters import Letter, Report

from .seams import CLOCK

MANAGER_QUEUES = (routing.AUDIT_QUEUE, routing.BEAT_QUEUE)
#: The beat queue drops its head above this length.
LONGEST_BEAT_QUEUE = 20


@dataclass(frozen=True)
class Fault:
    """How the next sending of one user goes wrong.

    refused: nothing arrives. nacked: a full queue. lost: the first `arrived` letters arrive, the first `confirmed` of
    them are confirmed, then the connection is gone.
    """

    kind: str
    arrived: int = 0
    confirmed: int = 0


@dataclass
class Bus:
    """Queues by name, users, and what was ever confirmed."""

    queues: dict[str, list[Delivery]] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)
    faults: dict[str, Fault] = field(default_factory=dict)
    #: Ids of the jobs' letters that were routed and confirmed.
    confirmed: set[str] = field(default_factory=set)
    #: Everything a node's queue has ever held.
    past: dict[str, list[Delivery]] = field(default_factory=dict)
    #: Queues whose consumers have lost their connection since they were looked at.
    cut: set[str] = field(default_factory=set)
    #: When letters of actions are too old to be delivered, by message id.
    _too_late_at: dict[str, float] = field(default_factory=dict)

    def synchronise(self, nodes: Iterable[str]) -> list[str]:
        """What `broker apply` does: queues and users of the manager and of these nodes, and no others."""
        wanted = {routing.node_queue(node): routing.node_user(node) for node in nodes}
        for queue in [queue for queue in self.queues if queue not in wanted and queue not in MANAGER_QUEUES]:
            self.delete(queue)
        for queue in (*MANAGER_QUEUES, *wanted):
            self.queues.setdefault(queue, [])
        self.users = {"relay", *wanted.values()}
        return ["synchronised"]

    def fail(self, user: str, fault: Fault | None) -> None:
        """How the next sending of a user goes wrong."""
        self.faults.pop(user, None)
        if fault:
            self.faults[user] = fault

    def delete(self, queue: str) -> None:
        """The queue is gone with what it holds, and its consumer is cancelled."""
        self.queues.pop(queue, None)
        self.cut.add(queue)

    def purge(self, queue: str) -> None:
        """Emptied. Its consumer hears nothing of it."""
        if queue in self.queues:
            self.queues[queue] = []

    def wipe(self) -> None:
        """The data directory is gone. It boots with users and queues of the definitions file."""
        for queue in self.queues:
            self.queues[queue] = []
        self.cut |= self.queues.keys()

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """Not settled: they come again, first."""
        for delivery in reversed(deliveries):
            if delivery.queue in self.queues:
                self.queues[delivery.queue].insert(0, replace(delivery, redelivered=True))

    def take(self, queue: str, limit: int) -> list[Delivery]:
        held = self.queues.get(queue, [])
        held[:] = [each for each in held if not self._is_too_late(each)]
        taken, held[:] = held[:limit], held[limit:]
        return taken

    def _is_too_late(self, delivery: Delivery) -> bool:
        return CLOCK.monotonic() > self._too_late_at.get(delivery.message_id, CLOCK.monotonic())

    def duplicate(self, queue: str, chance: random.Random) -> None:
        if held := self.queues.get(queue):
            held.insert(chance.randrange(len(held) + 1), chance.choice(held))

    def shuffle(self, queue: str, chance: random.Random) -> None:
        chance.shuffle(self.queues.get(queue, []))

    def replay(self, queue: str, chance: random.Random) -> None:
        """Some letters of the past arrive again, in any order: a slow relay had kept them."""
        if queue in self.queues and (past := self.past.get(queue)):
            self.queues[queue] += chance.sample(past, min(len(past), chance.randint(1, 4)))

    def route(self, exchange: str, key: str) -> str | None:
        """The queue that takes this key."""
        first, node, _ = key.split(".")
        if exchange == routing.JOBS:
            queue = routing.node_queue(node)
        else:
            queue = routing.BEAT_QUEUE if first == "beat" else routing.AUDIT_QUEUE
        return queue if queue in self.queues else None

    def arrive(self, queue: str, user: str, letter: Letter) -> None:
        delivery = Delivery(queue, letter.routing_key, user, letter.message_id, letter.body, False)
        self.queues[queue].append(delivery)
        if letter.expiration_ms is not None:
            self._too_late_at[letter.message_id] = CLOCK.monotonic() + letter.expiration_ms / 1000
        if queue == routing.BEAT_QUEUE:
            del self.queues[queue][:-LONGEST_BEAT_QUEUE]
        elif queue != routing.AUDIT_QUEUE:
            self.past.setdefault(queue, []).append(delivery)


class Publisher:
    """Of the shape of broker_config.publisher.Publisher."""

    def __init__(self, bus: Bus, exchange: str, user: str) -> None:
        self._bus = bus
        self._exchange = exchange
        self._user = user

    def send(self, letters: Sequence[Letter]) -> Report:
        fault = self._bus.faults.pop(self._user, None)
        if self._user not in self._bus.users:
            return Report(why="403 ACCESS_REFUSED", code=403)
        if fault and fault.kind == "refused":
            return Report(why="ConnectionRefusedError")
        if fault and fault.kind == "nacked":
            return Report(nacked=[letter.message_id for letter in letters])
        arriving = letters[: fault.arrived] if fault else letters
        report = Report(why="ConnectionResetError" if fault else "")
        for number, letter in enumerate(arriving):
            queue = self._bus.route(self._exchange, letter.routing_key)
            if queue:
                self._bus.arrive(queue, self._user, letter)
            if fault and number >= fault.confirmed:
                continue
            if queue:
                report.sent.append(letter.message_id)
                self._bus.confirmed.add(letter.message_id)
            else:
                report.unroutable[letter.message_id] = "312 NO_ROUTE"
        return report

    def tick(self) -> str:
        return ""

    def close(self) -> None: ...
