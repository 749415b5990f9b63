"""A certificate on a node: its file, which Apache finds by the name of the domain and the id of the account."""

from __future__ import annotations

from ...models.errors import Permanent
from ..entry import Difference, Entry, View
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
        return difference | ({"replaced": f"id {replaced}"} if replaced else {})

    def prepare(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        if entry.spec is not None and entry.roles & _WEB:
            host.require(_WEB)

    def stage(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        if replaced := _replaced(entry, host):
            host.tls.drop(replaced)
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


def _replaced(entry: Entry, host: Host) -> int | None:
    """An earlier id that holds the file here. Raises Permanent for one that the entry does not replace: an orphan."""
    file, _ = wanted(entry)
    holder = host.tls.holder(file) if file else None
    if holder in (None, entry.id):
        return None
    if holder is not None and holder > entry.replaces:
        raise Permanent(f"{entry.name} is held here by id {holder}, an orphan that id {entry.id} does not replace")
    return holder


RECONCILER = Certificate()
