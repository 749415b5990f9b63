"""An FTP login on a node: its row in ProFTPD's file; on storage, the folder that it is locked in."""

from __future__ import annotations

from ...models.errors import Temporary
from ..belonging import expect_account
from ..entry import Difference, Entry, View, said_replaced
from ..host import Host
from ..host.ftp_rows import FtpLogin as Row

_FTP = frozenset({"ftp"})
#: What a running session is held to: if one of them changes, it must come in anew.
_BOUNDS = ("folder", "read_only", "suspended", "uid")


def wanted(entry: Entry) -> Row | None:
    """The row that this node is to have; none without a password."""
    spec = entry.spec
    if spec is None or not entry.roles & _FTP or not spec["password_hash"]:
        return None
    return Row(
        entry.id, entry.name, spec["account"], spec["uid"], spec["gid"], spec["password_hash"], spec["folder"] or "",
        spec["read_only"], spec["suspended"],
    )  # fmt: skip


class FtpLogin:
    """Makes FTP logins real."""

    noun = "ftp_login"

    def __init__(self) -> None:
        #: Rows of before the switch whose sessions are to be ended after it, by id.
        self._ending: dict[int, list[Row]] = {}

    def compare(self, entry: Entry, host: Host, view: View) -> Difference:
        """See Reconciler. Raises Permanent if an orphan has the name."""
        difference = {"folder": "made"} if not _has_home(entry, host) or _needs_folder(entry, host) else {}
        is_, to_be = host.ftp.of(entry.id), wanted(entry)
        difference |= said_replaced(entry.replaced(host.ftp.holders(entry.name)))
        if not is_ or not to_be:
            return difference | ({"login": "made" if to_be else "removed"} if is_ or to_be else {})
        if is_.password != to_be.password:
            difference["password"] = "changed"
        for part in ("folder", "read_only", "suspended"):
            was, will_be = getattr(is_, part), getattr(to_be, part)
            if was != will_be:
                difference[part] = f"{_said(was)} -> {_said(will_be)}"
        if (is_.login, is_.uid, is_.gid) != (to_be.login, to_be.uid, to_be.gid):
            difference["login"] = "changed"
        return difference

    def prepare(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. Raises Temporary while the account is not here."""
        spec = entry.spec
        if spec is not None and entry.roles & _FTP:
            host.require(_FTP)
            expect_account(spec["account"], spec["account_id"], host, view)
        if spec is not None and not _has_home(entry, host):
            raise Temporary(f"/home/{spec['account']} of id {spec['account_id']} is not here yet")
        if spec is not None and _needs_folder(entry, host):
            host.homes.make_root(spec["account"], spec["uid"], spec["gid"], spec["folder"], page=False)

    def stage(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        want = wanted(entry)
        replaced = entry.replaced(host.ftp.holders(entry.name))
        gone = [host.ftp.of(owner) for owner in (entry.id, *replaced)]
        self._ending[entry.id] = [row for row in gone if row and _is_narrowed(row, want)]
        for owner in replaced:
            host.ftp.drop(owner)
        if want:
            host.ftp.put(want)
        else:
            host.ftp.drop(entry.id)

    def finish(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. A session goes on as it began, so one that would get other bounds now is ended."""
        for row in self._ending.pop(entry.id, []):
            host.ftp.end(row)
        was = entry.applied_spec
        if entry.spec is None and was and entry.roles & _FTP and host.users.of(was["account_id"]) is None:
            # The account went first, and left its lock for the sake of this login.
            host.ftp.forget_lock(was["uid"])

    def verify(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        if want := wanted(entry):
            host.ftp.verify(want)


def _is_narrowed(row: Row, want: Row | None) -> bool:
    return want is None or row.owner != want.owner or any(getattr(row, p) != getattr(want, p) for p in _BOUNDS)


def _needs_folder(entry: Entry, host: Host) -> bool:
    """Whether the folder is to be made. Raises Permanent if something else stands there."""
    spec = entry.spec
    if spec is None or "storage" not in entry.roles or not spec["folder"]:
        return False
    was = entry.applied_spec
    is_known = bool(was and was["folder"] == spec["folder"])
    return host.homes.needs_root(spec["account"], spec["folder"], is_known)


def _has_home(entry: Entry, host: Host) -> bool:
    """Whether the account's home is there, on a node that makes folders in it."""
    spec = entry.spec
    if spec is None or "storage" not in entry.roles or not spec["folder"]:
        return True
    return bool(host.homes.owner(spec["account"]) == spec["account_id"])


def _said(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value or "the whole home")


RECONCILER = FtpLogin()
