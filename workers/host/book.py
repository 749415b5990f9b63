"""The text of extrausers' three files: an account's rows, and how a whole file is read and rendered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

#: Groups whose members may come in by SSH, with their numbers: below the accounts' own range.
ACCESS_GROUPS = {"shell": ("oh-shell", 19998), "sftp": ("oh-sftp", 19999)}
SHELLS = {"shell": "/bin/bash", "sftp": "/usr/sbin/nologin", "none": "/usr/sbin/nologin"}
#: The accounts' own numbers.
UIDS = range(20000, 60000)
#: In the shadow file: no password fits.
NO_PASSWORD = "*"
#: In the shadow file: the account ended on the first day of 1970, so PAM refuses keys too.
EXPIRED = "1"
_OWNER = re.compile(r"^onehost (\d+)$")


@dataclass(frozen=True)
class User:
    """An account's rows. One that is locked has no access, whatever it had."""

    owner: int
    name: str
    uid: int
    gid: int
    password: str = NO_PASSWORD
    access: str = "none"
    locked: bool = False

    def locked_out(self) -> User:
        """The same account with no way in."""
        return replace(self, access="none", locked=True)

    def lines(self) -> tuple[str, str, str]:
        """Its lines of passwd, shadow and group."""
        shell = SHELLS[self.access]
        shadow = f"!{self.password}::::::{EXPIRED}:" if self.locked else f"{self.password}:::::::"
        return (
            f"{self.name}:x:{self.uid}:{self.gid}:onehost {self.owner}:/home/{self.name}/home:{shell}",
            f"{self.name}:{shadow}",
            f"{self.name}:x:{self.gid}:",
        )


@dataclass(frozen=True)
class Book:
    """The three files, read: our rows by name, and what others wrote, kept as it is."""

    users: Mapping[str, User]
    foreign: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]

    @cached_property
    def owners(self) -> dict[int, User]:
        """Our rows by owner."""
        return {user.owner: user for user in self.users.values()}

    def render(self) -> tuple[str, str, str]:
        """The whole files passwd, shadow and group. The same book gives the same bytes."""
        rows = [self.users[name].lines() for name in sorted(self.users)]
        access = []
        for mode, (group, gid) in ACCESS_GROUPS.items():
            members = sorted(u.name for u in self.users.values() if u.access == mode)
            access.append(f"{group}:x:{gid}:{','.join(members)}")
        parts = [[row[i] for row in rows] for i in range(3)]
        parts[2] = access + parts[2]
        passwd, shadow, group_file = ("".join(f"{line}\n" for line in [*self.foreign[i], *parts[i]]) for i in range(3))
        return passwd, shadow, group_file


def parse(passwd: str, shadow: str, group: str) -> Book:
    """The three files as one book. Rows are ours if their GECOS names an owner; the rest is kept as it is."""
    secrets = {name: rest for name, _, rest in (line.partition(":") for line in shadow.splitlines())}
    members = {row[0]: set(row[3].split(",")) for line in group.splitlines() if len(row := line.split(":")) == 4}
    ways = {mode: members.get(name, set()) for mode, (name, _) in ACCESS_GROUPS.items()}
    users: dict[str, User] = {}
    strangers: list[str] = []
    for line in passwd.splitlines():
        row = line.split(":")
        owner = _OWNER.match(row[4]) if len(row) == 7 else None
        if not owner:
            strangers.append(line)
            continue
        secret = secrets.get(row[0], "").split(":")[0]
        access = next((mode for mode, names in ways.items() if row[0] in names), "none")
        locked = secret.startswith("!")
        users[row[0]] = User(
            int(owner[1]), row[0], int(row[2]), int(row[3]), secret.lstrip("!") or NO_PASSWORD, access, locked=locked
        )
    ours = set(users) | {name for name, _ in ACCESS_GROUPS.values()}
    keep = [tuple(line for line in text.splitlines() if line.split(":")[0] not in ours) for text in (shadow, group)]
    known = {line.split(":")[0] for line in strangers}
    # A shadow line without its passwd line is the rest of a write that a crash cut short.
    shadows = tuple(line for line in keep[0] if line.split(":")[0] in known)
    return Book(users, (tuple(strangers), shadows, tuple(line for line in keep[1] if not _leftover(line))))


def _leftover(line: str) -> bool:
    """Whether a line of the group file has a number of ours: its user is gone, so a crash cut a write short."""
    row = line.split(":")
    return len(row) == 4 and row[2].isdigit() and int(row[2]) in UIDS
