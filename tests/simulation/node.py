"""One node of the simulation: its disk, its machine, and a worker process that may be gone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from onehost.broker_config import routing
from onehost.models import settings
from onehost.workers.main import Worker

from .bus import Bus, Fault, Publisher
from .machine import Machine
from .seams import Asleep, Crash, Turns

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
        #: Acknowledgements that were held in a ledger when it was lost: (epoch, number).
        self.lost: set[tuple[int, int]] = set()
        #: Actions done, each with the life of the ledger that was to remember it: another ledger cannot.
        self._acted: set[tuple[int, int, int]] = set()
        self.replace_ledger(ledger)

    def start(self) -> None:
        """A new process of the worker: a new epoch, nothing in memory."""
        if self.worker is not None:
            return
        user = routing.node_user(self.name)
        config = settings.Worker(
            self.name, settings.Broker(user=user), self._path, beat_seconds=BEAT_SECONDS, check_seconds=0
        )
        worker = Worker(config, IdleHost(), known=self.machine.reconcilers())  # type: ignore[arg-type]
        worker.reporter._publisher = Publisher(self._bus, routing.EVENTS, user)  # type: ignore[assignment]
        worker.executor._news = Turns()  # type: ignore[assignment]
        worker.executor.round = self._unless_paused(worker, worker.executor.round)  # type: ignore[method-assign]
        worker._performer._perform = self._at_most_once(worker, worker._performer._perform)  # type: ignore[method-assign]
        worker._performer.recover()
        self.worker, self._is_connected = worker, False
        self.machine.older_open = self._older_open

    def _unless_paused(self, worker: Worker, begin: Callable[[Sequence[Any]], Any]) -> Callable[[Sequence[Any]], Any]:
        def look_and_begin(entries: Sequence[Any]) -> Any:
            if entries and worker.ledger.brake.is_pulled:
                self.machine.violations.append("a round has begun while the brake was pulled")
            return begin(entries)

        return look_and_begin

    def _at_most_once(self, worker: Worker, perform: Callable[[Any], str]) -> Callable[[Any], str]:
        def look_and_perform(row: Any) -> str:
            it = (self.life, row["incarnation"], row["job"])
            if it in self._acted:
                self.machine.violations.append(f"action {it} was done again")
            if worker.ledger.brake.is_pulled:
                self.machine.violations.append(f"action {it} was done while the brake was pulled")
            self._acted.add(it)
            return perform(row)

        return look_and_perform

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
        if self.life:
            with closing(sqlite3.connect(self._path)) as ledger:
                self.lost |= set(ledger.execute("SELECT epoch, number FROM ack"))
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
