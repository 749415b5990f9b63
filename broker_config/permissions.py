"""Who may do what on the bus: one broker user per node and per process of the manager.

A node can publish events under its own name only, and read its own queue only. A user without any topic permission may
publish every key, so the topic permission always stands before the credential works (apply.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .routing import EVENTS, checked_node, node_queue, node_user

TOPOLOGY_USER = "topology"
RELAY_USER = "relay"
AUDIT_USER = "audit"
#: Asks nodes questions and reads the answers from a queue of its own.
ASK_USER = "ask"
MANAGER_USERS = (RELAY_USER, AUDIT_USER, ASK_USER, TOPOLOGY_USER)
#: RabbitMQ's own first user, with a password that everybody knows. Removed.
GUEST_USER = "guest"

NOTHING = "^$"
#: A worker holds two connections; while it reconnects the broker may still count the lost ones.
NODE_MAX_CONNECTIONS = 6
NODE_MAX_CHANNELS = 16


@dataclass(frozen=True)
class TopicPermission:
    """Which routing keys a user may write to, and bind from, one topic exchange."""

    exchange: str
    write: str
    read: str


@dataclass(frozen=True)
class User:
    """One broker user and its rights in the virtual host, as regular expressions on names."""

    name: str
    configure: str
    write: str
    read: str
    topics: tuple[TopicPermission, ...] = ()
    tags: tuple[str, ...] = ()
    #: 0: no limit.
    max_connections: int = 0
    max_channels: int = 0


def users(nodes: Iterable[str]) -> tuple[User, ...]:
    """Every user of a cluster of these nodes. Raises Invalid for a name that cannot be a node's."""
    return (*_manager_users(), *(_node(node) for node in sorted(nodes)))


def _manager_users() -> tuple[User, ...]:
    everything = r"^onehost\."
    answers = r"^onehost\.answer\."
    return (
        User(RELAY_USER, configure=NOTHING, write=r"^onehost\.jobs$", read=NOTHING),
        User(AUDIT_USER, configure=NOTHING, write=NOTHING, read=r"^onehost\.(audit|beat|dead)$"),
        User(ASK_USER, configure=answers, write=r"^onehost\.(jobs$|answer\.)", read=r"^onehost\.(events$|answer\.)"),
        # It makes users, which takes an administrator; only `broker apply` and the relay's repair use it.
        User(TOPOLOGY_USER, configure=everything, write=everything, read=everything, tags=("administrator",)),
    )


def _node(node: str) -> User:
    queue = node_queue(node).replace(".", r"\.")
    return User(
        node_user(node),
        configure=NOTHING,
        write=r"^onehost\.events$",
        read=f"^{queue}$",
        topics=(TopicPermission(EVENTS, write=rf"^[a-z]+\.{checked_node(node)}\.", read=NOTHING),),
        max_connections=NODE_MAX_CONNECTIONS,
        max_channels=NODE_MAX_CHANNELS,
    )
