"""The worker process of a node, built from its settings: receiver, executor and reporter around one ledger."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..broker_config import routing
from ..broker_config.publisher import Publisher
from ..models import logs, metrics
from ..models.errors import Unreachable
from ..models.settings import Worker as Settings
from .actions import Did, Performer
from .caretaker import Caretaker
from .drift import Drift, told
from .executor import Executor
from .host import Host
from .ledger import Ledger
from .ledger_file import is_current
from .log_splitting import LogSplitting
from .metrics import WORKER, look
from .receiver import Receiver
from .reconcilers import Reconciler, reconcilers
from .reporter import Reporter
from .respondent import Answers, Respondent
from .sync import Sync
from .usage import Usage
from .watch import Watch

log = logging.getLogger(__name__)

#: A receiver that has not gone round for this long, in seconds, is hung: supervisor starts a new process.
HUNG_SECONDS = 60.0
#: How often somebody looks whether it is, in seconds.
WATCH_SECONDS = 5.0
#: After a stop: what a round under way and a last report may take, and when a silent broker is given up, in seconds.
STOP_SECONDS, GIVE_UP_SECONDS = 4.5, 2.0
#: Differences in one answer.
MOST_FOUND = 200
#: How often the trash of removed homes is looked through, in seconds.
SWEEP_SECONDS = 3600.0


class Worker:
    """One worker. `run` returns after `stop` is set, within a few seconds."""

    def __init__(self, settings: Settings, host: Host, stop: threading.Event | None = None,
                 known: Mapping[str, Reconciler] | None = None) -> None:  # fmt: skip
        self.stop = stop or threading.Event()
        self._give_up = threading.Event()
        self._ended = threading.Event()
        self._host = host
        self.ledger = Ledger(settings.ledger, self.stop)
        publisher = Publisher(settings.broker, routing.EVENTS, purpose=f"report {settings.node}", stop=self._give_up)
        self.reporter = Reporter(publisher, settings.node, self.ledger, settings.beat_seconds, self._status)
        self.sync = Sync(self.ledger, settings.hello_seconds, self._wake)
        known = known or reconcilers()
        self.executor = Executor(
            self.ledger, host, known, self.sync.synced, reported=self.reporter.wake,
            ready=lambda: host.recover(self._roles()), serve=lambda: host.start(self._roles()),
            on_pause=self.reporter.beat, act=self._act,
        )  # fmt: skip
        self._drift = Drift(self.ledger, host, known, self.executor.round, self._roles)
        self._watch_over = Watch(self.ledger, host, self._drift, self.executor, settings.check_seconds, self._roles,
                                 self.reporter.beat)  # fmt: skip
        self._caretaker = Caretaker(self.ledger, host, self._roles, self.executor.blocked, self._watch_over.soon)
        self._performer = Performer(self.ledger, host, known, self._own_actions(), self.reporter.wake)
        respondent = Respondent(self.ledger, host, known, self.executor, self.reporter, self._answers())
        self.receiver = Receiver(settings.broker, settings.node, self.ledger, self.sync, self.executor.wake,
                                 respondent.ask, self._say)  # fmt: skip
        self._usage = Usage(self.ledger, host, settings.usage_seconds, partial(self.reporter.usage, "stored"))
        self._logs = LogSplitting(self.ledger, host, settings.node, settings.log_seconds, self.executor.between_rounds,
                                  partial(self.reporter.usage, "sent"))  # fmt: skip
        self._state = "starting"
        self._swept_at = -SWEEP_SECONDS

    def _own_actions(self) -> dict[tuple[str, str], Callable[[Mapping[str, Any]], Did]]:
        """What is done on this node for the node itself, by (noun, verb)."""
        verbs = ("start", "stop", "restart", "reload", "enable")
        daemons = {("node", f"daemon-{verb}"): partial(self._caretaker.do, verb) for verb in verbs}
        return {("node", "sync"): self._sync, ("node", "repair"): self._repair, **daemons}

    def _answers(self) -> Answers:
        """What this node tells when it is asked."""

        def check(payload: Mapping[str, Any]) -> dict[str, Any]:
            if payload.get("adopt"):
                return {"adoptable": self._drift.adoptable()}
            began = time.monotonic()
            found = self._drift.find()
            seconds = round(time.monotonic() - began, 3)
            return {"findings": [told(each) for each in found[:MOST_FOUND]], "count": len(found), "seconds": seconds}

        return {"check": check, "daemon": self._caretaker.asked}

    def _sync(self, _fields: Mapping[str, Any]) -> str:
        self.sync.say_hello()
        return "done"

    def _repair(self, _fields: Mapping[str, Any]) -> Did:
        try:
            return self._drift.repair()
        finally:
            self._watch_over.soon()

    def run(self) -> None:
        """Sets up the machine, then runs until stopped. The receiver runs on the calling thread."""
        self._caretaker.remember()
        self._host.recover(self._roles())
        self._performer.recover()
        threads = [
            threading.Thread(target=self._guard, args=(self.executor.run, self.stop), name="executor", daemon=True),
            threading.Thread(
                target=self._guard, args=(self.reporter.run, self.sync, self.stop), name="reporter", daemon=True
            ),
            threading.Thread(target=self._guard, args=(self._usage.run, self.stop), name="usage", daemon=True),
            threading.Thread(target=self._guard, args=(self._logs.run, self.stop), name="logs", daemon=True),
        ]
        for thread in threads:
            thread.start()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        self.receiver.consumer.run(self.stop)
        until = time.monotonic() + STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._ended.set()
        # A thread that is still at work ends with the process; the ledger is as after a kill, which it survives.
        if not any(thread.is_alive() for thread in threads):
            self.ledger.close()

    def _guard(self, act: Any, *given: Any) -> None:
        """A thread that ends takes the process with it: supervisor starts a whole one."""
        try:
            act(*given)
        except BaseException:
            log.exception("a thread ended", extra={"action": "die"})
            os._exit(70)

    def _watch(self) -> None:
        while not self.stop.wait(WATCH_SECONDS):
            self.receiver.consumer.unstick()
            if self.receiver.consumer.is_hung(HUNG_SECONDS):
                log.error("hung", extra={"action": "hung", "seconds": HUNG_SECONDS})
                os._exit(70)
            if time.monotonic() - self._swept_at > SWEEP_SECONDS:
                self._swept_at = time.monotonic()
                self._sweep()
        self.receiver.consumer.wake()
        self._wake()
        if not self._ended.wait(GIVE_UP_SECONDS):
            self._give_up.set()

    def _sweep(self) -> None:
        try:
            self._host.sweep(self._roles())
        except OSError as error:
            log.warning("cannot empty the trash", extra={"action": "sweep", "why": str(error)})

    def _roles(self) -> frozenset[str]:
        """What this node did when it was here last, by its own ledger."""
        return frozenset().union(*(entry.roles for entry in self.ledger.entries("node") if entry.roles))

    def _act(self) -> None:
        self._performer.run()
        self._watch_over.look()

    def _wake(self) -> None:
        self.reporter.wake()
        self.executor.wake()
        self._logs.wake()

    def _say(self, text: str) -> None:
        if text != self._state:
            self._state = text
            log.info(text, extra={"action": "state", "duty": "worker"})

    def _status(self) -> dict[str, Any]:
        return {
            "synced": self.sync.synced.is_set(), "paused": self.executor.is_paused,
            "state": self.executor.running or self._state,
            "rounds": self.executor.rounds, "signals": dict(self.executor.signals),
            **self._watch_over.said(),
        }  # fmt: skip


def run(settings: Settings) -> None:
    """The process under supervisor: runs until SIGTERM."""
    logs.set_up()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("starting", extra={"action": "start", "duty": "worker", "node": settings.node, "pid": os.getpid()})
    host = Host.rehearsal(settings.rehearse) if settings.rehearse else Host.real()
    was_current = is_current(settings.ledger)
    try:
        worker = Worker(settings, host, stop)
    except Unreachable:
        if stop.is_set():
            return  # another worker held the ledger to the end
        raise
    if not was_current and not stop.is_set():
        # Making the tables took Alembic and SQLAlchemy: 20 MiB that this process would never need again.
        worker.ledger.close()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    tallies = [worker.ledger.tally, worker.executor.tally]
    consumer = worker.receiver.consumer
    metrics.serve(settings.metrics_port, WORKER, tallies, partial(look, worker.ledger, worker.sync.synced, consumer))
    worker.run()
