"""A virtual service: an address and port on directors, behind which all nodes of a role serve."""

from __future__ import annotations

from ...models.errors import Permanent
from ..directing import Directed, is_director
from ..entry import Entry, View
from ..host import Host
from ..host.balance import Service


class VirtualService(Directed):
    """Makes directors serve addresses."""

    noun = "virtual_service"
    word = "service"
    parts = ("address", "port", "role", "persistence_seconds", "scheduler", "check")

    def wanted(self, entry: Entry) -> Service | None:
        """See Directed."""
        spec = entry.spec
        if spec is None or not is_director(entry):
            return None
        return Service(entry.id, entry.name, **{part: spec[part] for part in self.parts})

    def live(self, entry: Entry, host: Host) -> Service | None:
        """See Directed."""
        return host.director.service(entry.id)

    def finish(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. A removed service's open connections end by themselves, with the last service at once."""
        if self.wanted(entry):
            host.director.align()

    def verify(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. Nodes that this director has applied and that have the role must be among the servers."""
        service = self.wanted(entry)
        if service is None:
            if is_director(entry):
                host.director.verify_no_service(f"{entry.name}.{entry.id}")
            return
        host.director.verify_service(service)
        for node in view.all("node"):
            applied = node.applied_spec or {}
            if service.role in applied.get("roles", ()) and host.director.server(node.id) is None:
                raise Permanent(f"node {node.name} is not among the real servers of {entry.name}")


RECONCILER = VirtualService()
