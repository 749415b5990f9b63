"""Unix accounts, kept in libnss-extrausers' three files: whole files of our own, no daemon to reload.

A row's owner (the resource id) stands in its GECOS field, so that the machine itself tells whose it is. Files are
written group, shadow, passwd: a user that can be looked up is complete. Dropping goes the other way round.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ...models.errors import Blocked, Permanent
from . import book, files
from .book import ACCESS_GROUPS, Book, User
from .machine import Machine
from .owned import Finding, Owned, check, diff

FOLDER = "/var/lib/extrausers"


class Users:
    """The Daemon of NSS: rows are staged by owner, put at the switch, dropped when the round settles."""

    name = "users"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._staged: dict[int, User | None] = {}
        self._before: dict[int, User | None] = {}
        self._retired: set[int] = set()
        self._read: tuple[tuple[int, ...], Book] | None = None

    def book(self) -> Book:
        """What the files say now; read again only if one was replaced."""
        version = self.version()
        if not self._read or self._read[0] != version:
            self._read = (version, book.parse(*(self._text(name) for name in ("passwd", "shadow", "group"))))
        return self._read[1]

    def version(self) -> tuple[int, ...]:
        """Changes whenever one of the files is replaced or written."""
        numbers: list[int] = []
        for name in ("passwd", "shadow", "group"):
            try:
                found = os.stat(self._path(name))
                numbers += [found.st_ino, found.st_mtime_ns, found.st_size]
            except FileNotFoundError:
                numbers += [0, 0, 0]
        return tuple(numbers)

    def get(self, name: str) -> User | None:
        """The row of this name, whoever owns it."""
        return self.book().users.get(name)

    def of(self, owner: int) -> User | None:
        """The row of this owner."""
        return self.book().owners.get(owner)

    def coming(self, owner: int) -> User | None:
        """The row of this owner as it will be after this round's switch."""
        return self._staged[owner] if owner in self._staged else self.of(owner)

    def ids(self) -> dict[str, int]:
        """Which owner holds which name on this machine."""
        return {name: user.owner for name, user in self.book().users.items()}

    def put(self, user: User) -> None:
        """Stages an account's rows; at the switch they take the place of whoever had the name."""
        self._stage(user.owner, user.locked_out() if user.locked else user)

    def retire(self, owner: int) -> None:
        """Has the owner's rows dropped when the round settles, after every daemon has let go of them."""
        self._retired.add(owner)

    def lock_now(self, owner: int) -> None:
        """Locks an account at once, outside of any round's switch: its name is given to another, or it is suspended."""
        user = self.of(owner)
        if user and not user.locked:
            self._write({**self.book().users, user.name: user.locked_out()})

    def lock(self, owner: int) -> None:
        """Stages an account's rows as locked: no password, key or group of it lets anybody in."""
        if user := self.of(owner):
            self._stage(owner, user.locked_out())

    def known(self, name: str) -> int | None:
        """The uid that the machine itself (NSS) gives for a name; None if it knows none."""
        if not self.machine.real:
            user = self.get(name)
            return user.uid if user else None
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            return None

    def known_access(self, name: str, gid: int) -> set[str]:
        """The ways in that the machine itself (NSS) gives to a name."""
        if not self.machine.real:
            user = self.get(name)
            return {user.access} - {"none"} if user else set()
        groups = os.getgrouplist(name, gid)
        return {mode for mode, (_, number) in ACCESS_GROUPS.items() if number in groups}

    # The contract of a Daemon.

    def changed(self) -> frozenset[int]:
        """See Daemon."""
        live = self.book().owners
        return frozenset(owner for owner, user in self._staged.items() if live.get(owner) != user)

    def validate(self) -> None:
        """Refuses names and numbers that the machine's own users have, or another owner."""
        locals_ = _local(self.machine)
        uids = {user.uid: user.owner for user in self.book().users.values()}
        for owner in sorted(self.changed()):
            user = self._staged[owner]
            if user is None:
                continue
            if user.name in locals_[0] or user.uid in locals_[1]:
                what = f"the node has a user {user.name!r} or uid {user.uid} of its own in /etc/passwd"
                raise Permanent(what, culprit=str(owner))
            if uids.get(user.uid, owner) != owner:
                raise Permanent(f"uid {user.uid} belongs to onehost's id {uids[user.uid]} here", culprit=str(owner))

    def switch(self) -> None:
        """See Daemon."""
        changed = self.changed()
        if not changed:
            return
        users = {name: user for name, user in self.book().users.items() if user.owner not in changed}
        for owner in changed:
            if user := self._staged[owner]:
                users[user.name] = user
        self._write(users)

    def signal(self) -> None:
        """Nothing to tell: NSS reads the files at each look-up."""

    def restore(self, owner: int) -> None:
        """See Daemon. A lock stays: what fails after it must not let anybody in again."""
        self._retired.discard(owner)
        staged = self._staged.get(owner)
        if owner in self._before and not (staged and staged.locked):
            self._staged[owner] = self._before[owner]

    def settle(self) -> None:
        """Drops the retired rows."""
        users = {name: user for name, user in self.book().users.items() if user.owner not in self._retired}
        if len(users) != len(self.book().users):
            self._write(users, order=("passwd", "shadow", "group"))
        self._staged, self._before, self._retired = {}, {}, set()

    def recover(self) -> None:
        """Makes the files and has NSS read them, before systemd's module, which stays last."""
        folder = self.machine.path(FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        if self.machine.real and not _installed():
            raise Blocked("libnss-extrausers is not installed: accounts cannot exist on this node")
        if not all(self._path(name).exists() for name in ("passwd", "shadow", "group")):
            self._write(self.book().users)
        switch = self.machine.path("/etc/nsswitch.conf")
        text = (files.read(switch) or b"passwd: files\ngroup: files\nshadow: files\n").decode()
        files.ensure(switch, with_extrausers(text))

    def start(self) -> None:
        """Nothing to start: there is no daemon."""

    # See Checked.

    def check(self, settled: frozenset[int], known: frozenset[int]) -> list[Finding]:
        """See Checked: row by row, and the shadow file is never shown."""
        wanted = {owner: self._staged.get(owner, self.of(owner)) for owner in settled | known}
        users = {user.name: user for user in wanted.values() if user}
        texts = dict(zip(("passwd", "shadow", "group"), Book(users, ((), (), ())).render(), strict=True))
        things = [Owned(FOLDER, mode=0o755, is_folder=True)]
        found: list[Finding] = []
        for name, text in texts.items():
            path, group = f"{FOLDER}/{name}", _gid("shadow") if name == "shadow" and self.machine.real else 0
            things.append(Owned(path, mode=0o640 if name == "shadow" else 0o644, group=group))
            found += _rows(path, text, self._text(name), {user.name: user.owner for user in users.values()},
                           is_secret=name == "shadow")  # fmt: skip
        return check(self.machine, self.name, things) + [replace(each, daemon=self.name) for each in found]

    def forget(self) -> None:
        """See Checked."""
        self._staged, self._before, self._retired, self._read = {}, {}, set(), None

    def renew(self) -> None:
        """See Checked: the rows of nobody go."""

    def keep_only(self, owners: frozenset[int]) -> None:
        """Drops every row that belongs to none of these, whoever wrote it."""
        rows = {name: user for name, user in self.book().users.items() if user.owner in owners}
        passwd, shadow, group = Book(rows, ((), (), ())).render()
        for name, text in (("passwd", passwd), ("shadow", shadow), ("group", group)):
            self._replace(name, text)

    def _stage(self, owner: int, user: User | None) -> None:
        self._before.setdefault(owner, self.of(owner))
        self._staged[owner] = user

    def _write(self, users: Mapping[str, User], order: tuple[str, ...] = ("group", "shadow", "passwd")) -> None:
        passwd, shadow, group = Book(users, self.book().foreign).render()
        texts = {"passwd": passwd, "shadow": shadow, "group": group}
        for name in order:
            self._replace(name, texts[name])

    def _replace(self, name: str, text: str) -> None:
        path = self._path(name)
        if files.read(path) == text.encode():
            return
        beside = path.with_name(f".{name}.new")
        files.fresh(beside, text, 0o640 if name == "shadow" else 0o644)
        if name == "shadow":
            self.machine.runner.chown(beside, 0, _gid("shadow"))
        os.rename(beside, path)
        files.sync_folder(path.parent)

    def _path(self, name: str) -> Path:
        return self.machine.path(FOLDER) / name

    def _text(self, name: str) -> str:
        return (files.read(self._path(name)) or b"").decode()


def _rows(path: str, wanted: str, found: str, owners: Mapping[str, int], *, is_secret: bool) -> Iterator[Finding]:
    """Rows of one file that are missing, changed, or nobody's."""
    to_be, are = ({line.split(":")[0]: line for line in text.splitlines()} for text in (wanted, found))
    for name, row in to_be.items():
        kind = "row" if name in owners else "content"
        if name not in are:
            yield Finding(kind, f"has no row of {name}", path, owners.get(name, 0))
        elif are[name] != row:
            text = "" if is_secret else diff(row.encode(), are[name].encode())
            yield Finding(kind, f"has a changed row of {name}", path, owners.get(name, 0), diff=text)
    for name in are.keys() - to_be.keys():
        yield Finding("stranger row", f"has a row of {name or 'nobody'}, which is nobody's", path)
    if sorted(found.splitlines()) == sorted(wanted.splitlines()) and found != wanted:
        yield Finding("content", "has its rows in another order", path)
    elif len(found.splitlines()) != len(are):
        yield Finding("content", "has rows twice", path)


def _installed() -> bool:
    """Whether NSS can load the module; Debian 12 and later releases keep it in different folders."""
    return any(
        next(Path("/usr/lib").glob(place), None) for place in ("libnss_extrausers.so.2", "*/libnss_extrausers.so.2")
    )


def with_extrausers(text: str) -> str:
    """nsswitch.conf with extrausers after files (or compat) for passwd, group and shadow; the rest as it was."""
    lines = []
    for line in text.splitlines():
        match = re.match(r"^(passwd|group|shadow):(\s*)(.*)$", line)
        if match and "extrausers" not in match[3].split():
            sources = match[3].split()
            place = 1 + max((i for i, source in enumerate(sources) if source in ("files", "compat")), default=-1)
            sources.insert(place, "extrausers")
            line = f"{match[1]}:{match[2] or ' '}{' '.join(sources)}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _local(machine: Machine) -> tuple[set[str], set[int]]:
    text = (files.read(machine.path("/etc/passwd")) or b"").decode(errors="replace")
    rows = [row for line in text.splitlines() if len(row := line.split(":")) > 3]
    return {row[0] for row in rows}, {int(row[2]) for row in rows if row[2].isdigit()}


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return 0
