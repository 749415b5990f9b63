"""What the broker should have: topology, policies, users and rights, put together as one state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .credentials import HASHING_ALGORITHM, NO_PASSWORD
from .permissions import User, users
from .policies import Version, policies
from .routing import VHOST
from .state import Content, Kind, State
from .topology import topology


def desired(nodes: Iterable[str], hashes: Mapping[str, str], version: Version) -> State:
    """The state of a cluster of these nodes on a broker of this version.

    `hashes` maps users to password hashes; a user without one cannot log in by password. Raises Invalid for a name that
    cannot be a node's.
    """
    names = sorted(nodes)
    roads, people = topology(names), users(names)
    return State(
        {
            Kind.VHOST: {VHOST: {}},
            Kind.EXCHANGE: {e.name: exchange_content("topic") for e in roads.exchanges},
            Kind.POLICY: {
                p.name: {
                    "pattern": p.pattern,
                    "apply-to": p.apply_to,
                    "definition": dict(p.definition),
                    "priority": p.priority,
                }
                for p in policies(version)
            },
            Kind.QUEUE: {q.name: queue_content(q.arguments) for q in roads.queues},
            Kind.BINDING: {
                binding_name(b.exchange, b.queue, b.pattern): binding_content(b.exchange, b.queue, b.pattern)
                for b in roads.bindings
            },
            Kind.USER: {user.name: {"tags": list(user.tags)} for user in people},
            Kind.PERMISSION: {user.name: _permission(user) for user in people},
            Kind.TOPIC_PERMISSION: {
                topic_permission_name(user.name, VHOST, topic.exchange): {
                    "user": user.name,
                    "vhost": VHOST,
                    "exchange": topic.exchange,
                    "write": topic.write,
                    "read": topic.read,
                }
                for user in people
                for topic in user.topics
            },
            Kind.LIMITS: {user.name: _limits(user) for user in people if user.max_connections},
            Kind.CREDENTIAL: {
                user.name: credential_content(user.name, hashes.get(user.name, NO_PASSWORD)) for user in people
            },
        }
    )


def exchange_content(kind: str) -> Content:
    """A durable exchange of this type."""
    return {"type": kind, "durable": True, "auto_delete": False, "internal": False, "arguments": {}}


def queue_content(arguments: Mapping[str, object]) -> Content:
    """A durable queue with these arguments."""
    return {"durable": True, "auto_delete": False, "arguments": dict(arguments)}


def binding_content(source: str, destination: str, key: str) -> Content:
    """A binding from an exchange to a queue."""
    return {
        "source": source,
        "destination": destination,
        "destination_type": "queue",
        "routing_key": key,
        "arguments": {},
    }


def binding_name(source: str, destination: str, key: str) -> str:
    """How a binding, which has no name, is called."""
    return f"{source} -> {destination}: {key}"


def permission_name(user: str, vhost: str) -> str:
    """How rights are called: by the user, and the virtual host where it is not ours."""
    return user if vhost == VHOST else f"{user} in {vhost}"


def topic_permission_name(user: str, vhost: str, exchange: str) -> str:
    """How rights on routing keys are called."""
    return f"{permission_name(user, vhost)} on {exchange}"


def credential_content(user: str, hashed: str) -> Content:
    """What lets a user in."""
    return {"user": user, "password_hash": hashed, "hashing_algorithm": HASHING_ALGORITHM}


def _permission(user: User) -> Content:
    return {
        "user": user.name,
        "vhost": VHOST,
        "configure": user.configure,
        "write": user.write,
        "read": user.read,
    }


def _limits(user: User) -> Content:
    return {"user": user.name, "max-connections": user.max_connections, "max-channels": user.max_channels}
