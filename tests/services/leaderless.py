"""Quorum queues left without a leader, as RabbitMQ leaves them when it is killed within a moment of their making."""

from __future__ import annotations

import signal
import time

from .rabbitmq import RabbitMQ

#: What the broker does with a replica that it has no note of: begins it anew, and nobody calls an election.
LOSE = """
{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"onehost">>, queue, <<"{queue}">>)),
ok = ra:force_delete_server(quorum_queues, amqqueue:get_pid(Queue)),
{{[_], []}} = rabbit_quorum_queue:recover(<<"onehost">>, [Queue]).
"""


#: So late does it note the replicas of queues that were just made: the others are to keep theirs.
NOTED_SECONDS = 1.0


def lose_leaders(broker: RabbitMQ, *queues: str) -> None:
    """Kills the broker and starts it; nobody leads these queues then, and whatever was in them is gone."""
    for queue in queues:
        broker.ctl(["eval", LOSE.format(queue=queue)])
    time.sleep(NOTED_SECONDS)
    broker.stop(signal.SIGKILL)
    broker.start()
