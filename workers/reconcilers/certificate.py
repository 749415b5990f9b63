"""A certificate on a node: its file, which Apache finds by the name of the domain and the id of the account."""

from __future__ import annotations

from ..entry import Difference, Entry, View, said_replaced
from ..host import Host, tls

_WEB = frozenset({"web"})


def wanted(entry: Entry) -> tuple[str, bytes]:
    """Name and content of the file that this node is to have; empty: none."""
    spec = entry.spec
    if spec is None or not entry.roles & _WEB:
        return "", b""
    return tls.file_of(entry.name, spec["account_id"]), tls.render(entry.id, spec["key"], spec["certificate"])


class Certificate:
    """Makes certificates real."""

    noun = "certificate"

    def compare(self, entry: Entry, host: Host, view: View) -> Difference:
        """See Reconciler. Raises Permanent if an orphan has the name."""
        is_, to_be = host.tls.of(entry.id), wanted(entry)
        replaced = _replaced(entry, host)
        if is_ == to_be:
            return {}
        difference = {"certificate": "changed" if is_[0] and to_be[0] else "made" if to_be[0] else "removed"}
        return difference | said_replaced(replaced)

    def prepare(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        if entry.spec is not None and entry.roles & _WEB:
            host.require(_WEB)

    def stage(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        for owner in _replaced(entry, host):
            host.tls.drop(owner)
        file, content = wanted(entry)
        if file:
            host.tls.put(entry.id, file, content)
        else:
            host.tls.drop(entry.id)

    def finish(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        host.tls.tell()

    def verify(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        file, content = wanted(entry)
        if file:
            host.tls.verify(entry.name, content)


def _replaced(entry: Entry, host: Host) -> list[int]:
    file, _ = wanted(entry)
    holder = host.tls.holder(file) if file else None
    return entry.replaced([] if holder is None else [holder])


RECONCILER = Certificate()
