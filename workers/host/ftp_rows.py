"""The text of ProFTPD's file of logins: a row for each, and how the whole file is read and rendered."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ...models.errors import Permanent

#: The group of logins that only read: it owns nothing, and ProFTPD refuses it everything that writes.
READERS, READERS_GID = "oh-ftp-ro", 19997
#: In front of a hash no password fits: the account is locked, or the login is.
ACCOUNT_LOCKED, LOCKED = "*", "!"
_ROW = re.compile(
    r"(?P<login>[a-z][a-z0-9]{1,15}(?:\.[a-z0-9][a-z0-9-]{0,39})?):(?P<stars>\*?)(?P<locked>!?)(?P<password>[$./0-9A-Za-z=,_-]+)"
    r":(?P<uid>[0-9]+):(?P<group>[0-9]+):onehost (?P<owner>[0-9]+) (?P<gid>[0-9]+)"
    r":/home/(?P<account>[a-z][a-z0-9]{1,15})/home(?P<folder>(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*):/bin/false"
)


@dataclass(frozen=True)
class FtpLogin:
    """A login: who it is, with whose numbers, and the folder that it is locked in."""

    owner: int
    login: str
    account: str
    uid: int
    gid: int
    password: str
    #: Below the home; empty: the whole home.
    folder: str = ""
    read_only: bool = False
    suspended: bool = False

    @property
    def home(self) -> str:
        """The folder that it is locked in."""
        return f"/home/{self.account}/home" + (f"/{self.folder}" if self.folder else "")

    def line(self, locked_uids: frozenset[int] = frozenset()) -> str:
        """Its row. Raises Permanent if a value cannot stand in one."""
        marks = (ACCOUNT_LOCKED if self.uid in locked_uids else "") + (LOCKED if self.suspended else "")
        group = READERS_GID if self.read_only else self.gid
        row = f"{self.login}:{marks}{self.password}:{self.uid}:{group}:onehost {self.owner} {self.gid}:{self.home}"
        line = f"{row}:/bin/false"
        if parse_row(line) != self:
            raise Permanent(f"FTP login {self.login!r} cannot stand in ProFTPD's file")
        return line


def parse_row(line: str) -> FtpLogin | None:
    """The login of a row; None if the row is not onehost's."""
    row = _ROW.fullmatch(line)
    if not row or ".." in row["folder"]:
        return None
    return FtpLogin(
        int(row["owner"]), row["login"], row["account"], int(row["uid"]), int(row["gid"]), row["password"],
        row["folder"].removeprefix("/"), int(row["group"]) == READERS_GID, bool(row["locked"]),
    )  # fmt: skip


def parse(text: str) -> dict[int, FtpLogin]:
    """The logins of a file by owner. What is not onehost's is not kept: the file is."""
    found = (parse_row(line) for line in text.split("\n"))
    return {login.owner: login for login in found if login}


def render(logins: Iterable[FtpLogin], locked_uids: frozenset[int]) -> str:
    """The whole file. The same logins give the same bytes."""
    rows = sorted(logins, key=lambda each: (each.login, each.owner))
    return "".join(f"{each.line(locked_uids)}\n" for each in rows)
