"""Names of everything on the broker: exchanges, queues, users and routing keys, each said in one place.

The node is always the second word of a key, so that one pattern serves both its binding and its permission.
"""

from __future__ import annotations

import re

from ..models.errors import Invalid

VHOST = "onehost"
#: Manager to nodes: topic exchange, `<noun>.<node>.<verb>`.
JOBS = "onehost.jobs"
#: Nodes to manager: topic exchange, `ack|hello|answer|beat.<node>.<...>`.
EVENTS = "onehost.events"
#: Where dead letters go: topic exchange and, under the same name, its queue.
DEAD = "onehost.dead"

#: Acknowledgements and hellos, read by audit.
AUDIT_QUEUE = "onehost.audit"
#: Heartbeats: lossy, so that they never stand before acknowledgements.
BEAT_QUEUE = "onehost.beat"
DEAD_QUEUE = DEAD
NODE_QUEUE_PREFIX = "onehost.node."
#: Queues of one asker each, made and dropped by the asker itself; never part of the topology.
ANSWER_QUEUE_PREFIX = "onehost.answer."
NODE_USER_PREFIX = "node-"

_NODE = re.compile(r"[a-z][a-z0-9-]{0,39}")
_WORD = re.compile(r"[a-z0-9_-]{1,64}")


def checked_node(name: str) -> str:
    """`name` itself. Raises Invalid if it could not be a word of a routing key and part of a permission's pattern."""
    if not _NODE.fullmatch(name):
        raise Invalid(f"{name!r} cannot name a node: a letter, then letters, digits or dashes, 40 at most")
    return name


def node_queue(node: str) -> str:
    """The queue of one node's jobs."""
    return NODE_QUEUE_PREFIX + checked_node(node)


def node_user(node: str) -> str:
    """The broker user of one node: its identity on the bus."""
    return NODE_USER_PREFIX + checked_node(node)


def node_of_user(user: str) -> str:
    """The node whose broker user is `user`, or "" if it is no node's."""
    node = user.removeprefix(NODE_USER_PREFIX)
    return node if node != user and _NODE.fullmatch(node) else ""


def node_pattern(node: str) -> str:
    """The binding key that takes every job for `node`."""
    return f"*.{checked_node(node)}.*"


def job_key(noun: str, node: str, verb: str) -> str:
    """The key of a job, on `onehost.jobs`."""
    return f"{_word(noun)}.{checked_node(node)}.{_word(verb)}"


def ack_key(node: str, noun: str) -> str:
    """The key of an acknowledgement, on `onehost.events`."""
    return f"ack.{checked_node(node)}.{_word(noun)}"


def hello_key(node: str) -> str:
    """The key of a node's hello, on `onehost.events`."""
    return f"hello.{checked_node(node)}.-"


def beat_key(node: str) -> str:
    """The key of a node's heartbeat, on `onehost.events`."""
    return f"beat.{checked_node(node)}.-"


def answer_key(node: str, asker: str) -> str:
    """The key of an answer to a question, on `onehost.events`."""
    return f"answer.{checked_node(node)}.{_word(asker)}"


def _word(word: str) -> str:
    if not _WORD.fullmatch(word):
        raise Invalid(f"{word!r} cannot be a word of a routing key")
    return word
