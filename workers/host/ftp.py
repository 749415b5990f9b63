"""ProFTPD: logins are rows of one file that it reads at each login, so it is told once; a change needs no reload.

/etc/onehost/ftp/users       every login, replaced whole by rename
/etc/onehost/ftp/groups      the group of those that only read
/etc/onehost/ftp/locked/UID  while it is there, no login of that uid fits
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...models.errors import Blocked, Permanent, Temporary
from . import files, ftp_rows, server
from .ftp_rows import READERS, READERS_GID, FtpLogin
from .machine import Machine
from .owned import Finding, Owned, check
from .sessions import Sessions

FOLDER = "/etc/onehost/ftp"
USERS, GROUPS, LOCKED, TOLD = f"{FOLDER}/users", f"{FOLDER}/groups", f"{FOLDER}/locked", f"{FOLDER}/told"
CONFIG = "/etc/proftpd/conf.d/onehost.conf"
#: How it is started: with a /home of its own on which no link is followed. ProFTPD itself looks whether the folder of a
#: login is reached by a link, and enters it later: a tenant who exchanges the folder in between would move the lock.
STARTER, UNIT = f"{FOLDER}/start", "/etc/systemd/system/proftpd.service.d/onehost.conf"
PID = Path("/run/proftpd.pid")
#: How long ProFTPD may take to greet, in seconds.
GREETING_SECONDS = 5.0
#: Where ProFTPD takes data connections; a director passes all of them on.
PASSIVE_PORTS = (49152, 49999)
_STARTER = """#!/bin/sh
# onehost's own file, rewritten by its worker
exec unshare --mount --propagation private sh -ec '
    mount --rbind /home /home
    mount -o remount,bind,nosymfollow,nosuid,nodev /home
    exec /usr/sbin/proftpd -c /etc/proftpd/proftpd.conf'
"""
_UNIT = f"""# onehost's own file, rewritten by its worker
[Service]
ExecStart=
ExecStart={STARTER}
"""
_GROUPS = f"{READERS}:x:{READERS_GID}:\n"
# Debian's proftpd.conf comes first, and in ProFTPD the first word counts: what it says too stands in <Directory> here.
_CONFIG = f"""# onehost's own file, rewritten by its worker. Your own additions belong in another file of conf.d.
<IfModule !mod_tls.c>
    LoadModule mod_tls.c
</IfModule>
ServerIdent on "FTP"
UseReverseDNS off
MaxInstances 400
MaxClients 300
MaxClientsPerHost 40
MaxLoginAttempts 3
TimeoutLogin 60
AuthOrder mod_auth_file.c
AuthUserFile {USERS}
AuthGroupFile {GROUPS}
RequireValidShell off
# The lock: a real chroot, entered by no link, after which root's rights are given up for good.
DefaultRoot ~
AllowChrootSymlinks off
RootRevoke UseNonCompliantActiveTransfer
PassivePorts {PASSIVE_PORTS[0]} {PASSIVE_PORTS[1]}
AllowStoreRestart on
AllowOverride off
# ProFTPD resolves a login's folder by itself: where a tenant makes it lead elsewhere meanwhile, nothing is to be had.
<Directory />
    <Limit ALL>
        DenyAll
    </Limit>
</Directory>
<Directory /home>
    Umask 027 027
    AllowOverwrite on
    AllowOverride off
    <Limit WRITE SITE_CHMOD SITE_CHGRP MFMT MFF>
        DenyGroup {READERS}
    </Limit>
    <Limit ALL>
        AllowAll
    </Limit>
</Directory>
<Limit WRITE SITE_CHMOD SITE_CHGRP MFMT MFF>
    DenyGroup {READERS}
</Limit>
TLSEngine on
TLSRequired off
TLSProtocol TLSv1.2 TLSv1.3
TLSECCertificateFile {server.DEFAULT}
TLSECCertificateKeyFile {server.DEFAULT}
TLSRenegotiate none
<IfModule mod_copy.c>
    CopyEngine off
</IfModule>
<IfModule mod_site_misc.c>
    SiteMiscEngine off
