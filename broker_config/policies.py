"""Everything tunable about the queues, as policies, rendered for the broker's version.

A delivery limit with a dead-letter exchange stands on every queue of work: RabbitMQ 4 drops a message after 21
deliveries where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..models.errors import Refused
from .routing import AUDIT_QUEUE, BEAT_QUEUE, DEAD, DEAD_QUEUE, NODE_QUEUE_PREFIX

Version = tuple[int, int]

#: The oldest RabbitMQ that onehost works with, and the form of policies that every newer one takes as well.
OLDEST: Version = (3, 10)
#: From here on a policy can name a kind of queue; older brokers refuse that, and half of a definitions file with it.
_FIRST_WITH_KINDS: Version = (4, 0)

#: High, so that a few quick crashes of a worker never kill a batch of innocent messages.
DELIVERY_LIMIT = 100
#: Dead letters are copied to the store and settled, never rejected; the limit must only never be reached.
DEAD_DELIVERY_LIMIT = 1_000_000
#: A node away for long: beyond this the relay is refused and the rest waits in the store.
MAX_LENGTH = 20_000
MAX_LENGTH_BYTES = 512 * 1024 * 1024
#: Beats beyond this are the oldest and worth nothing.
BEAT_MAX_LENGTH = 5_000
#: In a cluster of brokers new queues are led by different ones, so that the loss of one is felt by few.
SPREAD: dict[str, str | int] = {"queue-leader-locator": "balanced"}


@dataclass(frozen=True)
class Policy:
    """One policy of the virtual host."""

    name: str
    pattern: str
    apply_to: str
    definition: Mapping[str, str | int]
    priority: int = 10


def version_of(text: str) -> Version:
    """Major and minor number of a version like "3.10.8". Raises Refused for one that onehost does not work with."""
    match = re.match(r"(\d+)\.(\d+)", text)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version < OLDEST:
        raise Refused(f"RabbitMQ {text} is too old", hint=f"install {OLDEST[0]}.{OLDEST[1]} or newer")
    return version


def policies(version: Version) -> tuple[Policy, ...]:
    """The policies of all queues, in the form that a broker of this version takes."""
    kind = "quorum_queues" if version >= _FIRST_WITH_KINDS else "queues"
    work: dict[str, str | int] = {
        "delivery-limit": DELIVERY_LIMIT,
        "dead-letter-exchange": DEAD,
        # At-least-once holds only together with reject-publish; with drop-head it silently becomes at-most-once.
        "dead-letter-strategy": "at-least-once",
        "overflow": "reject-publish",
        "max-length": MAX_LENGTH,
        "max-length-bytes": MAX_LENGTH_BYTES,
    }
    beat: dict[str, str | int] = {
        "delivery-limit": DELIVERY_LIMIT,
        "max-length": BEAT_MAX_LENGTH,
        "overflow": "drop-head",
    }
    dead: dict[str, str | int] = {"delivery-limit": DEAD_DELIVERY_LIMIT}
    return tuple(
        Policy(name, pattern, kind, definition | SPREAD)
        for name, pattern, definition in (
            ("onehost.node", f"^{re.escape(NODE_QUEUE_PREFIX)}", work),
            (AUDIT_QUEUE, _exactly(AUDIT_QUEUE), work),
            (BEAT_QUEUE, _exactly(BEAT_QUEUE), beat),
            (DEAD_QUEUE, _exactly(DEAD_QUEUE), dead),
        )
    )


def _exactly(name: str) -> str:
    return f"^{re.escape(name)}$"
