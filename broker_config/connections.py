"""How onehost connects to RabbitMQ: pika for consuming, kombu (py-amqp) for publishing. Nobody else builds connections.

Both libraries are imported when a connection is built, so that commands which need no broker do not pay for them.
A process that consumes and publishes uses two connections: under an alarm the broker freezes publishing ones whole.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pika
    from kombu.connection import Connection

    from ..models.settings import Broker

#: Consumers: a dead peer is noticed within 2 x (this + 5) seconds.
CONSUMER_HEARTBEAT_SECONDS = 5
#: A consumer's own calls give up after this long under a broker alarm; nothing else ends that wait.
BLOCKED_TIMEOUT_SECONDS = 20
#: Publishers: their owner ticks each second.
PUBLISHER_HEARTBEAT_SECONDS = 10
CONNECT_TIMEOUT_SECONDS = 5
#: From the first packet to the open connection, DNS and login included.
STACK_TIMEOUT_SECONDS = 10


def connection_name(broker: Broker, purpose: str) -> str:
    """What the broker's own lists show: who is connected, for what, from which process."""
    return f"{broker.user} {purpose} {socket.gethostname()}:{os.getpid()}".replace("  ", " ")


def pika_parameters(broker: Broker, purpose: str = "consume") -> pika.ConnectionParameters:
    """Parameters of a consuming connection: one attempt, bounded everywhere. The caller retries, with its own backoff.

    Raises NotFound or Invalid if the password file is missing or open to others.
    """
    import pika

    return pika.ConnectionParameters(
        host=broker.host,
        port=broker.port,
        virtual_host=broker.vhost,
        credentials=pika.PlainCredentials(broker.user, broker.password()),
        heartbeat=CONSUMER_HEARTBEAT_SECONDS,
        blocked_connection_timeout=BLOCKED_TIMEOUT_SECONDS,
        socket_timeout=CONNECT_TIMEOUT_SECONDS,
        stack_timeout=STACK_TIMEOUT_SECONDS,
        connection_attempts=1,
        client_properties={"connection_name": connection_name(broker, purpose)},
    )


def kombu_connection(
    broker: Broker,
    purpose: str = "publish",
    *,
    io_timeout_seconds: float = 15.0,
    on_blocked: Callable[[str], None] | None = None,
    on_unblocked: Callable[[], None] | None = None,
) -> Connection:
    """A publishing connection, not opened yet. Reads and writes give up after `io_timeout_seconds`.

    Never close() or release() it while the broker may be blocked: both wait for the alarm to end; collect() does not.
    Raises NotFound or Invalid if the password file is missing or open to others.
    """
    from kombu.connection import Connection

    options: dict[str, Any] = {
        "client_properties": {"connection_name": connection_name(broker, purpose)},
        "read_timeout": io_timeout_seconds,
        "write_timeout": io_timeout_seconds,
        "on_blocked": on_blocked,
        "on_unblocked": on_unblocked,
    }
    return Connection(
        hostname=broker.host,
        port=broker.port,
        userid=broker.user,
        password=broker.password(),
        virtual_host=broker.vhost,
        login_method="PLAIN",
        heartbeat=PUBLISHER_HEARTBEAT_SECONDS,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        transport="pyamqp",
        transport_options=options,
    )
