"""The whole desired topology as plain data: which exchanges, queues and bindings exist for a given set of nodes.

Arguments say only what a queue *is* (its type, single active consumer); they can never change without making it anew.
Whatever may be tuned is a policy (policies.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .routing import (
    AUDIT_QUEUE,
    BEAT_QUEUE,
    DEAD,
    DEAD_QUEUE,
    EVENTS,
    JOBS,
    node_pattern,
    node_queue,
)

Arguments = Mapping[str, str | bool]

#: Replicated, and read by one consumer at a time; a second one stands by.
QUORUM_SINGLE: Arguments = {"x-queue-type": "quorum", "x-single-active-consumer": True}
QUORUM: Arguments = {"x-queue-type": "quorum"}


@dataclass(frozen=True)
class Exchange:
    """A durable topic exchange. Never with an alternate exchange: it would hide "no route" from `mandatory`."""

    name: str


@dataclass(frozen=True)
class Queue:
    """A durable queue."""

    name: str
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True)
class Binding:
    """What `exchange` gets under keys matching `pattern` goes to `queue`."""

    exchange: str
    queue: str
    pattern: str


@dataclass(frozen=True)
class Topology:
    """Everything that is declared."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]


def topology(nodes: Iterable[str]) -> Topology:
    """The topology of a cluster of these nodes. Raises Invalid for a name that cannot be a node's."""
    names = sorted(nodes)
    return Topology(
        exchanges=(Exchange(JOBS), Exchange(EVENTS), Exchange(DEAD)),
        queues=(
            Queue(AUDIT_QUEUE, QUORUM_SINGLE),
            # Beats may be lost, their queue not: one that is on a single broker would leave audit deaf without it.
            Queue(BEAT_QUEUE, QUORUM),
            Queue(DEAD_QUEUE, QUORUM),
            *(Queue(node_queue(node), QUORUM_SINGLE) for node in names),
        ),
        bindings=(
            Binding(EVENTS, AUDIT_QUEUE, "ack.#"),
            Binding(EVENTS, AUDIT_QUEUE, "hello.#"),
            Binding(EVENTS, BEAT_QUEUE, "beat.#"),
            Binding(DEAD, DEAD_QUEUE, "#"),
            *(Binding(JOBS, node_queue(node), node_pattern(node)) for node in names),
        ),
    )
