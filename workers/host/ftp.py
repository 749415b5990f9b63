"""FTP logins: rows of one file that ProFTPD reads at each login, so it is told once; a change needs no reload.

/etc/onehost/ftp/users       every login, replaced whole by rename
/etc/onehost/ftp/groups      the group of those that only read
/etc/onehost/ftp/locked/UID  while it is there, no login of that uid fits
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...models.errors import Permanent
from . import files, ftp_rows
from .ftp_rows import READERS, READERS_GID, FtpLogin
from .machine import Machine
from .owned import Finding, Owned, check
from .proftpd import FOLDER, GROUPS, ROOTS, USERS, ProFtpd
from .sessions import Sessions

LOCKED = f"{FOLDER}/locked"
_GROUPS = f"{READERS}:x:{READERS_GID}:\n"


class Ftp:
    """The Daemon of ProFTPD."""

    name = "ftp"

    def __init__(self, machine: Machine, sessions: Sessions) -> None:
        self.machine = machine
        self._sessions = sessions
        self._program = ProFtpd(machine)
        self._staged: dict[int, FtpLogin | None] = {}
        self._before: dict[int, FtpLogin | None] = {}
        self._read: tuple[tuple[int, ...], dict[int, FtpLogin]] | None = None
        self._proved: tuple[int, ...] = ()
        self.serving = False

    def of(self, owner: int) -> FtpLogin | None:
        """The live row of an owner."""
        return self._rows().get(owner)

    def holders(self, login: str) -> set[int]:
        """Owners of rows with this login."""
        return {each.owner for each in self._rows().values() if each.login == login}

    def put(self, login: FtpLogin) -> None:
        """Stages a login. Raises Permanent if a value of it cannot stand in the file."""
        login.line()
        self._stage(login.owner, login)

    def drop(self, owner: int) -> None:
        """Stages the absence of an owner's login."""
        self._stage(owner, None)

    def is_locked(self, uid: int) -> bool:
        """Whether no login of this uid lets anybody in."""
        return self._flag(uid).exists()

    def lock(self, uid: int) -> None:
        """Has no login of this uid let anybody in, at once, whatever its own row says."""
        if not self.is_locked(uid):
            self.machine.path(LOCKED).mkdir(mode=0o700, parents=True, exist_ok=True)
            files.ensure(self._flag(uid), b"")
            self._write(self._rows())
            # Who has said a password and is not let in yet would be in a moment later.
            self._sessions.end_children(self._program.main(), uid=0)

    def unlock(self, uid: int) -> None:
        """Has the logins of this uid let in again who their own rows let in."""
        if self.is_locked(uid):
            files.remove(self._flag(uid))
            self._write(self._rows())

    def forget_lock(self, uid: int) -> None:
        """Drops the lock of an account that is gone; while a login of it is left, it holds."""
        if not any(login.uid == uid for login in self._rows().values()):
            files.remove(self._flag(uid))

    def end(self, login: FtpLogin) -> int:
        """Ends the sessions of a login. Returns how many there were."""
        if not self.machine.real:
            return 0
        title = f"proftpd: {login.login} - ".encode()
        return self._sessions.end_children(self._program.main(), uid=login.uid, title=title)

    def verify(self, login: FtpLogin) -> None:
        """Raises Permanent if the file does not have this login as it should; Temporary if ProFTPD does not greet."""
        if self.of(login.owner) != login:
            raise Permanent(f"{USERS} does not have {login.login} as it should")
        if not self.machine.real or not self.serving or self._proved == self._version():
            return
        self._program.must_greet()
        self._proved = self._version()

    # The contract of a Daemon.

    def changed(self) -> frozenset[int]:
        """See Daemon."""
        live = self._rows()
        return frozenset(owner for owner, login in self._staged.items() if live.get(owner) != login)

    def validate(self) -> None:
        """Refuses a login that another owner's row has, which this round does not take away."""
        rows = {**self._rows(), **self._staged}
        names: dict[str, int] = {}
        for owner, login in sorted(rows.items()):
            if login and names.setdefault(login.login, owner) != owner:
                raise Permanent(f"FTP login {login.login} belongs to id {names[login.login]} here", culprit=str(owner))

    def switch(self) -> None:
        """See Daemon."""
        if self.changed():
            rows = {**self._rows(), **self._staged}
            self._write({owner: login for owner, login in rows.items() if login})

    def signal(self) -> None:
        """Nothing to tell: ProFTPD reads the file at each login. One that does not run is started."""
        if self.serving:
            self.start()

    def restore(self, owner: int) -> None:
        """See Daemon. What is taken away or suspended stays so: a failure after it must let nobody in again."""
        staged = self._staged.get(owner)
        if owner in self._before and staged and not staged.suspended:
            self._staged[owner] = self._before[owner]

    def settle(self) -> None:
        """See Daemon."""
        self._staged, self._before = {}, {}

    def recover(self) -> None:
        """Sets up what ProFTPD includes once. Raises Blocked, with FILE:LINE, if it refuses its configuration."""
        for folder, mode in ((FOLDER, 0o755), (LOCKED, 0o700), (ROOTS, 0o700)):
            self.machine.path(folder).mkdir(parents=True, exist_ok=True)
            self.machine.path(folder).chmod(mode)
        files.ensure(self.machine.path(GROUPS), _GROUPS, 0o640)
        self._write(self._rows())
        self._program.set_up()

    def start(self) -> None:
        """See Daemon."""
        self.serving = True
        self._program.start()

    # See Checked, and Program.

    def test(self) -> str:
        """Why ProFTPD refuses the live configuration, as FILE:LINE: WORDS; empty if it takes it."""
        return self._program.test()

    def check(self, settled: frozenset[int], known: frozenset[int]) -> list[Finding]:
        """See Checked: row by row, and none is shown."""
        wanted = {owner: self._staged.get(owner, self.of(owner)) for owner in settled | known}
        rows = {each.line(self._locked()): each.owner for each in wanted.values() if each}
        live = set((files.read(self.machine.path(USERS)) or b"").decode(errors="replace").split("\n")) - {""}
        found = [
            Finding("row", "misses or changes a row", USERS, owner) for line, owner in rows.items() if line not in live
        ]
        if not found and live - rows.keys():
            found = [Finding("row", "has a row that is not onehost's", USERS)]
        things = [*self._program.owned(), Owned(LOCKED, mode=0o700, is_folder=True)]
        things += [Owned(USERS, mode=0o640, is_secret=True), Owned(GROUPS, _GROUPS.encode(), 0o640)]
        things += [Owned(f"{ROOTS}/{each.login}", target=each.home, is_free=each.owner not in settled)
                   for each in wanted.values() if each]  # fmt: skip
        return check(self.machine, self.name, things, (ROOTS,)) + [replace(each, daemon=self.name) for each in found]

    def keep_only(self, owners: frozenset[int]) -> None:
        """Drops every row that belongs to none of these, whoever wrote it."""
        self._write({owner: login for owner, login in self._rows().items() if owner in owners})

    def forget(self) -> None:
        """See Checked."""
        self._staged, self._before, self._read = {}, {}, None

    def renew(self) -> None:
        """See Checked."""
        self._program.renew()

    # Its files.

    def _flag(self, uid: int) -> Path:
        return self.machine.path(f"{LOCKED}/{uid}")

    def _locked(self) -> frozenset[int]:
        with suppress(FileNotFoundError):
            return frozenset(int(name) for name in os.listdir(self.machine.path(LOCKED)) if name.isdigit())
        return frozenset()

    def _version(self) -> tuple[int, ...]:
        """Changes whenever the file of logins is replaced or written."""
        try:
            found = self.machine.path(USERS).stat()
        except FileNotFoundError:
            return (0,)
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _rows(self) -> dict[int, FtpLogin]:
        version = self._version()
        if not self._read or self._read[0] != version:
            text = files.read(self.machine.path(USERS)) or b""
            self._read = (version, ftp_rows.parse(text.decode(errors="replace")))
        return self._read[1]

    def _write(self, rows: Mapping[int, FtpLogin]) -> None:
        self._program.lead(rows.values())
        files.ensure(self.machine.path(USERS), ftp_rows.render(rows.values(), self._locked()), 0o640)

    def _stage(self, owner: int, login: FtpLogin | None) -> None:
        self._before.setdefault(owner, self.of(owner))
        self._staged[owner] = login
