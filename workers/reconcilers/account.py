"""An account on a node: its home on storage, its user, keys, PHP pool and site on the nodes that serve it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ...models.errors import Permanent, Temporary
from ..account_parts import Wanted, access_of, site_of, wanted
from ..entry import Difference, Entry, View, said_replaced
from ..host import Host
from ..host.sessions import Php
from ..host.site import domain_of, memory_file

_LEVELS = {"none": 0, "sftp": 1, "shell": 2}


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

    def adopt(self, entry: Entry, host: Host) -> tuple[dict[str, Any], str]:
        """See Adopts: a way in, and the keys of the account's own list. A password would have to leave the node."""
        want, fields, why_not = wanted(entry), dict[str, Any](), ""
        is_ = host.users.of(entry.id)
        if is_ and want.user and not want.suspended and not is_.locked:
            fields |= {"access": is_.access} if is_.access != want.user.access else {}
            if is_.password != want.user.password:
                why_not = "a password stays on the node; set it with: onehost account passwd"
        keys = host.ssh.get(entry.name, entry.id)
        if "ssh" in entry.roles and keys != want.keys:
            fields["ssh_keys"] = list(keys)
        return fields, why_not

    def compare(self, entry: Entry, host: Host, view: View) -> Difference:
        """See Reconciler. Raises Permanent if the name is held here by an id that this one does not replace."""
        want = wanted(entry)
        difference = _compare_home(entry, want, host)
        if _lacks_sessions(entry, want, host):
            difference["sessions"] = "made"
        difference |= said_replaced(_replaced(entry, host))
        _compare_user(entry, want, host, difference)
        _compare_files(entry, want, host, difference)
        flag = host.apache.suspended(entry.id)
        if flag != want.notice or _is_ftp_locked(entry, host) not in (None, want.suspended):
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
            _needs_root(entry, want, host)
        if entry.spec and _lacks_sessions(entry, want, host):
            host.homes.make_sessions(entry.name, entry.spec["uid"], entry.spec["gid"])
        _hide(entry, want, host)

    def hurry(self, entry: Entry, host: Host) -> None:
        """See Hurries: no page, no new login, and what runs is ended."""
        want, user = wanted(entry), host.users.of(entry.id)
        _hide(entry, want, host)
        if user and (want.suspended or entry.spec is None):
            host.users.lock_now(entry.id)
            host.sessions.end(user.uid, entry.name, Php.BUSY)

    def stage(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        want = wanted(entry)
        for owner in _replaced(entry, host):
            host.php.drop(owner)
            host.apache.drop(owner)
            host.ssh.drop(entry.name, owner)
            host.ftp.drop(owner)
        if want.user:
            host.users.put(want.user)
        else:
            host.users.lock(entry.id)
        if entry.spec is None:
            host.ssh.drop(entry.name, entry.id)
        else:
            host.ssh.put(entry.name, entry.id, want.keys)
        if want.ftp:
            host.ftp.put(want.ftp)
        else:
            host.ftp.drop(entry.id)
        if want.pool:
            host.php.put(want.pool)
        else:
            host.php.drop(entry.id)
        host.apache.put(entry.id, want.web)

    def finish(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. Processes are ended when nothing can start new ones any more."""
        want = wanted(entry)
        for uid in self._replaced.pop(entry.id, set()):
            host.sessions.end(uid, entry.name)
            host.ftp.forget_lock(uid)
        user = host.users.of(entry.id)
        if user and want.user is None:
            host.sessions.end(user.uid, entry.name)
        elif user and want.suspended:
            host.sessions.end(user.uid, entry.name, Php.BUSY)
        elif user and _lost_access(entry):
            host.sessions.end(user.uid, entry.name, Php.NONE)
        if (uid := _ftp_uid(entry, host)) and entry.spec is None:
            host.ftp.forget_lock(uid)
        elif uid and not want.suspended:
            host.ftp.unlock(uid)
        if want.user is None:
            host.users.retire(entry.id)
        if not want.notice:
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
            host.apache.verify_gone(site_of(entry, entry.applied_spec))
        if want.ftp:
            host.ftp.verify(want.ftp)
        if want.pool and not want.suspended:
            host.php.ping(entry.name, want.pool.shard)

    def _lock_out(self, entry: Entry, owner: int, host: Host) -> None:
        """Ends what a replaced account does, so that nothing of it writes into what the new one gets."""
        if user := host.users.of(owner):
            host.users.lock_now(owner)
            if "ftp" in entry.roles:
                host.ftp.lock(user.uid)
            host.sessions.end(user.uid, entry.name, Php.BUSY)
            self._replaced.setdefault(entry.id, set()).add(user.uid)
        host.apache.resume(owner)
        if "storage" in entry.roles:
            host.homes.trash(entry.name, owner, datetime.now(UTC))


def _hide(entry: Entry, want: Wanted, host: Host) -> None:
    """A suspension or removal shows as the notice, and locks FTP."""
    if want.notice or (entry.spec is None and host.apache.files(entry.id)):
        host.apache.suspend(entry.id)
    if (uid := _ftp_uid(entry, host)) and (want.suspended or entry.spec is None):
        host.ftp.lock(uid)


def _replaced(entry: Entry, host: Host) -> list[int]:
    """Earlier ids that hold the name here. Raises Permanent for an orphan, or a home that is not ours."""
    if entry.spec is None:
        return []
    holders = host.php.holders(entry.name) | host.apache.tree.holders(entry.name)
    user = host.users.get(entry.name)
    holders |= host.ssh.holders(entry.name) | host.ftp.holders(entry.name)
    found = {user.owner if user else None}
    if "storage" in entry.roles:
        found.add(host.homes.owner(entry.name))
    holders |= {owner for owner in found if owner is not None}
    if 0 in holders:
        raise Permanent(f"/home/{entry.name} is there already and is not onehost's")
    return entry.replaced(holders)


def _compare_home(entry: Entry, want: Wanted, host: Host) -> Difference:
    if "storage" not in entry.roles:
        return {}
    owner = host.homes.owner(entry.name)
    if not want.home:
        return {"home": "moved to the trash"} if owner == entry.id else {}
    if owner != entry.id:
        return {"home": "made"}
    return {"document root": "made"} if _needs_root(entry, want, host) else {}


def _needs_root(entry: Entry, want: Wanted, host: Host) -> bool:
    """Whether the document root is to be made. Raises Permanent if it cannot be one and is new to this account."""
    if want.document_root is None or want.suspended:
        return False
    was = entry.applied_spec
    is_known = bool(was and was["domain"] and was["document_root"] == want.document_root)
    return host.homes.needs_root(entry.name, want.document_root, is_known)


def _lacks_sessions(entry: Entry, want: Wanted, host: Host) -> bool:
    """Whether PHP has no place for sessions in a home of this account. A suspended one gets it later, if at all."""
    if want.suspended or not (want.home or want.pool) or host.homes.owner(entry.name) != entry.id:
        return False
    return host.homes.lacks_sessions(entry.name)


def _make_home(entry: Entry, want: Wanted, host: Host) -> None:
    spec = entry.spec
    assert spec is not None
    if host.homes.owner(entry.name) != entry.id:
        host.homes.make(entry.name, entry.id, spec["uid"], spec["gid"], want.document_root)
    elif want.document_root and _needs_root(entry, want, host):
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
    _note(difference, "ssh keys", host.ssh.get(entry.name, entry.id), want.keys)
    is_, to_be = host.ftp.of(entry.id), want.ftp
    if not is_ or not to_be:
        _note(difference, "ftp", is_, to_be)
    pools = host.php.get(entry.id)
    wanted_pools = {want.pool.shard: want.pool.render()} if want.pool else {}
    if pools != wanted_pools:
        difference["php"] = "changed" if pools and wanted_pools else "on" if wanted_pools else "off"
    found, wanted_files = host.apache.files(entry.id), dict(want.web)
    was, will_be = domain_of(found), want.site.domain if want.site else ""
    (memory,) = memory_file(entry.name, entry.id, 1)
    if found.pop(memory, None) != wanted_files.pop(memory, None):
        difference.setdefault("php", "changed")
    _note(difference, "site", found, wanted_files)
    if was and will_be and was != will_be:
        difference["site"] = f"{was} -> {will_be}"


def _note(difference: Difference, part: str, is_: object, to_be: object) -> None:
    if is_ != to_be:
        difference[part] = "changed" if is_ and to_be else "made" if to_be else "removed"


def _ftp_uid(entry: Entry, host: Host) -> int:
    """The uid whose FTP logins this node has; 0 if it has none of them."""
    if "ftp" not in entry.roles:
        return 0
    user = host.users.of(entry.id)
    return int(entry.spec["uid"]) if entry.spec else user.uid if user else 0


def _is_ftp_locked(entry: Entry, host: Host) -> bool | None:
    uid = _ftp_uid(entry, host)
    return host.ftp.is_locked(uid) if uid and entry.spec else None


def _lost_access(entry: Entry) -> bool:
    was, spec = entry.applied_spec, entry.spec
    if spec is None or was is None:
        return False
    return _LEVELS[access_of(spec)] < _LEVELS[access_of(was)] or (was.get("ftp", True) and not spec.get("ftp", True))


RECONCILER = Account()
