"""A node as directors see it: a real server with a weight. On the node itself there is nothing to do."""

from __future__ import annotations

from ...models.errors import Pending
from ..directing import Directed, is_director
from ..entry import Entry, View
from ..host import Host
from ..host.balance import Server


class Node(Directed):
    """Makes directors know the nodes."""

    noun = "node"
    word = "server"
    parts = ("address", "roles", "weight", "traffic")

    def wanted(self, entry: Entry) -> Server | None:
        """See Directed."""
        spec = entry.spec
        if spec is None or not is_director(entry):
            return None
        return Server(entry.id, entry.name, spec["address"], tuple(spec["roles"]), spec["weight"], spec["traffic"])

    def live(self, entry: Entry, host: Host) -> Server | None:
        """See Directed."""
        return host.director.server(entry.id)

    def finish(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. Persistent clients leave a drained node; open connections are waited for, never cut.

        A client that came in the moment of the drain is met by the next look, as a drain is looked at until it is over.
        """
        if server := self.wanted(entry):
            host.director.align()
            if server.traffic == "drained":
                host.director.expel(entry.id)

    def verify(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. Raises Pending while a drained node has connections and its time is not up."""
        server = self.wanted(entry)
        if server is None or entry.spec is None:
            if is_director(entry):
                host.director.verify_no_server(entry.id)
            return
        host.director.verify_server(server)
        if server.traffic == "drained" and entry.started_seconds < entry.spec["drain_seconds"]:
            left = host.director.connections(entry.id)
            if left:
                raise Pending(f"{left} connection{'s' if left > 1 else ''} left on {entry.name}")


RECONCILER = Node()
