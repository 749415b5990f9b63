"""The consumer of the receiver and of the audit process: one that never goes deaf and never gives up.

It consumes on a connection of its own, hands over whatever has arrived as one batch, and settles the batch only after
`store` has returned. A broker that closes the channel, cancels the consumer, freezes or vanishes is noticed within
seconds; it then connects again, to the next of several brokers, with jittered backoff, until it is stopped.
"""

from __future__ import annotations

import math
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..models.crash import crash_point
from .connections import pika_parameters

if TYPE_CHECKING:
    from ..models.settings import Broker

#: Messages in flight; a batch forms from what has been read by then.
PREFETCH = 256
#: Seconds between two round trips that prove that the broker still knows us as a consumer.
PROBE_SECONDS = 10.0
#: A probe that is not answered for this long, in seconds, never will be: the broker has lost the channel and not the
#: connection, whose heartbeats go on.
PROBE_ANSWER_SECONDS = 5.0
#: The wait after the first try to connect, in seconds; each one is twice as long.
FIRST_BACKOFF_SECONDS = 0.5
#: Longest wait between two tries to connect, in seconds.
LONGEST_BACKOFF_SECONDS = 5.0
#: A connection that stood for this long, in seconds, is no sign of haste: the next one is tried at once.
STOOD_SECONDS = 4.0
#: Access refused: wrong rights do not heal by haste.
REFUSED_BACKOFF_SECONDS = 10.0


@dataclass(frozen=True)
class Delivery:
    """One arrived message. `user` is who the broker proved it to be; empty if the sender named nobody."""

    queue: str
    routing_key: str
    user: str
    message_id: str
    body: bytes
    redelivered: bool
    #: As the sender and the broker wrote them; a dead letter says in `x-death` where it died.
    headers: Mapping[str, Any] = field(default_factory=dict)


class Deaf(Exception):
    """The consumer is not consuming, whatever the library believes."""


