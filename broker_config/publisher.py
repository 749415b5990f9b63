"""The publisher of the relay and of the reporter: many letters in flight, every one accounted for.

Each letter is persistent, mandatory and confirmed, hundreds at a time: five to ten times the pace of one by one. It
never hangs and never raises for a fault of the bus: a report says what is known, the rest is to be sent again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..models.errors import OnehostError
from .confirms import Confirms
from .connections import kombu_connection
from .letters import Letter, Report

if TYPE_CHECKING:
    from ..models.settings import Broker

__all__ = ["Letter", "Publisher", "Report"]

#: Longest single wait on the socket: how soon a stop is noticed, and how often heartbeats are looked at.
WAIT_SECONDS = 1.0
#: What a stopping publisher still waits for confirmations on their way.
STOP_SECONDS = 2.0
#: What a polite farewell may take.
FAREWELL_SECONDS = 1.0


class Publisher:
    """Publishes to one exchange as `broker.user`; connects when there is something to send. One thread at a time.

    After any fault the connection is dropped and the next `send` opens another one, to the next of several brokers.
    `window` letters are in flight at most; `confirm_timeout_seconds` without any settlement ends a sending. Setting
    `stop` ends one within two seconds.
    """

    def __init__(
        self,
        broker: Broker,
        exchange: str,
        window: int = 500,
        confirm_timeout_seconds: float = 15.0,
        *,
        purpose: str = "publish",
        stop: threading.Event | None = None,
    ) -> None:
        self._broker = broker
        self._exchange = exchange
        self._window = window
        self._confirm_timeout_seconds = confirm_timeout_seconds
        self._purpose = purpose
        self._stop = stop or threading.Event()
        #: py-amqp's connection and channel, not kombu's wrapper: that one would connect anew behind our back, and the
        #: confirmations we wait for would never come.
        self._link: Any = None
        self._channel: Any = None
        self._confirms = Confirms()
        self._is_blocked = False

    @property
    def is_blocked(self) -> bool:
        """Whether the broker holds publishers back: an alarm for memory or disk."""
        return self._is_blocked

    def send(self, letters: Sequence[Letter]) -> Report:
        """Publish and wait until every letter is settled, or until waiting is no use.

        Returned letters stand under `unroutable`, refused ones under `nacked`; neither harms the others.
        """
        try:
            self._open()
            self._publish(letters)
        except _faults() as error:
            report = self._confirms.report(_words(error), _reply_code(error))
            self._drop()
            self._broker = self._broker.rotated()
            return report
        except BaseException:
            self._drop()
            raise
        return self._confirms.report()

    def tick(self) -> str:
        """Keep an idle connection alive; call it each second, else the broker resets it. Says why it was lost."""
        if self._link is None:
            return ""
        try:
            self._link.heartbeat_tick()
            self._link.drain_events(timeout=0)
        except TimeoutError:
            return ""
        except _faults() as error:
            self._drop()
            self._broker = self._broker.rotated()
            return _words(error)
        return ""

    def close(self) -> None:
        """Say farewell if the broker listens, and let go in any case. Bounded, also under an alarm."""
        link = self._link
        if link is None:
            return
        try:
            if not self._is_blocked and not len(self._confirms):
                _say_farewell(link)
        except _faults():
            # The connection was lost first: nothing is left to say.
            pass
        finally:
            self._drop()

    def _open(self) -> None:
        if self._link is not None:
            return
        if self._stop.is_set():
            raise _GaveUp("stopping")
        self._is_blocked = False
        self._confirms = Confirms()
        connection = kombu_connection(
            self._broker,
            self._purpose,
            io_timeout_seconds=self._confirm_timeout_seconds,
            on_blocked=lambda _: self._set_blocked(True),
            on_unblocked=lambda: self._set_blocked(False),
        )
        # One attempt, where Connection.connect() would make two with a sleep between them.
        self._link = connection.transport.establish_connection()
        self._channel = self._link.channel()
        confirms, events = self._confirms, self._channel.events
        events["basic_ack"].add(lambda tag, multiple: confirms.settle(tag, multiple, accepted=True))
        events["basic_nack"].add(lambda tag, multiple: confirms.settle(tag, multiple, accepted=False))
        events["basic_return"].add(
            lambda error, _exchange, _key, message: confirms.returned(
                message.properties["message_id"], f"{error.reply_code} {error.reply_text}"
            )
        )
        self._channel.confirm_select()

    def _publish(self, letters: Sequence[Letter]) -> None:
        patience = _Patience(self._confirms)
        is_cut_short = False
        for letter in letters:
            if self._stop.is_set():
                # What is on its way is still waited for: it would be sent twice otherwise.
                is_cut_short = True
                break
            while self._is_blocked or len(self._confirms) >= self._window:
                self._wait(patience)
            self._confirms.register(letter.message_id)
            self._channel.basic_publish(self._message(letter), self._exchange, letter.routing_key, mandatory=True)
        while len(self._confirms):
            self._wait(patience)
        if is_cut_short:
            raise _GaveUp("stopping")

    def _wait(self, patience: _Patience) -> None:
        """Take what the broker says next. Raises when nothing was settled for too long."""
        limit = STOP_SECONDS if self._stop.is_set() else self._confirm_timeout_seconds
        waited = patience.waited_seconds()
        if waited >= limit:
            raise _GaveUp("blocked by a broker alarm" if self._is_blocked else f"no confirmation for {waited:.0f} s")
        try:
            self._link.drain_events(timeout=min(WAIT_SECONDS, max(limit - waited, 0.01)))
        except TimeoutError:
            self._link.heartbeat_tick()

    def _message(self, letter: Letter) -> Any:
        import amqp

        properties: dict[str, Any] = {
            "content_type": "application/json",
            "delivery_mode": 2,
            "message_id": letter.message_id,
            "timestamp": int(time.time()),
            "user_id": self._broker.user,
        }
        if letter.headers:
            properties["application_headers"] = dict(letter.headers)
        if letter.correlation_id:
            properties["correlation_id"] = letter.correlation_id
        if letter.type:
            properties["type"] = letter.type
        if letter.expiration_ms is not None:
            properties["expiration"] = str(letter.expiration_ms)
        return amqp.Message(letter.body, **properties)

    def _set_blocked(self, is_blocked: bool) -> None:
        self._is_blocked = is_blocked

    def _drop(self) -> None:
        link, self._link, self._channel = self._link, None, None
        self._is_blocked = False
        self._confirms = Confirms()
        if link is not None:
            # Never close(): it waits for an answer that a blocked or frozen broker does not give.
            link.collect()


class _GaveUp(OnehostError):
    """Waiting any longer is no use."""


class _Patience:
    """How long nothing has been settled."""

    def __init__(self, confirms: Confirms) -> None:
        self._confirms = confirms
        self._seen = confirms.settlements
        self._since = time.monotonic()

    def waited_seconds(self) -> float:
        if self._seen != self._confirms.settlements:
            self._seen, self._since = self._confirms.settlements, time.monotonic()
        return time.monotonic() - self._since


def _say_farewell(link: Any) -> None:
    from amqp import spec

    until = time.monotonic() + FAREWELL_SECONDS
    with link.transport.having_timeout(FAREWELL_SECONDS):
        link.send_method(spec.Connection.Close, "BsBB", (0, "", 0, 0))
    while link.connected and time.monotonic() < until:
        link.drain_events(timeout=max(until - time.monotonic(), 0.01))


def _faults() -> tuple[type[BaseException], ...]:
    """What a broken bus, a refused login or a missing secret looks like. py-amqp says AttributeError to some losses."""
    from amqp import AMQPError

    return (OSError, AMQPError, AttributeError, OnehostError)


def _words(error: BaseException) -> str:
    return error.what if isinstance(error, OnehostError) else f"{type(error).__name__}: {error}"


def _reply_code(error: BaseException) -> int:
    code = getattr(error, "reply_code", 0) or getattr(error, "code", 0)
    return code if isinstance(code, int) else 0