</IfModule>
"""


class Ftp:
    """The Daemon of ProFTPD."""

    name = "ftp"

    def __init__(self, machine: Machine, sessions: Sessions) -> None:
        self.machine = machine
        self._sessions = sessions
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
            self._sessions.end_children(self._main(), uid=0)

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
        return self._sessions.end_children(self._main(), uid=login.uid, title=title)

    def verify(self, login: FtpLogin) -> None:
        """Raises Permanent if the file does not have this login as it should; Temporary if ProFTPD does not greet."""
        if self.of(login.owner) != login:
            raise Permanent(f"{USERS} does not have {login.login} as it should")
        if not self.machine.real or not self.serving or self._proved == self._version():
            return
        try:
            with socket.create_connection(("127.0.0.1", 21), timeout=GREETING_SECONDS) as client:
                greeting = client.recv(64)
        except OSError as error:
            raise Temporary(f"ProFTPD does not answer on port 21: {error.strerror or error}") from error
        if not greeting.startswith(b"220"):
            raise Temporary(f"ProFTPD answers {greeting[:40]!r} on port 21")
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
        for folder, mode in ((FOLDER, 0o755), (LOCKED, 0o700)):
            self.machine.path(folder).mkdir(parents=True, exist_ok=True)
            self.machine.path(folder).chmod(mode)
        files.ensure(self.machine.path(GROUPS), _GROUPS, 0o640)
        self._write(self._rows())
        server.settle_certificate(self.machine)
        files.ensure(self.machine.path(CONFIG), _CONFIG)
        if words := self.test():
            raise Blocked(words)
        starts_anew = files.ensure(self.machine.path(STARTER), _STARTER, 0o755)
        if files.ensure(self.machine.path(UNIT), _UNIT) and self.machine.real:
            self.machine.runner.run(["systemctl", "daemon-reload"], seconds=90).check(Temporary)
        if (main := self._main()) and (starts_anew or not _follows_no_link(main)):
            self._systemctl("restart")
        elif main and self._told() != _mark():
            self._systemctl("reload")
        files.ensure(self.machine.path(TOLD), _mark())

    def start(self) -> None:
        """See Daemon."""
        self.serving = True
        if self.machine.real and not self._main():
            self._systemctl("start")
        if (main := self._main()) and not _follows_no_link(main):
            self._systemctl("stop")
            raise Blocked(
                "proftpd: it does not run by /etc/onehost/ftp/start, so no login would be locked in its folder"
            )

    # See Checked, and Program.

    def test(self) -> str:
        """Why ProFTPD refuses the live configuration, as FILE:LINE: WORDS; empty if it takes it."""
        if not self.machine.real:
            return ""
        ended = self.machine.runner.run(["proftpd", "-t"])
        # It passes over an included file that is wrong, and says so with status 0.
        if found := re.search(r"fatal: (.*) on line (\d+) of '([^']+)'", ended.output):
            return f"proftpd: {found[3]}:{found[2]}: {found[1]}"
        return f"proftpd: {ended.words}" if ended.code else ""

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
        things = [Owned(FOLDER, mode=0o755, is_folder=True), Owned(LOCKED, mode=0o700, is_folder=True)]
        things += [Owned(USERS, mode=0o640, is_secret=True), Owned(GROUPS, _GROUPS.encode(), 0o640)]
        things += [Owned(CONFIG, _CONFIG.encode()), Owned(UNIT, _UNIT.encode())]
        things.append(Owned(STARTER, _STARTER.encode(), 0o755))
        return check(self.machine, self.name, things) + [replace(each, daemon=self.name) for each in found]

    def keep_only(self, owners: frozenset[int]) -> None:
        """Drops every row that belongs to none of these, whoever wrote it."""
        self._write({owner: login for owner, login in self._rows().items() if owner in owners})

    def forget(self) -> None:
        """See Checked."""
        self._staged, self._before, self._read = {}, {}, None

    def renew(self) -> None:
        """See Checked."""
        files.remove(self.machine.path(TOLD))

    # How ProFTPD is reached, and its files.

    def _main(self) -> int:
        """The process id of ProFTPD's main process; 0 if it does not run."""
        if not self.machine.real:
            return 0
        text = (files.read(PID) or b"").strip()
        comm = files.read(Path(f"/proc/{int(text)}/comm")) if text.isdigit() else None
        return int(text) if comm and comm.strip() == b"proftpd" else 0

    def _systemctl(self, verb: str) -> None:
        self.machine.runner.run(["systemctl", verb, "proftpd"], seconds=90).check(Temporary)

    def _told(self) -> bytes:
        return files.read(self.machine.path(TOLD)) or b""

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
        files.ensure(self.machine.path(USERS), ftp_rows.render(rows.values(), self._locked()), 0o640)

    def _stage(self, owner: int, login: FtpLogin | None) -> None:
        self._before.setdefault(owner, self.of(owner))
        self._staged[owner] = login


def _follows_no_link(pid: int) -> bool:
    """Whether the process sees a /home on which no link is followed."""
    rows = [row for line in (files.read(Path(f"/proc/{pid}/mountinfo")) or b"").splitlines() if (row := line.split())]
    home = [row[5].split(b",") for row in rows if row[4] == b"/home"]
    return bool(home) and b"nosymfollow" in home[-1]


def _mark() -> bytes:
    return hashlib.sha256(_CONFIG.encode()).hexdigest().encode()
