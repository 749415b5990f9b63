"""A node as directors see it: a real server with a weight. On the node itself there is nothing to do."""

from __future__ import annotations

from ...models.errors import Pending
from ..entry import Difference, Entry, View
from ..host import Host
from ..host.balance import Server

#: What `require` is asked for.
_DIRECTOR = frozenset({"director"})


def wanted(entry: Entry) -> Server | None:
    """The server that a director is to have for this node."""
    spec = entry.spec
    if spec is None or "director" not in entry.roles:
        return None
    return Server(entry.id, entry.name, spec["address"], tuple(spec["roles"]), spec["weight"], spec["traffic"])


class Node:
    """Makes directors know the nodes."""

    noun = "node"

    def compare(self, entry: Entry, host: Host, view: View) -> Difference:
        """See Reconciler. Raises Permanent if an orphan has the name."""
        is_, to_be = host.director.server(entry.id), wanted(entry)
        replaced = _replaced(entry, host)
        if is_ == to_be:
            return {"replaced": ", ".join(f"id {owner}" for owner in replaced)} if replaced else {}
        if not is_ or not to_be:
            return {"server": "made" if to_be else "removed"}
        parts = ("address", "roles", "weight", "traffic")
        pairs = {part: (_words(getattr(is_, part)), _words(getattr(to_be, part))) for part in parts}
        return {part: f"{old} -> {new}" for part, (old, new) in pairs.items() if old != new}

    def prepare(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        if "director" in entry.roles:
            host.require(_DIRECTOR)

    def stage(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        for owner in _replaced(entry, host):
            host.director.drop(owner)
        if server := wanted(entry):
            host.director.put(server)
        else:
            host.director.drop(entry.id)

    def finish(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. Persistent clients leave a drained node; open connections are waited for, never cut.

        A client that came in the moment of the drain is met by the next look, as a drain is looked at until it is over.
        """
        if server := wanted(entry):
            host.director.align()
            if server.traffic == "drained":
                host.director.expel(entry.id)

    def verify(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. Raises Pending while a drained node has connections and its time is not up."""
        server = wanted(entry)
        if server is None or entry.spec is None:
            if "director" in entry.roles:
                host.director.verify_no_server(entry.id)
            return
        host.director.verify_server(server)
        if server.traffic == "drained" and entry.started_seconds < entry.spec["drain_seconds"]:
            left = host.director.connections(entry.id)
            if left:
                raise Pending(f"{left} connection{'s' if left > 1 else ''} left on {entry.name}")


def _replaced(entry: Entry, host: Host) -> list[int]:
    thing = wanted(entry)
    return host.director.replaced(thing, entry.replaces) if thing else []


def _words(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


RECONCILER = Node()
