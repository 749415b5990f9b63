"""The manager's processes, built from its settings: the relay, and the audit process with sealer and clocks."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from sqlalchemy import Engine

from ..broker_config import apply, routing
from ..broker_config.consumer import Consumer
from ..broker_config.publisher import Publisher
from ..models import logs, metrics
from ..models.moment import now as time_now
from ..models.settings import Manager
from ..models.store import connect, reading, writing
from ..models.store.sole import sole
from . import dead, deadlines, grace, nodes, seal, stages
from .audit import QUEUES, Audit
from .metrics import AUDIT, RELAY, audit_look, relay_look
from .presence import Presence
from .relay import Relay
from .repair import Look, Repair

log = logging.getLogger(__name__)

#: A loop that has not gone round for this long, in seconds, is hung: supervisor starts a new process.
HUNG_SECONDS = 60.0
#: How often somebody looks whether it is, in seconds.
WATCH_SECONDS = 5.0
#: Acknowledgements taken in one transaction.
PREFETCH = 1000
#: A dead letter can be as large as the broker takes anything in.
SPARING = {routing.DEAD_QUEUE: 16}
#: How often events are looked for that were committed late, in seconds: that reads as many ids as may be late.
LOOK_BACK_SECONDS = 60.0
#: And this long after events were sealed, in seconds: of two written at once, the first may be committed last.
LATE_SECONDS = 5.0
#: How often dead letters are looked at that somebody retries, in seconds.
AGAIN_SECONDS = 2.0
#: How often dead letters are looked at that are to be forgotten, in seconds; at once again while there are more.
FORGET_SECONDS = 3600.0
#: How often it is looked whether somebody has begun a grace time, in seconds: one look into a small index.
GRACE_LOOK_SECONDS = 5.0


def run_relay(settings: Manager) -> None:
    """Publishes what waits, until SIGTERM."""
    stop = _prepare("relay")
    engine = connect(settings.store)

    repair = partial(_make_fit, settings, engine)
    with sole(engine, "relay", stop) as held:
        if held:
            publisher = Publisher(settings.as_user("relay"), routing.JOBS, purpose="relay", stop=stop)
            relay = Relay(engine, publisher, repair, _Said("relay"))
            metrics.serve(settings.relay_metrics_port, RELAY, [relay.tally], partial(relay_look, engine))
            relay.run(stop)


def run_audit(settings: Manager) -> None:
    """Stores what nodes say, seals it, watches clocks and silence, until SIGTERM."""
    stop = _prepare("audit")
    engine = connect(settings.store)
    with sole(engine, "audit", stop) as held:
        if held:
            presence = Presence(settings.offline_after_seconds)
            duties = Duties(engine, presence, dead_kept_days=settings.dead_kept_days)
            audit = Audit(engine, presence)
            missing = Repair(engine, "audit", partial(_make_fit, settings, engine))
            look = Look(missing)
            consumer = Consumer(settings.as_user("audit"), QUEUES, audit.store, prefetch=PREFETCH, sparing=SPARING,
                                ready=partial(_connecting, engine, look), on_state=_Said("audit"), missing=missing,
                                idle_seconds=2.0)  # fmt: skip
            metrics.serve(settings.audit_metrics_port, AUDIT, [audit.tally], partial(audit_look, engine, consumer))
            keeper = threading.Thread(target=duties.run, args=(stop,), name="duties", daemon=True)
            keeper.start()
            threading.Thread(target=look.run, args=(stop,), name="look", daemon=True).start()
            threading.Thread(target=watch, args=(consumer, stop), daemon=True).start()
            consumer.run(stop)
            keeper.join(3)


def _make_fit(settings: Manager, engine: Engine) -> Sequence[str]:
    return [str(step) for step in apply.synchronise(settings, nodes.hashes(engine))]


def _connecting(engine: Engine, look: Look) -> None:
    """Whoever has to connect has lost the broker: it is looked over."""
    look.ask()
    _reach(engine)


def _reach(engine: Engine) -> None:
    """Raises if the store cannot be written to: a delivery then stays unread, instead of being returned again and again
    until the broker counts it as dead."""
    with writing(engine):
        return


class Duties:
    """What the audit process does by the clock: seal, judge silence, end what is overdue, forget what is over."""

    def __init__(self, engine: Engine, presence: Presence, *, dead_kept_days: int = 0) -> None:
        self._engine = engine
        self._presence = presence
        self._dead_kept_days = dead_kept_days
        self._audit = Audit(engine, presence)
        self._looked_back_at = -LOOK_BACK_SECONDS
        self._has_sealed = False
        self._expired_at = 0.0
        self._grace_at = 0.0
        self._again_at = 0.0
        self._forgot_at = -FORGET_SECONDS

    def run(self, stop: threading.Event) -> None:
        """Each second, until `stop`."""
        while not stop.wait(1.0):
            try:
                self.once()
            except Exception as error:  # the store is away: everything is done at the next turn
                log.warning("duties wait", extra={"action": "duties", "why": f"{type(error).__name__}: {error}"})

    def once(self) -> None:
        """One turn. Nothing is written where nothing is due."""
        self._seal()
        if self._presence.is_due():
            with writing(self._engine) as connection:
                self._presence.look(connection, time_now())
        if time.monotonic() - self._expired_at > deadlines.LOOK_SECONDS:
            self._expired_at = time.monotonic()
            with writing(self._engine) as connection:
                deadlines.expire(connection, time_now())
        if time.monotonic() >= self._grace_at:
            self._end_grace()
        if time.monotonic() - self._again_at > AGAIN_SECONDS:
            self._again_at = time.monotonic()
            self._take_in_again()
        if self._dead_kept_days and time.monotonic() - self._forgot_at > FORGET_SECONDS:
            self._forget()

    def _seal(self) -> None:
        """Seals what is new; now and then what has come late."""
        since = time.monotonic() - self._looked_back_at
        looks_back = since > (LATE_SECONDS if self._has_sealed else LOOK_BACK_SECONDS)
        if looks_back:
            self._looked_back_at, self._has_sealed = time.monotonic(), False
        count = seal.AT_ONCE
        while count == seal.AT_ONCE:
            with writing(self._engine) as connection:
                count = seal.seal(connection, look_back=looks_back)
            self._has_sealed = self._has_sealed or count > 0

    def _end_grace(self) -> None:
        """Opens the last stages of removals whose grace time is over, and keeps in mind when the next one is."""
        with reading(self._engine) as connection:
            due = grace.next_due(connection)
        now = time_now()
        if due is not None and due <= now:
            with writing(self._engine) as connection:
                stages.advance(connection, grace.end_due(connection, now), now)
            return
        left_seconds = GRACE_LOOK_SECONDS if due is None else (due - now).total_seconds()
        self._grace_at = time.monotonic() + min(left_seconds, GRACE_LOOK_SECONDS)

    def _take_in_again(self) -> None:
        """Dead letters from nodes that somebody retries: taken in as if they had just arrived."""
        with reading(self._engine) as connection:
            waiting = dead.again(connection)
        for dead_id, delivery in waiting:
            refused = bool(self._audit.store([delivery]))
            with writing(self._engine) as connection:
                dead.taken_in(connection, dead_id, refused=refused, now=time_now())

    def _forget(self) -> None:
        """Old dead letters that somebody has decided on; one batch a turn."""
        with writing(self._engine) as connection:
            count = dead.forget(connection, time_now() - timedelta(days=self._dead_kept_days))
        if count < dead.FORGOTTEN_AT_ONCE:
            self._forgot_at = time.monotonic()


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


def watch(consumer: Consumer, stop: threading.Event) -> None:
    """Ends the process if its loop hangs: one that no longer goes round is useless, and supervisor starts anew.

    Wakes the loop when it is to stop.
    """
    while not stop.wait(WATCH_SECONDS):
        consumer.unstick()
        if consumer.is_hung(HUNG_SECONDS):
            log.error("hung", extra={"action": "hung", "seconds": HUNG_SECONDS})
            os._exit(70)
    consumer.wake()
