"""What the broker has of onehost, read through the management API. What is not onehost's is never seen here."""

from __future__ import annotations

from typing import Any

from .desired import binding_name, permission_name, topic_permission_name
from .management import Management
from .permissions import GUEST_USER, MANAGER_USERS
from .routing import ANSWER_QUEUE_PREFIX, VHOST, node_of_user
from .state import Content, Kind, State

_PREFIX = "onehost."
_VHOST_KINDS = (Kind.EXCHANGE, Kind.POLICY, Kind.QUEUE, Kind.BINDING)


def observe(management: Management) -> State:
    """Everything of onehost on the broker. Raises what Management raises."""
    has_vhost = any(vhost["name"] == VHOST for vhost in management.get("vhosts", query="columns=name"))
    objects: dict[Kind, dict[str, Content]] = {Kind.VHOST: {VHOST: {}} if has_vhost else {}}
    objects |= _roads(management) if has_vhost else {kind: {} for kind in _VHOST_KINDS}
    return State({**objects, **_users(management)})


def _roads(management: Management) -> dict[Kind, dict[str, Content]]:
    exchanges = management.get("exchanges", VHOST, query="columns=name,type,durable,auto_delete,internal,arguments")
    queues = management.get("queues", VHOST, query="columns=name,durable,auto_delete,arguments,members,messages")
    return {
        Kind.EXCHANGE: {e["name"]: e for e in exchanges if _is_ours(e["name"])},
        Kind.POLICY: {p["name"]: p for p in management.get("policies", VHOST) if _is_ours(p["name"])},
        Kind.QUEUE: {q["name"]: q for q in queues if _is_ours(q["name"])},
        Kind.BINDING: {_binding_name(b): b for b in management.get("bindings", VHOST) if _is_our_binding(b)},
    }


def _users(management: Management) -> dict[Kind, dict[str, Content]]:
    users = [user for user in management.get("users") if _is_our_user(user["name"])]
    permissions = [p for p in management.get("permissions") if _is_our_user(p["user"])]
    topics = [t for t in management.get("topic-permissions") if _is_our_user(t["user"])]
    limits = [entry for entry in management.get("user-limits") if _is_our_user(entry["user"])]
    return {
        Kind.USER: {user["name"]: {"tags": _tags(user["tags"])} for user in users},
        Kind.PERMISSION: {permission_name(p["user"], p["vhost"]): p for p in permissions},
        Kind.TOPIC_PERMISSION: {topic_permission_name(t["user"], t["vhost"], t["exchange"]): t for t in topics},
        Kind.LIMITS: {entry["user"]: {"user": entry["user"], **entry["value"]} for entry in limits if entry["value"]},
        Kind.CREDENTIAL: {user["name"]: {"user": user["name"], **user} for user in users},
    }


def _is_ours(name: str) -> bool:
    return name.startswith(_PREFIX) and not name.startswith(ANSWER_QUEUE_PREFIX)


def _is_our_user(name: str) -> bool:
    return name in MANAGER_USERS or name == GUEST_USER or bool(node_of_user(name))


def _is_our_binding(binding: Any) -> bool:
    if binding["source"] == "" or binding["destination"].startswith(ANSWER_QUEUE_PREFIX):
        return False
    return _is_ours(binding["source"]) or _is_ours(binding["destination"])


def _binding_name(binding: Any) -> str:
    """As in desired.py for what could be desired; another name for what never is."""
    name = binding_name(binding["source"], binding["destination"], binding["routing_key"])
    if binding["arguments"] or binding["destination_type"] != "queue":
        name += f" ({binding['destination_type']} {binding['properties_key']})"
    return name


def _tags(tags: str | list[str]) -> list[str]:
    return sorted(tag for tag in (tags.split(",") if isinstance(tags, str) else tags) if tag)
