"""Carries out the steps of a difference, one call of the management API each, in the order they come in."""

from __future__ import annotations

from collections.abc import Iterable

from ..models.errors import Unreachable
from .credentials import NO_PASSWORD
from .leaders import delete
from .management import Management
from .replicas import add_replica
from .routing import VHOST, node_of_user
from .state import Content, Kind, Step, Verb


def apply(management: Management, steps: Iterable[Step]) -> None:
    """Carry out steps as `difference` ordered them. Every step may be repeated.

    Raises Unreachable, Invalid or Refused at the first one that does not work; a later difference finds the rest.
    """
    steps = list(steps)
    # What an exchange or a queue is cannot be changed; what was in it is sent again from the store.
    delete(management, [step.name for step in steps if step.verb is Verb.CHANGE and step.kind is Kind.QUEUE])
    for step in steps:
        if step.verb is Verb.REMOVE:
            _remove(management, step)
        else:
            _make(management, step)


def _make(management: Management, step: Step) -> None:
    name, content = step.name, step.content
    match step.kind:
        case Kind.VHOST:
            management.put("vhosts", name, body={})
        case Kind.EXCHANGE | Kind.QUEUE:
            section = _SECTIONS[step.kind]
            if step.verb is Verb.CHANGE and step.kind is Kind.EXCHANGE:
                management.delete(section, VHOST, name)
            management.put(section, VHOST, name, body=dict(content))
        case Kind.POLICY:
            management.put("policies", VHOST, name, body=dict(content))
        case Kind.REPLICA:
            add_replica(management, step)
        case Kind.BINDING:
            body = {"routing_key": content["routing_key"], "arguments": content["arguments"]}
            management.post("bindings", VHOST, "e", content["source"], "q", content["destination"], body=body)
        case _:
            _make_of_user(management, step)


def _make_of_user(management: Management, step: Step) -> None:
    name, content = step.name, step.content
    match step.kind:
        case Kind.USER:
            _make_user(management, step)
            return
        case Kind.CREDENTIAL:
            _set_credential(management, content)
        case Kind.PERMISSION:
            management.put("permissions", content["vhost"], content["user"], body=dict(content))
        case Kind.TOPIC_PERMISSION:
            management.put("topic-permissions", content["vhost"], content["user"], body=dict(content))
        case Kind.LIMITS:
            for limit in content.keys() - {"user"}:
                management.put("user-limits", name, limit, body={"value": content[limit]})
    if step.verb is Verb.CHANGE and node_of_user(content["user"]):
        # Channels remember rights, and connections the old password's: both end with the connection.
        close_connections(management, content["user"])


def _make_user(management: Management, step: Step) -> None:
    """A new user cannot log in yet: rights come first, the credential last. One that exists keeps its credential."""
    found = {"password_hash": NO_PASSWORD}
    if step.verb is Verb.CHANGE:
        found = management.get("users", step.name)
    body = {"password_hash": found["password_hash"], "tags": ",".join(step.content["tags"])}
    management.put("users", step.name, body=body)


def _set_credential(management: Management, content: Content) -> None:
    tags = management.get("users", content["user"])["tags"]
    body = {
        "password_hash": content["password_hash"],
        "hashing_algorithm": content["hashing_algorithm"],
        "tags": tags if isinstance(tags, str) else ",".join(tags),
    }
    management.put("users", content["user"], body=body)


def _remove(management: Management, step: Step) -> None:
    name, content = step.name, step.content
    match step.kind:
        case Kind.EXCHANGE | Kind.QUEUE | Kind.POLICY:
            management.delete(_SECTIONS[step.kind], VHOST, name)
        case Kind.BINDING:
            kind = "q" if content["destination_type"] == "queue" else "e"
            key = content["properties_key"]
            management.delete("bindings", VHOST, "e", content["source"], kind, content["destination"], key)
        case Kind.USER:
            # The user first: its worker would be back at once otherwise.
            management.delete("users", name)
            close_connections(management, name)
        case Kind.PERMISSION:
            management.delete("permissions", content["vhost"], content["user"])
        case Kind.TOPIC_PERMISSION:
            management.delete("topic-permissions", content["vhost"], content["user"], content["exchange"])
        case Kind.LIMITS:
            for limit in content.keys() - {"user"}:
                management.delete("user-limits", name, limit)


def close_connections(management: Management, user: str) -> None:
    """End every connection of a user, also those that the broker's statistics do not show yet."""
    try:
        management.delete("connections", "username", user)
    except Unreachable:
        # 500 where one of them ended by itself at that moment: the next call finds it gone.
        management.delete("connections", "username", user)


_SECTIONS = {Kind.EXCHANGE: "exchanges", Kind.QUEUE: "queues", Kind.POLICY: "policies"}
