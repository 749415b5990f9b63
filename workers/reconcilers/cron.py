"""A cron entry on a node: its file, for each node that has its account."""

from __future__ import annotations

from ..belonging import expect_account
from ..cron.entry import CronEntry
from ..entry import Difference, Entry, View, said_replaced
from ..host import Host

_SERVES = frozenset({"web", "ssh"})
_PARTS = ("account", "schedule", "command", "limit_seconds", "enabled")


def wanted(entry: Entry) -> CronEntry | None:
    """The entry that this node is to have."""
    spec = entry.spec
    if spec is None or not entry.roles & _SERVES:
        return None
    parts = {part: spec[part] for part in _PARTS}
    return CronEntry(owner=entry.id, name=entry.name, account_id=spec["account_id"], **parts)


class Cron:
    """Makes cron entries real."""

    noun = "cron"

    def compare(self, entry: Entry, host: Host, view: View) -> Difference:
        """See Reconciler. Raises Permanent if an orphan has the name."""
        is_, to_be = host.cron.get(entry.id), wanted(entry)
        replaced = entry.replaced(host.cron.tree.holders(entry.name))
        if is_ == to_be:
            return said_replaced(replaced)
        if not is_ or not to_be:
            return {"entry": "made" if to_be else "removed"}
        changed = [part for part in (*_PARTS, "account_id") if getattr(is_, part) != getattr(to_be, part)]
        return {part: f"{getattr(is_, part)} -> {getattr(to_be, part)}" for part in changed} or {"entry": "changed"}

    def prepare(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. Raises Temporary while the account is not here."""
        want = wanted(entry)
        if want is None:
            return
        host.require(entry.roles & _SERVES)
        expect_account(want.account, want.account_id, host, view)

    def stage(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        for owner in entry.replaced(host.cron.tree.holders(entry.name)):
            host.cron.drop(owner)
        if want := wanted(entry):
            host.cron.put(want)
        else:
            host.cron.drop(entry.id)

    def finish(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. What runs goes on: it is the account's, and ends with it."""

    def verify(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        if wanted(entry):
            host.cron.verify()


RECONCILER = Cron()
