"""The cluster's identity on a node: host keys where it has role ssh, the certificate where it serves web or ftp."""

from __future__ import annotations

from ...models.host_keys import KINDS
from ..entry import Difference, Entry, View
from ..host import Host, identity

_SSH = frozenset({"ssh"})
_TLS = frozenset({"web", "ftp"})


def wanted(entry: Entry) -> identity.Contents:
    """The files that this node is to have."""
    spec = entry.spec
    if spec is None:
        return {}
    keys = identity.host_keys(entry.id, {kind: spec[f"ssh_{kind}"] for kind in KINDS}) if entry.roles & _SSH else {}
    tls = identity.certificate(entry.id, spec["tls_key"], spec["tls_certificate"]) if entry.roles & _TLS else {}
    return {**keys, **tls}


class Identity:
    """Makes nodes look alike."""

    noun = "identity"

    def compare(self, entry: Entry, host: Host, view: View) -> Difference:
        """See Reconciler. No key is shown."""
        live, to_be = host.identity.live(), wanted(entry)
        difference: Difference = {}
        for part, path in (("host keys", identity.CONFIG), ("certificate", identity.CERTIFICATE)):
            paths = [path] if path == identity.CERTIFICATE else [*identity.KEYS.values(), path]
            is_, will_be = ({each: files[each] for each in paths if each in files} for files in (live, to_be))
            if is_ != will_be and not (path == identity.CERTIFICATE and not will_be):
                difference[part] = "changed" if is_ and will_be else "made" if will_be else "removed"
        return difference

    def prepare(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        if entry.spec is not None:
            host.require(entry.roles & (_SSH | _TLS))

    def stage(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        host.identity.put(entry.id, wanted(entry))

    def finish(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. Sessions that run go on under the old keys."""

    def verify(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        if entry.spec is not None and entry.roles & _SSH:
            host.identity.verify({kind: entry.spec[f"ssh_{kind}_public"] for kind in KINDS})


RECONCILER = Identity()
