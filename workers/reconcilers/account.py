"""An account on a node: its home on storage, its user, keys, PHP pool and site on the nodes that serve it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from ...models.errors import Permanent, Temporary
from ..entry import Difference, Entry, View
from ..host import Host
from ..host import ssh as keys
from ..host.book import NO_PASSWORD, User
from ..host.pool import Pool
from ..host.sessions import Php
from ..host.site import Site, described

_LEVELS = {"none": 0, "sftp": 1, "shell": 2}


@dataclass(frozen=True)
class Wanted:
    """The parts that an account is to have on one node. None: not that part."""

    user: User | None = None
    keys: tuple[str, ...] = ()
    pool: Pool | None = None
    site: Site | None = None
    home: bool = False
    #: Relative to /home/NAME/home; None if no site needs one.
    document_root: str | None = None
    suspended: bool = False


def wanted(entry: Entry) -> Wanted:
    """What the spec means for a node of the entry's roles. A removal wants nothing."""
    spec = entry.spec
    if spec is None:
        return Wanted()
    web, ssh = "web" in entry.roles, "ssh" in entry.roles
    uid, gid, domain, suspended = spec["uid"], spec["gid"], spec["domain"], spec["suspended"]
    password = spec["password_hash"] or NO_PASSWORD
    access = spec["access"] if ssh and not suspended else "none"
    site = Site(entry.id, entry.name, domain, spec["document_root"], spec["php"]) if web and domain else None
    return Wanted(
        user=User(entry.id, entry.name, uid, gid, password, access, locked=suspended) if web or ssh else None,
        keys=tuple(spec["ssh_keys"]) if ssh else (),
        pool=Pool(entry.id, entry.name, uid, gid, spec["shard"]) if site and spec["php"] else None,
        site=site,
        home="storage" in entry.roles,
        document_root=spec["document_root"] if domain else None,
        suspended=suspended,
    )


