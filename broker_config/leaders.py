"""Queues that have lost their leader for good, found by asking them; they are made anew.

RabbitMQ notes which queues it has replicas of in a file that it writes half a second late. Killed within that time of a
queue's making, it starts again with an empty replica that waits for an election nobody calls: consumers and publishers
of the queue hang, and it is listed as running (rabbitmq-server#15725, seen on 3.10 and 4.0). No call over the network
starts that election. What was in the queue is sent again from the store and from the nodes' ledgers.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from ..models.errors import OnehostError, Unreachable
from .connections import kombu_connection
from .management import Management
from .routing import VHOST
from .state import Content, Kind, State, Step, Verb

if TYPE_CHECKING:
    from ..models.settings import Broker

#: A queue that has a leader answers within milliseconds, one that is begun or elects another within this, in seconds.
ANSWER_SECONDS = 2.0
#: So often a queue must not answer, each time on a connection that did: a broker that stood still is no reason.
LOOKS = 2
#: In a cluster an election may first have to wait for the word that a broker is gone, or back.
LOOKS_IN_CLUSTER = 5
#: Between two looks, in seconds: a replica that has crashed is begun again.
BETWEEN_LOOKS_SECONDS = 1.0
#: Queues asked or deleted at the same time: each one without a leader takes seconds.
SIDE_BY_SIDE = 16


def made_anew(wanted: State, queues: Iterable[str]) -> Iterator[Step]:
    """The steps that make these queues anew, with what leads to them."""
    for queue in queues:
        yield Step(Verb.CHANGE, Kind.QUEUE, queue, "it has no leader", wanted.of(Kind.QUEUE)[queue])
        for name, content in wanted.of(Kind.BINDING).items():
            if content["destination"] == queue:
                yield Step(Verb.CREATE, Kind.BINDING, name, content=content)


def suspects(observed: State, untouched: Iterable[str], brokers: Collection[str]) -> list[str]:
    """Quorum queues of which the broker has no numbers, as it is for seconds after its start; of others it has them.

    One with a replica on a broker that is down is none: that broker may bring the leader back.
    """
    return [queue for queue in untouched if _is_suspect(observed.of(Kind.QUEUE)[queue], brokers)]


def _is_suspect(found: Content, brokers: Collection[str]) -> bool:
    is_quorum = found["arguments"].get("x-queue-type") == "quorum"
    return is_quorum and "messages" not in found and set(found.get("members") or ()) <= set(brokers)


def leaderless(broker: Broker, queues: Sequence[str], looks: int = LOOKS) -> list[str]:
    """Those of `queues` that nobody leads. Takes seconds if there are any; `broker.user` may read them all.

    Raises Unreachable if the broker itself does not answer.
    """
    for look in range(looks):
        if look and queues:
            time.sleep(BETWEEN_LOOKS_SECONDS)
        shares = [queues[number::SIDE_BY_SIDE] for number in range(min(SIDE_BY_SIDE, len(queues)))]
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            queues = [queue for silent in pool.map(partial(_silent, broker), shares) for queue in silent]
    return list(queues)


def delete(management: Management, queues: Iterable[str]) -> None:
    """Delete queues side by side: RabbitMQ waits 5 s for the leader of one that has none.

    Raises what Management raises.
    """
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(lambda queue: management.delete("queues", VHOST, queue), queues))


def _silent(broker: Broker, queues: Sequence[str]) -> list[str]:
    left, silent = list(queues), []
    while left:
        link = _open(broker)
        try:
            channel = link.channel()
            while left and _answers(channel, left[0]):
                left.pop(0)
        except _faults() as error:
            raise _unreachable(broker, error) from error
        finally:
            link.collect()
        if left:
            # What did not answer has spoilt the connection: its answer might still come.
            silent.append(left.pop(0))
    return silent


def _open(broker: Broker) -> Any:
    why: Exception | None = None
    for _ in range(len(broker.fallbacks) + 1):
        try:
            return kombu_connection(broker, "look", io_timeout_seconds=ANSWER_SECONDS).transport.establish_connection()
        except _faults() as error:
            why, broker = error, broker.rotated()
    assert why is not None
    raise _unreachable(broker, why) from why


def _answers(channel: Any, queue: str) -> bool:
    """Whether a queue has a leader. One that has a consumer has; of another a message is asked for and given back.

    A queue with a single active consumer refuses that, by its leader's word.
    """
    from amqp import InternalError, NotFound, ResourceLocked

    try:
        if channel.queue_declare(queue, passive=True).consumer_count:
            return True
    except NotFound:  # deleted meanwhile: it is missing, not silent
        return True
    try:
        message = channel.basic_get(queue)
    except (TimeoutError, InternalError):  # the latter: not even a replica runs
        return False
    except ResourceLocked:
        return True
    if message is not None:
        channel.basic_reject(message.delivery_tag, requeue=True)
    return True


def _faults() -> tuple[type[Exception], ...]:
    from amqp import AMQPError

    return (OSError, AMQPError, OnehostError)


def _unreachable(broker: Broker, error: Exception) -> Unreachable:
    return Unreachable(f"RabbitMQ at {broker.host}:{broker.port} as {broker.user}: {error}")
