"""The program ProFTPD: its configuration, how it is started, and the kernel's lock of each login in its folder.

/etc/onehost/ftp/roots/LOGIN -> /home/NAME/home/FOLDER   root's alone; where each login is locked in

A tenant may exchange a folder of his for a link at any moment, so nobody may look where a path leads and enter it
later. ProFTPD enters ROOTS/LOGIN by one chroot(2), in which the kernel goes through that link, root's own, and then
through a /home where it follows none. What it comes to is a folder of the account, whatever is exchanged meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path

from ...models.errors import Blocked, Temporary
from . import files, server
from .ftp_rows import READERS, FtpLogin
from .machine import Machine
from .own_home import OwnHome
from .owned import Owned

FOLDER = "/etc/onehost/ftp"
USERS, GROUPS, ROOTS, TOLD = f"{FOLDER}/users", f"{FOLDER}/groups", f"{FOLDER}/roots", f"{FOLDER}/told"
CONFIG = "/etc/proftpd/conf.d/onehost.conf"
PID = Path("/run/proftpd.pid")
#: How long ProFTPD may take to greet, in seconds.
GREETING_SECONDS = 5.0
#: Where ProFTPD takes data connections; a director passes all of them on.
PASSIVE_PORTS = (49152, 49999)
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
# The lock: a real chroot, after which root's rights are given up for good. ProFTPD asks as the login where this path
# leads, may not look there, says so in its log, and leaves it to the kernel, as it should: see workers/host/proftpd.py.
DefaultRoot {ROOTS}/%u
DefaultChdir /
AllowChrootSymlinks on
RootRevoke UseNonCompliantActiveTransfer
PassivePorts {PASSIVE_PORTS[0]} {PASSIVE_PORTS[1]}
AllowStoreRestart on
AllowOverride off
# Had ProFTPD itself found the way to a folder, nothing would be to be had there.
<Directory />
    <Limit ALL>
        DenyAll
    </Limit>
</Directory>
<Directory {ROOTS}>
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


class ProFtpd:
    """One ProFTPD, and what leads it to the folders of its logins."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        command = "/usr/sbin/proftpd -c /etc/proftpd/proftpd.conf"
        self._home = OwnHome(machine, "proftpd", command, f"{FOLDER}/start")

    def main(self) -> int:
        """The process id of its main process; 0 if it does not run."""
        if not self._machine.real:
            return 0
        text = (files.read(PID) or b"").strip()
        comm = files.read(Path(f"/proc/{int(text)}/comm")) if text.isdigit() else None
        return int(text) if comm and comm.strip() == b"proftpd" else 0

    def test(self) -> str:
        """Why it refuses the live configuration, as FILE:LINE: WORDS; empty if it takes it."""
        if not self._machine.real:
            return ""
        ended = self._machine.runner.run(["proftpd", "-t"])
        # It passes over an included file that is wrong, and says so with status 0.
        if found := re.search(r"fatal: (.*) on line (\d+) of '([^']+)'", ended.output):
            return f"proftpd: {found[3]}:{found[2]}: {found[1]}"
        return f"proftpd: {ended.words}" if ended.code else ""

    def set_up(self) -> None:
        """Writes what it includes once, and has it take that. Raises Blocked, with FILE:LINE, if it refuses."""
        server.settle_certificate(self._machine)
        files.ensure(self._machine.path(CONFIG), _CONFIG)
        if words := self.test():
            raise Blocked(words)
        starts_anew = self._home.settle()
        told = self._machine.path(TOLD)
        if (main := self.main()) and (starts_anew or not self._home.has(main)):
            self._systemctl("restart")
        elif main and files.read(told) != _mark():
            self._systemctl("reload")
        files.ensure(told, _mark())

    def renew(self) -> None:
        """Has the next `set_up` tell it of its configuration again."""
        files.remove(self._machine.path(TOLD))

    def start(self) -> None:
        """Starts it if it does not run. Raises Blocked if it runs otherwise than it should: it is stopped then."""
        if self._machine.real and not self.main():
            self._systemctl("start")
        if (main := self.main()) and not self._home.has(main):
            self._systemctl("stop")
            raise Blocked(
                f"proftpd: it does not run by {self._home.starter}, so no login would be locked in its folder"
            )

    def must_greet(self) -> None:
        """Raises Temporary if it does not."""
        try:
            with socket.create_connection(("127.0.0.1", 21), timeout=GREETING_SECONDS) as client:
                greeting = client.recv(64)
        except OSError as error:
            raise Temporary(f"ProFTPD does not answer on port 21: {error.strerror or error}") from error
        if not greeting.startswith(b"220"):
            raise Temporary(f"ProFTPD answers {greeting[:40]!r} on port 21")

    def lead(self, logins: Iterable[FtpLogin]) -> None:
        """Has each of these logins be locked in its folder, and takes away the ways of all others."""
        folder = self._machine.path(ROOTS)
        wanted = {login.login: login.home for login in logins}
        there = {name: files.pointed(folder / name) for name in os.listdir(folder)} if folder.is_dir() else {}
        for name in there.keys() - wanted.keys():
            (folder / name).unlink()
        for name, home in wanted.items():
            if there.get(name) != home:
                beside = folder / f".{name}.new"
                beside.unlink(missing_ok=True)
                beside.symlink_to(home)
                os.rename(beside, folder / name)
        if there != wanted:
            files.sync_folder(folder)

    def owned(self) -> list[Owned]:
        """How its own files should be."""
        return [Owned(FOLDER, mode=0o755, is_folder=True), Owned(ROOTS, mode=0o700, is_folder=True),
                Owned(CONFIG, _CONFIG.encode()), *self._home.owned()]  # fmt: skip

    def _systemctl(self, verb: str) -> None:
        self._machine.runner.run(["systemctl", verb, "proftpd"], seconds=90).check(Temporary)


def _mark() -> bytes:
    return hashlib.sha256(_CONFIG.encode()).hexdigest().encode()
