"""A virtual service: an address and port on directors, behind which all nodes of a role serve."""

from __future__ import annotations

from ...models.errors import Permanent
from ..entry import Difference, Entry, View
from ..host import Host
from ..host.balance import Service

#: What `require` is asked for.
_DIRECTOR = frozenset({"director"})
_PARTS = ("address", "port", "role", "persistence_seconds", "scheduler", "check")


def wanted(entry: Entry) -> Service | None:
    """The service that a director is to have."""
    spec = entry.spec
    if spec is None or "director" not in entry.roles:
        return None
    return Service(entry.id, entry.name, **{part: spec[part] for part in _PARTS})


class VirtualService:
    """Makes directors serve addresses."""

    noun = "virtual_service"

    def compare(self, entry: Entry, host: Host, view: View) -> Difference:
        """See Reconciler. Raises Permanent if an orphan has the name."""
        is_, to_be = host.director.service(entry.id), wanted(entry)
        replaced = _replaced(entry, host)
        if is_ == to_be:
            return {"replaced": ", ".join(f"id {owner}" for owner in replaced)} if replaced else {}
        if not is_ or not to_be:
            return {"service": "made" if to_be else "removed"}
        pairs = {part: (getattr(is_, part), getattr(to_be, part)) for part in _PARTS}
        return {part: f"{old} -> {new}" for part, (old, new) in pairs.items() if old != new}

    def prepare(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        if "director" in entry.roles:
            host.require(_DIRECTOR)

    def stage(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        for owner in _replaced(entry, host):
            host.director.drop(owner)
        if service := wanted(entry):
            host.director.put(service)
        else:
            host.director.drop(entry.id)

    def finish(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. A removed service's open connections end by themselves, with the last service at once."""
        if wanted(entry):
            host.director.align()

    def verify(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. Nodes that this director has applied and that have the role must be among the servers."""
        service = wanted(entry)
        if service is None:
            if "director" in entry.roles:
                host.director.verify_no_service(f"{entry.name}.{entry.id}")
            return
        host.director.verify_service(service)
        for node in view.all("node"):
            applied = node.applied_spec or {}
            if service.role in applied.get("roles", ()) and host.director.server(node.id) is None:
                raise Permanent(f"node {node.name} is not among the real servers of {entry.name}")


def _replaced(entry: Entry, host: Host) -> list[int]:
    thing = wanted(entry)
    return host.director.replaced(thing, entry.replaces) if thing else []


RECONCILER = VirtualService()
