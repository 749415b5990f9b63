"""A domain on a node: its folder on storage, its site on the nodes that serve the web."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError

from ...models import names
from ...models.errors import Permanent, Temporary
from ..entry import Difference, Entry, Spec, View, said_replaced
from ..host import Host
from ..host.book import User
from ..host.site import Site, label

#: What a difference calls each of a site's files.
_PARTS = {"conf": "site", "override": "override", "users": "protected users"}


def site(entry: Entry, spec: Spec) -> Site:
    """The site that a spec means."""
    return Site(
        owner=entry.id,
        account=spec["account"],
        account_id=spec["account_id"],
        domain=entry.name,
        document_root=_root(entry, spec),
        php=spec["php"] and not spec["redirect"],
        aliases=tuple(spec["aliases"]),
        redirect=spec["redirect"],
        redirect_status=spec["redirect_status"],
        php_settings=tuple(spec["php_settings"]),
        protected_paths=tuple(spec["protected_paths"]),
        # None on the way to a removal, when the manager has forgotten what was secret.
        protected_users=tuple(spec["protected_users"] or ()),
        override=tuple(spec["override"]),
    )


class Domain:
    """Makes domains real."""

    noun = "domain"

    def adopt(self, entry: Entry, host: Host) -> tuple[dict[str, Any], str]:
        """See Adopts: the override, which is an operator's own text."""
        if entry.spec is None or "web" not in entry.roles:
            return {}, ""
        is_, to_be = host.apache.files(entry.id), site(entry, entry.spec).render()
        names = [name for name in to_be if not name.endswith(".override")]
        differ = [name for name in names if is_.get(name) != to_be[name]]
        why_not = "a site's file is made of its spec; what is yours belongs into its override" if differ else ""
        text = next((text for name, text in is_.items() if name.endswith(".override")), b"")
        lines = text.decode(errors="replace").splitlines()
        return ({"override": lines} if tuple(lines) != tuple(entry.spec["override"]) else {}), why_not

    def compare(self, entry: Entry, host: Host, view: View) -> Difference:
        """See Reconciler. Raises Permanent if the name is held here by an id that this one does not replace."""
        difference: Difference = {}
        spec = entry.spec
        is_here = spec and "storage" in entry.roles and host.homes.owner(spec["account"]) == spec["account_id"]
        if spec and is_here and _needs_root(entry, spec, host):
            difference["document root"] = "made"
        if "web" not in entry.roles:
            return difference
        difference |= said_replaced(entry.replaced(host.apache.tree.holders(label(entry.name))))
        _compare_files(host.apache.files(entry.id), site(entry, spec).render() if spec else {}, difference)
        flag, wanted = host.apache.suspended(entry.id), bool(spec and spec["suspended"])
        if flag != wanted:
            difference["suspended"] = "yes -> no" if flag else "no -> yes"
        return difference

    def prepare(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. A suspension or removal shows from here on, whatever fails later."""
        spec = entry.spec
        if "web" in entry.roles:
            host.require(frozenset({"web"}))
        self.hurry(entry, host)
        if spec is None:
            return
        if not spec["suspended"]:
            _require_home(spec, host)
            if _needs_root(entry, spec, host) and "storage" in entry.roles:
                host.homes.want_root(spec["account"], spec["uid"], spec["gid"], str(_root(entry, spec)))

    def hurry(self, entry: Entry, host: Host) -> None:
        """See Hurries: the notice instead of the site."""
        if "web" in entry.roles and (entry.spec["suspended"] if entry.spec else host.apache.files(entry.id)):
            host.apache.suspend(entry.id)

    def stage(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. Folders are made here, all that a round wants of one account in one go."""
        if entry.spec and "storage" in entry.roles:
            host.homes.make_wanted(entry.spec["account"], str(_root(entry, entry.spec)))
        if "web" not in entry.roles:
            return
        for owner in entry.replaced(host.apache.tree.holders(label(entry.name))):
            host.apache.drop(owner)
        if entry.spec:
            # An account of the same round has staged its rows before.
            _require_account(entry.spec, host.users.coming(entry.spec["account_id"]))
            host.apache.put(entry.id, site(entry, entry.spec).render())
        else:
            host.apache.drop(entry.id)

    def finish(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        if "web" in entry.roles and not (entry.spec and entry.spec["suspended"]):
            host.apache.resume(entry.id)

    def verify(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        if "web" not in entry.roles:
            return
        if entry.spec:
            _require_account(entry.spec, host.users.of(entry.spec["account_id"]))
            host.apache.verify(site(entry, entry.spec), entry.spec["suspended"])
        elif entry.applied_spec:
            host.apache.verify_gone(site(entry, entry.applied_spec))


def _root(entry: Entry, spec: Spec) -> str | None:
    """The folder it shows, below the account's; None for a redirect. Raises Permanent if no folder is called so."""
    if spec["redirect"]:
        return None
    try:
        return names.document_root(spec["document_root"] or names.folder_of(entry.name))
    except ValidationError as error:
        raise Permanent(f"document root of domain {entry.name!r} {error.messages[0]}") from error


def _require_account(spec: Spec, user: User | None) -> None:
    """Raises Temporary while the account is not here: its own job may still be on the way."""
    if user is None:
        raise Temporary(f"account {spec['account']} of id {spec['account_id']} is not on this node yet")


def _require_home(spec: Spec, host: Host) -> None:
    if host.homes.owner(spec["account"]) != spec["account_id"]:
        raise Temporary(f"/home/{spec['account']} of id {spec['account_id']} is not here: is /home mounted?")


def _needs_root(entry: Entry, spec: Spec, host: Host) -> bool:
    root, was = _root(entry, spec), entry.applied_spec
    if root is None or spec["suspended"]:
        return False
    return host.homes.needs_root(spec["account"], root, bool(was and _root(entry, was) == root))


def _compare_files(is_: dict[str, bytes], to_be: dict[str, bytes], difference: Difference) -> None:
    for suffix, part in _PARTS.items():
        was, wanted = (
            next((text for name, text in each.items() if name.endswith(f".{suffix}")), None) for each in (is_, to_be)
        )
        if was != wanted:
            difference[part] = "changed" if was and wanted else "made" if wanted else "removed"


RECONCILER = Domain()
