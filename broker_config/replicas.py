"""Replicas of quorum queues in a cluster of brokers: a queue made before others joined has one, and no more by itself.

A queue that is made in a cluster gets its replicas at once; what is found here was made before, or by the definitions
that the first broker of a new cluster loads at boot.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from ..models.errors import NotFound, Refused
from .management import Management
from .routing import VHOST
from .state import Kind, State, Step, Verb

#: Any one of three brokers may be lost. More replicas would cost each message one more write and protect little more.
WANTED_REPLICAS = 3


def running_brokers(management: Management) -> list[str]:
    """The members of the cluster that are up, by RabbitMQ's own names."""
    found: list[dict[str, Any]] = management.get("nodes", query="columns=name,running")
    return sorted(str(node["name"]) for node in found if node.get("running"))


def missing_replicas(observed: State, untouched: Iterable[str], brokers: Collection[str]) -> list[Step]:
    """The steps that give every quorum queue of these a replica on three brokers, or on as many as are up."""
    steps: list[Step] = []
    for queue in untouched:
        found = observed.of(Kind.QUEUE)[queue]
        members = found.get("members") or []
        if found["arguments"].get("x-queue-type") != "quorum" or not members:
            continue
        free = [broker for broker in brokers if broker not in members]
        for broker in free[: max(WANTED_REPLICAS - len(members), 0)]:
            content = {"queue": queue, "broker": broker}
            steps.append(Step(Verb.CREATE, Kind.REPLICA, f"{queue} on {broker}", content=content))
    return steps


def add_replica(management: Management, step: Step) -> None:
    """Carry out one of these steps. Raises Refused where RabbitMQ has only a command for it, on its own machine."""
    queue, broker = step.content["queue"], step.content["broker"]
    try:
        management.post("queues", "quorum", VHOST, queue, "replicas", "add", body={"node": broker})
    except (Refused, NotFound) as error:
        hint = f"on a broker's machine: rabbitmq-queues grow {broker} all --vhost-pattern '^{VHOST}$'"
        raise Refused(f"queue {queue} has no replica on {broker}, and this RabbitMQ adds none over its API",
                      hint=hint) from error  # fmt: skip
