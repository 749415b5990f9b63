"""How full the queues are, who reads them, and what alarms the broker has: a short look through the management API."""

from __future__ import annotations

from typing import Any

from ..models.errors import OnehostError
from ..models.settings import Manager, read_secret
from .management import Management
from .permissions import TOPOLOGY_USER
from .routing import VHOST

#: Longest wait for one answer, in seconds; there are two.
LOOK_SECONDS = 1.0
_QUEUES = "columns=name,messages,consumers"
_NODES = "columns=name,running,mem_alarm,disk_free_alarm,partitions"
#: What the broker calls an alarm, and what it has run out of.
ALARMS = {"mem_alarm": "memory", "disk_free_alarm": "disk"}


def levels(settings: Manager) -> dict[str, Any]:
    """By queue its messages and consumers; alarms as [broker node, "memory" or "disk"]; broker nodes that are down.

    Never raises for a broker that does not answer: `reason` then says why, else it is empty.
    """
    try:
        password = read_secret(settings.secrets / TOPOLOGY_USER)
        management = Management(settings.management, TOPOLOGY_USER, password, LOOK_SECONDS)
        queues, nodes = management.get("queues", VHOST, query=_QUEUES), management.get("nodes", query=_NODES)
    except (OnehostError, OSError) as error:
        why = error.what if isinstance(error, OnehostError) else f"{error.filename}: {error.strerror}"
        return {"reason": why, "queues": {}, "alarms": [], "down": [], "parted": []}
    return {
        "reason": "",
        # A queue that was just made has no numbers yet.
        "queues": {q["name"]: {"messages": q.get("messages", 0), "consumers": q.get("consumers", 0)} for q in queues},
        "alarms": [[node["name"], what] for node in nodes for name, what in ALARMS.items() if node.get(name)],
        "down": [node["name"] for node in nodes if not node.get("running")],
        "parted": [node["name"] for node in nodes if node.get("partitions")],
    }
