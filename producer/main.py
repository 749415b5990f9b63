"""The manager's processes, built from its settings: the relay, and the audit process with sealer and clocks."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy import Engine

from ..broker_config import apply, routing
from ..broker_config.consumer import Consumer
from ..broker_config.publisher import Publisher
from ..models import logs
from ..models.moment import now as time_now
from ..models.settings import Manager
from ..models.store import connect, writing
from ..models.store.sole import sole
from . import deadlines, nodes, seal
from .audit import Audit
from .presence import Presence
from .relay import Relay

log = logging.getLogger(__name__)

#: A loop that has not gone round for this long, in seconds, is hung: supervisor starts a new process.
HUNG_SECONDS = 60.0
#: Acknowledgements taken in one transaction.
PREFETCH = 1000


def run_relay(settings: Manager) -> None:
    """Publishes what waits, until SIGTERM."""
    stop = _prepare("relay")
    engine = connect(settings.store)

    def repair() -> Sequence[str]:
        return [str(step) for step in apply.synchronise(settings, nodes.hashes(engine))]

    with sole(engine, "relay", stop) as held:
        if held:
            publisher = Publisher(settings.as_user("relay"), routing.JOBS, purpose="relay", stop=stop)
            Relay(engine, publisher, repair, _Said("relay")).run(stop)


def run_audit(settings: Manager) -> None:
    """Stores what nodes say, seals it, watches clocks and silence, until SIGTERM."""
    stop = _prepare("audit")
    engine = connect(settings.store)
    with sole(engine, "audit", stop) as held:
        if held:
            presence = Presence(settings.offline_after_seconds)
            duties = Duties(engine, presence)
            queues = [routing.AUDIT_QUEUE, routing.BEAT_QUEUE]
            consumer = Consumer(settings.as_user("audit"), queues, Audit(engine, presence).store, prefetch=PREFETCH,
                                on_state=_Said("audit"), idle_seconds=0.5)  # fmt: skip
            keeper = threading.Thread(target=duties.run, args=(stop,), name="duties", daemon=True)
            keeper.start()
            threading.Thread(target=watch, args=(lambda: consumer.turned_at, stop), daemon=True).start()
            consumer.run(stop)
            keeper.join(3)


class Duties:
    """What the audit process does by the clock: seal, judge silence, end what is overdue."""

    def __init__(self, engine: Engine, presence: Presence) -> None:
        self._engine = engine
        self._presence = presence
        self._expired_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Each second, until `stop`."""
        while not stop.wait(1.0):
            try:
                self.once()
            except Exception as error:  # the store is away: everything is done at the next turn
                log.warning("duties wait", extra={"action": "duties", "why": f"{type(error).__name__}: {error}"})

    def once(self) -> None:
        """One turn. Nothing is written where nothing is due."""
        with writing(self._engine) as connection:
            while seal.seal(connection) == seal.AT_ONCE:
                continue
        if self._presence.is_due():
            with writing(self._engine) as connection:
                self._presence.look(connection, time_now())
        if time.monotonic() - self._expired_at > deadlines.LOOK_SECONDS:
            self._expired_at = time.monotonic()
            with writing(self._engine) as connection:
                deadlines.expire(connection, time_now())


class _Said:
    """The status line of a process: what it does or waits for, said when it changes."""

    def __init__(self, process: str) -> None:
        self._process = process
        self._last = ""

    def __call__(self, text: str) -> None:
        if text != self._last:
            self._last = text
            log.info(text, extra={"action": "state", "duty": self._process})


def _prepare(process: str) -> threading.Event:
    logs.set_up()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("starting", extra={"action": "start", "duty": process, "pid": os.getpid()})
    return stop


def watch(turned_at: Callable[[], float], stop: threading.Event) -> None:
    """Ends the process if a loop hangs: a process that no longer goes round is useless, and supervisor starts anew."""
    while not stop.wait(1.0):
        if time.monotonic() - turned_at() > HUNG_SECONDS:
            log.error("hung", extra={"action": "hung", "seconds": HUNG_SECONDS})
            os._exit(70)
