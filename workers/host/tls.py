"""Certificates of domains: one file for each, key and chain together, that Apache finds by its name when it is told.

/etc/onehost/tls/live/DOMAIN.ACCOUNT_ID.pem   root alone, replaced by rename; its first line names its owner
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from pathlib import Path

from ...models.errors import Blocked, Permanent, Temporary
from . import files
from .apache import Apache
from .machine import Machine
from .owned import Finding, Owned, check

FOLDER = "/etc/onehost/tls"
LIVE = f"{FOLDER}/live"
#: How long Apache may take to shake hands, in seconds.
HANDSHAKE_SECONDS = 5.0
_OWNER = re.compile(rb"\Aonehost (\d+)\n")
_FILE = re.compile(r"[a-z0-9.-]+\.[0-9]+\.pem")


def file_of(domain: str, account_id: int) -> str:
    """The name of a domain's file. The account's id stands in it: another's site of the name never shows it."""
    return f"{domain}.{account_id}.pem"


def render(owner: int, key: str, chain: str) -> bytes:
    """The content of a file. What stands before the first block is nothing to any reader of PEM."""
    return f"onehost {owner}\n{key}{chain}".encode()


class Tls:
    """The Daemon of certificates. Stands before Apache: a round that changes both tells it once."""

    name = "tls"

    def __init__(self, machine: Machine, apache: Apache) -> None:
        self.machine = machine
        self._apache = apache
        #: File name to content, by owner; both empty: none.
        self._staged: dict[int, tuple[str, bytes]] = {}
        self._before: dict[int, tuple[str, bytes]] = {}
        self._owners: dict[int, str] | None = None

    def of(self, owner: int) -> tuple[str, bytes]:
        """Name and content of an owner's live file; empty if there is none."""
        name = self._index().get(owner, "")
        return (name, files.read(self._path(name)) or b"") if name else ("", b"")

    def holder(self, file: str) -> int | None:
        """Whose a live file is."""
        return next((owner for owner, name in self._index().items() if name == file), None)

    def put(self, owner: int, file: str, content: bytes) -> None:
        """Stages a certificate. Raises Permanent for a name that could lead elsewhere."""
        if not _FILE.fullmatch(file) or ".." in file:
            raise Permanent(f"{file!r} cannot be the name of a certificate's file")
        self._stage(owner, (file, content))

    def drop(self, owner: int) -> None:
        """Stages the absence of an owner's certificate."""
        self._stage(owner, ("", b""))

    def tell(self) -> None:
        """Has Apache take what was switched and not told, because what it was to be told with failed."""
        if self._apache.tree.unsignalled():
            self._must_pass()
            self._apache.signal()

    def verify(self, domain: str, content: bytes) -> None:
        """Raises Permanent if Apache shows another certificate for a domain that it serves."""
        if not self.machine.real or not (self._apache.serving or self._apache.main()):
            return
        wanted = ssl.PEM_cert_to_DER_cert(_first(content))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with (
                socket.create_connection(("127.0.0.1", 443), HANDSHAKE_SECONDS) as plain,
                context.wrap_socket(plain, server_hostname=domain) as client,
            ):
                shown = client.getpeercert(binary_form=True)
                client.sendall(f"HEAD / HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n".encode())
                status = client.recv(64).split(b" ")[1:2]
        except OSError as error:
            raise Temporary(f"Apache does not speak TLS on port 443: {error.strerror or error}") from error
        # 421: no site of this name is here yet; the certificate waits for it.
        if shown != wanted and status != [b"421"]:
            raise Permanent(f"Apache shows another certificate for {domain}")

    # The contract of a Daemon.

    def changed(self) -> frozenset[int]:
        """See Daemon."""
        return frozenset(owner for owner, wanted in self._staged.items() if self.of(owner) != wanted)

    def validate(self) -> None:
        """Has TLS read each new file, as Apache will: one that it refuses would keep Apache from starting."""
        for owner in sorted(self.changed()):
            name, content = self._staged[owner]
            if name and (self.holder(name) or owner) not in (owner, *self._leaving()):
                raise Permanent(f"{name} belongs to id {self.holder(name)} here", culprit=str(owner))
            if name:
                self._try(owner, content)
        if not self._apache.changed():
            self._must_pass()

    def switch(self) -> None:
        """See Daemon. Apache is noted as not told first: after a kill its `recover` tells it."""
        changed = self.changed()
        if not changed:
            return
        self._apache.renew()
        index = self._index()
        put = {self._staged[owner][0] for owner in changed}
        for owner in changed:
            if (old := index.pop(owner, "")) and old not in put:
                files.remove(self._path(old))
        for owner in changed:
            name, content = self._staged[owner]
            if name:
                files.write(self._path(name), content, 0o600)
                index[owner] = name

    def signal(self) -> None:
        """Tells Apache, unless it has new files of its own and is told with them in a moment."""
        if not self._apache.changed():
            self._apache.signal()

    def restore(self, owner: int) -> None:
        """See Daemon."""
        if owner in self._before:
            self._staged[owner] = self._before[owner]

    def settle(self) -> None:
        """See Daemon."""
        self._staged, self._before = {}, {}

    def recover(self) -> None:
        """Makes the folders. What was switched and not told is Apache's to be told."""
        for folder, mode in ((FOLDER, 0o755), (LIVE, 0o700)):
            self.machine.path(folder).mkdir(parents=True, exist_ok=True)
            self.machine.path(folder).chmod(mode)

    def start(self) -> None:
        """Nothing to start."""

    # See Checked.

    def check(self, settled: frozenset[int], known: frozenset[int]) -> list[Finding]:
        """See Checked. No key is shown."""
        things = [Owned(FOLDER, mode=0o755, is_folder=True), Owned(LIVE, mode=0o700, is_folder=True)]
        for owner in settled | known:
            name, content = self._staged.get(owner) or self.of(owner)
            if name:
                things.append(Owned(f"{LIVE}/{name}", content, 0o600, owner, is_secret=True, is_free=owner in known))
        return check(self.machine, self.name, things, (LIVE,))

    def forget(self) -> None:
        """See Checked."""
        self._staged, self._before, self._owners = {}, {}, None

    def renew(self) -> None:
        """See Checked."""
        self._apache.renew()

    def _must_pass(self) -> None:
        """Raises Blocked if Apache would not take its live files: a signal would end it."""
        if self.machine.real and (words := self._apache.test()):
            raise Blocked(words)

    def _try(self, owner: int, content: bytes) -> None:
        trial = self._path(".trial.new")
        files.fresh(trial, content, 0o600, durable=False)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(trial)
        except ssl.SSLError as error:
            raise Permanent(f"TLS refuses the certificate: {error.reason or error}", culprit=str(owner)) from error
        finally:
            trial.unlink()

    def _leaving(self) -> frozenset[int]:
        """Owners whose file this round takes away."""
        return frozenset(owner for owner, (name, _) in self._staged.items() if not name)

    def _stage(self, owner: int, wanted: tuple[str, bytes]) -> None:
        self._before.setdefault(owner, self.of(owner))
        self._staged[owner] = wanted

    def _index(self) -> dict[int, str]:
        if self._owners is None:
            self._owners = {}
            folder = self.machine.path(LIVE)
            for name in os.listdir(folder) if folder.is_dir() else []:
                with (folder / name).open("rb") as file:
                    if _FILE.fullmatch(name) and (match := _OWNER.match(file.readline(40))):
                        self._owners[int(match[1])] = name
        return self._owners

    def _path(self, name: str) -> Path:
        return self.machine.path(f"{LIVE}/{name}")


def _first(content: bytes) -> str:
    """The first certificate of a file."""
    mark = "-----BEGIN CERTIFICATE-----"
    text = content.decode()
    return mark + text.partition(mark)[2].partition("-----END")[0] + "-----END CERTIFICATE-----\n"