class Consumer:
    """Consumes `queues`. `store(batch)` must be durable when it returns; what it raises settles nothing.

    `ready()` is called before each consumer is started and may raise: a store that cannot be written costs no
    delivery. `on_state(text)` hears what it is doing or waiting for. `on_start()` is called after each (re)connection.
    `store` gives the deliveries it wants in the dead-letter queue. `missing(why)` is called when the broker has no such
    queue, and may raise. `sparing` names queues of which fewer messages than
    `prefetch` are taken at once: theirs may be large.
    """

    def __init__(self, broker: Broker, queues: Sequence[str], store: Callable[[list[Delivery]], Sequence[Delivery]], *,
                 ready: Callable[[], None] = lambda: None, on_state: Callable[[str], None] = lambda text: None,
                 on_start: Callable[[], None] = lambda: None, idle: Callable[[], None] = lambda: None,
                 missing: Callable[[str], None] = lambda why: None, idle_seconds: float = 1.0, prefetch: int = PREFETCH,
                 sparing: Mapping[str, int] = MappingProxyType({})) -> None:  # fmt: skip
        self._broker = broker
        self._queues = queues
        self._store = store
        self._ready = ready
        self._on_state = on_state
        self._on_start = on_start
        self._idle = idle
        self._missing = missing
        self._idle_seconds = idle_seconds
        self._prefetch = prefetch
        self._sparing = sparing
        self._backoff = FIRST_BACKOFF_SECONDS
        self._connection: Any = None
        self._connected_at = math.inf
        self._box: list[tuple[int, Delivery]] = []
        self._lost: list[Any] = []
        #: When the loop last went round, by the monotonic clock: a watchdog may ask.
        self.turned_at = time.monotonic()
        self._is_probing = False
        #: Queues that have given something since the last probe; those that had something then and had given nothing.
        self._giving: set[str] = set()
        self._silent: set[str] = set()
        #: Since the start of the process: connections made, messages that the broker had given out before.
        self.connections = 0
        self.redeliveries = 0

    def run(self, stop: threading.Event) -> None:
        """Consumes until `stop` is set."""
        while not stop.is_set():
            self.turned_at = time.monotonic()
            why, self._connection, self._connected_at = "", None, math.inf
            try:
                self._ready()
                self._connect()
                self._on_state("consuming")
                self._on_start()
                self._consume(stop)
            except Exception as error:  # pika raises some outside its own tree
                why = self._explain(error)
            self._farewell()
            if why:
                self._on_state(f"waiting for the broker: {why}")
                self._broker = self._broker.rotated()
                self._wait(stop)

    def is_hung(self, seconds: float) -> bool:
        """Whether the loop has not gone round for so long: its process is useless."""
        return time.monotonic() - self.turned_at > seconds

    def unstick(self) -> None:
        """From a watchdog's thread: ends the wait for an answer to a probe that does not come. The loop connects anew.

        Nothing in the loop's own thread could: pika waits for ever.
        """
        if self._is_probing and time.monotonic() - self.turned_at > PROBE_ANSWER_SECONDS:
            try:
                # No public way leads to the socket; shutting it is what a broken line looks like.
                self._connection._impl._transport._sock.shutdown(socket.SHUT_RDWR)
            except (OSError, AttributeError) as error:  # it is broken already: the loop is on its way out
                self._on_state(f"already cut off: {type(error).__name__}")

    def wake(self) -> None:
        """From another thread: go round now. Whoever sets `stop` need not wait for the end of an idle wait."""
        connection = self._connection
        if connection is None:
            return
        try:
            connection.add_callback_threadsafe(lambda: None)
        except Exception:  # it is being closed: the loop is awake
            return

    def _connect(self) -> None:
        import pika

        self._connection = connection = pika.BlockingConnection(pika_parameters(self._broker, "consume"))
        self._connected_at = time.monotonic()
        self._channel = channel = connection.channel()
        self._box, self._lost = [], []
        self._giving, self._silent = set(), set()
        channel.add_on_cancel_callback(self._lost.append)
        for queue in self._queues:
            channel.queue_declare(queue, passive=True)
            channel.basic_qos(prefetch_count=self._sparing.get(queue, self._prefetch))
            channel.basic_consume(queue, self._taker(queue))
        self.connections += 1

    def _taker(self, queue: str) -> Callable[..., None]:
        def take(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            delivery = Delivery(queue, method.routing_key, properties.user_id or "", properties.message_id or "", body,
                                method.redelivered, properties.headers or {})  # fmt: skip
            self.redeliveries += method.redelivered
            self._giving.add(queue)
            self._box.append((method.delivery_tag, delivery))

        return take

    def _consume(self, stop: threading.Event) -> None:
        probe_at = time.monotonic() + PROBE_SECONDS
        while not stop.is_set():
            self._connection.process_data_events(time_limit=self._idle_seconds)
            self.turned_at = time.monotonic()
            self._listen()
            if self._box:
                self._settle()
            self._idle()
            if time.monotonic() > probe_at:
                self._probe()
                probe_at, self._backoff = time.monotonic() + PROBE_SECONDS, FIRST_BACKOFF_SECONDS

    def _listen(self) -> None:
        if self._lost:
            raise Deaf("the broker cancelled the consumer")
        # pika 1.4 raises nothing when the broker closes a channel.
        if not self._channel.is_open:
            raise Deaf("the broker closed the channel")
        if len(self._channel.consumer_tags) < len(self._queues):
            raise Deaf("a consumer is gone")

    def _settle(self) -> None:
        batch, self._box = self._box, []
        dead = self._store([delivery for _, delivery in batch])
        refused = {id(delivery) for delivery in dead}
        for tag, delivery in batch:
            if id(delivery) in refused:
                self._channel.basic_reject(tag, requeue=False)
        # The rejected ones are settled already; "multiple" covers what is left up to the last.
        last = next((tag for tag, delivery in reversed(batch) if id(delivery) not in refused), None)
        if last is not None:
            self._channel.basic_ack(last, multiple=True)
        crash_point("consumer.settled")

    def _probe(self) -> None:
        self.turned_at, self._is_probing = time.monotonic(), True
        silent = set()
        try:
            for queue in self._queues:
                found = self._channel.queue_declare(queue, passive=True).method
                if not found.consumer_count:
                    raise Deaf("the broker knows no consumer")
                if found.message_count and queue not in self._giving:
                    silent.add(queue)
        finally:
            self._is_probing = False
        # A queue deleted and made again at once may take the old consumer over and give it nothing (RabbitMQ 3.10).
        if deaf := silent & self._silent:
            raise Deaf(f"the broker gives nothing of what waits in {min(deaf)}")
        self._giving, self._silent = set(), silent

    def _explain(self, error: Exception) -> str:
        code = getattr(error, "reply_code", None)
        why = f"{code} {getattr(error, 'reply_text', '')}" if code else f"{type(error).__name__}: {error}"
        if time.monotonic() - self._connected_at > STOOD_SECONDS:
            self._backoff = FIRST_BACKOFF_SECONDS
        if code == 403:
            self._backoff = REFUSED_BACKOFF_SECONDS
        if code == 404:
            try:
                self._missing(why)
            except Exception as failed:  # whoever mends it could not: the next try asks again
                return f"{why}; {failed}"
        return why

    def _wait(self, stop: threading.Event) -> None:
        stop.wait(self._backoff * (0.5 + random.random()))
        self._backoff = min(self._backoff * 2, LONGEST_BACKOFF_SECONDS)

    def _farewell(self) -> None:
        if self._connection is None or not self._connection.is_open:
            return
        try:
            self._connection.close()
        except Exception as error:  # it is gone anyway; whatever it held comes again
            self._on_state(f"closing: {type(error).__name__}")