class Account:
    """Makes accounts real."""

    noun = "account"

    def __init__(self) -> None:
        #: uids of replaced accounts whose processes are to be ended once more after the switch, by new id.
        self._replaced: dict[int, set[int]] = {}

    def act(self, verb: str, entry: Entry, host: Host) -> str:
        """See Acts: `logout` ends shells and file transfers; PHP goes on."""
        if verb != "logout":
            raise Permanent(f"needs a worker that knows account.{verb}")
        spec = entry.applied_spec or {}
        return f"{host.sessions.end(spec['uid'], entry.name, Php.NONE)} processes ended" if spec else "nothing to end"

    def compare(self, entry: Entry, host: Host, view: View) -> Difference:
        """See Reconciler. Raises Permanent if the name is held here by an id that this one does not replace."""
        want = wanted(entry)
        difference = _compare_home(entry, want, host)
        replaced = _replaced(entry, host)
        if replaced:
            difference["replaced"] = ", ".join(f"id {owner}" for owner in sorted(replaced))
        _compare_user(entry, want, host, difference)
        _compare_files(entry, want, host, difference)
        flag = host.apache.suspended(entry.id)
        if flag != (want.site is not None and want.suspended):
            difference["suspended"] = "yes -> no" if flag else "no -> yes"
        return difference

    def prepare(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. A suspension or removal shows from here on, whatever fails later.

        A replaced account is locked out, and its home put away.
        """
        host.require(entry.roles)
        want = wanted(entry)
        for owner in _replaced(entry, host):
            self._lock_out(entry, owner, host)
        if want.home:
            _make_home(entry, want, host)
        elif want.site and not want.suspended and host.homes.owner(entry.name) != entry.id:
            raise Temporary(f"/home/{entry.name} of id {entry.id} is not here: is /home mounted?")
        if want.site:
            _root_state(entry, want, host)
        if (want.site and want.suspended) or (entry.spec is None and host.apache.get(entry.id)):
            host.apache.suspend(entry.id)

    def stage(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        want = wanted(entry)
        for owner in _replaced(entry, host):
            host.php.drop(owner)
            host.apache.drop(owner)
            host.ssh.drop(entry.name, owner)
        if want.user:
            host.users.put(want.user)
        else:
            host.users.lock(entry.id)
        host.ssh.put(entry.name, entry.id, want.keys)
        if want.pool:
            host.php.put(want.pool)
        else:
            host.php.drop(entry.id)
        if want.site:
            host.apache.put(want.site)
        else:
            host.apache.drop(entry.id)

    def finish(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. Processes are ended when nothing can start new ones any more."""
        want = wanted(entry)
        for uid in self._replaced.pop(entry.id, set()):
            host.sessions.end(uid, entry.name)
        user = host.users.of(entry.id)
        if user and want.user is None:
            host.sessions.end(user.uid, entry.name)
        elif user and want.suspended:
            host.sessions.end(user.uid, entry.name, Php.BUSY)
        elif user and _lost_access(entry):
            host.sessions.end(user.uid, entry.name, Php.NONE)
        if want.user is None:
            host.users.retire(entry.id)
        if not (want.site and want.suspended):
            host.apache.resume(entry.id)
        if entry.spec is None and "storage" in entry.roles:
            host.homes.trash(entry.name, entry.id, datetime.now(UTC))

    def verify(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        want = wanted(entry)
        if want.user:
            host.ssh.verify(entry.name, want.user.uid, want.user.gid, want.user.access, sshd="ssh" in entry.roles)
        if want.site:
            host.apache.verify(want.site, want.suspended)
        elif entry.applied_spec and entry.applied_spec.get("domain") and "web" in entry.roles:
            was = entry.applied_spec
            host.apache.verify_gone(Site(entry.id, entry.name, was["domain"], was["document_root"], was["php"]))
        if want.pool and not want.suspended:
            host.php.ping(entry.name, want.pool.shard)

    def _lock_out(self, entry: Entry, owner: int, host: Host) -> None:
        """Ends what a replaced account does, so that nothing of it writes into what the new one gets."""
        if user := host.users.of(owner):
            host.users.lock_now(owner)
            host.sessions.end(user.uid, entry.name, Php.BUSY)
            self._replaced.setdefault(entry.id, set()).add(user.uid)
        host.apache.resume(owner)
        if "storage" in entry.roles:
            host.homes.trash(entry.name, owner, datetime.now(UTC))


def _replaced(entry: Entry, host: Host) -> set[int]:
    """Earlier ids that hold the name here. Raises Permanent for one that the entry does not replace: an orphan."""
    if entry.spec is None:
        return set()
    holders = host.php.holders(entry.name) | host.apache.tree.holders(entry.name)
    user = host.users.get(entry.name)
    found = {user.owner if user else None, host.ssh.holder(entry.name)}
    if "storage" in entry.roles:
        found.add(host.homes.owner(entry.name))
    holders |= {owner for owner in found if owner is not None}
    holders.discard(entry.id)
    for owner in sorted(holders):
        if owner == 0:
            raise Permanent(f"/home/{entry.name} is there already and is not onehost's")
        if owner > entry.replaces:
            raise Permanent(
                f"{entry.name} is held on this node by id {owner}, an orphan that id {entry.id} does not replace"
            )
    return holders


def _compare_home(entry: Entry, want: Wanted, host: Host) -> Difference:
    if "storage" not in entry.roles:
        return {}
    owner = host.homes.owner(entry.name)
    if not want.home:
        return {"home": "moved to the trash"} if owner == entry.id else {}
    if owner != entry.id:
        return {"home": "made"}
    return {"document root": "made"} if _root_state(entry, want, host, strict=False) != "folder" else {}


def _root_state(entry: Entry, want: Wanted, host: Host, *, strict: bool = True) -> str:
    """Whether the document root is a folder or missing. Raises Permanent if it can be neither.

    Only a root that is new to this account is judged: what tenants do later in their own home must not be able to
    stop a suspension or a new password.
    """
    if want.document_root is None or want.suspended:
        return "folder"
    state = host.homes.root_state(entry.name, want.document_root)
    was = entry.applied_spec
    is_new = not (was and was["domain"] and was["document_root"] == want.document_root)
    if state in ("folder", "missing"):
        return state
    if state == "hidden" or not is_new:
        return "folder"
    if strict:
        raise Permanent(state)
    return "missing"


def _make_home(entry: Entry, want: Wanted, host: Host) -> None:
    spec = entry.spec
    assert spec is not None
    if host.homes.owner(entry.name) != entry.id:
        host.homes.make(entry.name, entry.id, spec["uid"], spec["gid"], want.document_root)
    elif want.document_root and _root_state(entry, want, host) == "missing":
        host.homes.make_root(entry.name, spec["uid"], spec["gid"], want.document_root)


def _compare_user(entry: Entry, want: Wanted, host: Host, difference: Difference) -> None:
    is_, to_be = host.users.of(entry.id), want.user
    if is_ == to_be:
        return
    if not is_ or not to_be:
        difference["user"] = "removed" if is_ else "made"
        if to_be and to_be.access != "none":
            difference["access"] = f"none -> {to_be.access}"
        return
    if is_.password != to_be.password:
        difference["password"] = "changed"
    if is_.locked != to_be.locked:
        difference["suspended"] = "no -> yes" if to_be.locked else "yes -> no"
    elif is_.access != to_be.access:
        difference["access"] = f"{is_.access} -> {to_be.access}"
    if (is_.name, is_.uid, is_.gid) != (to_be.name, to_be.uid, to_be.gid):
        difference["user"] = "changed"


def _compare_files(entry: Entry, want: Wanted, host: Host, difference: Difference) -> None:
    is_, to_be = host.ssh.get(entry.name, entry.id), keys.render(entry.id, want.keys)
    _note(difference, "ssh keys", is_, to_be)
    pools = host.php.get(entry.id)
    wanted_pools = {want.pool.shard: want.pool.render()} if want.pool else {}
    if pools != wanted_pools:
        difference["php"] = "changed" if pools and wanted_pools else "on" if wanted_pools else "off"
    is_, to_be = host.apache.get(entry.id), want.site.render() if want.site else None
    _note(difference, "site", is_, to_be)
    if is_ and to_be and described(is_)[0] != described(to_be)[0]:
        difference["site"] = f"{described(is_)[0]} -> {described(to_be)[0]}"


def _note(difference: Difference, part: str, is_: bytes | None, to_be: bytes | None) -> None:
    if is_ != to_be:
        difference[part] = "changed" if is_ and to_be else "made" if to_be else "removed"


def _lost_access(entry: Entry) -> bool:
    was = entry.applied_spec["access"] if entry.applied_spec else "none"
    return entry.spec is not None and _LEVELS[entry.spec["access"]] < _LEVELS[was]


RECONCILER = Account()
