"""What every node shows alike: SSH host keys in place of the node's own, and a certificate for what has none.

/etc/onehost/ssh/host_KIND_key                     root alone
/etc/ssh/sshd_config.d/onehost-host-keys.conf      names them; without it sshd shows the node's own keys
/etc/onehost/tls/default.pem                       key and certificate, for Apache and ProFTPD
/etc/onehost/identity/told                         of which bytes sshd and the others were told last
"""

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ...models.errors import Blocked, Permanent, Temporary
from ...models.host_keys import KINDS
from . import files
from .machine import Machine
from .owned import Finding, Owned, check

KEYS = {kind: f"/etc/onehost/ssh/host_{kind}_key" for kind in KINDS}
CONFIG = "/etc/ssh/sshd_config.d/onehost-host-keys.conf"
CERTIFICATE = "/etc/onehost/tls/default.pem"
FOLDER = "/etc/onehost/identity"
#: How long sshd may take to listen again after a reload, in seconds.
ANSWER_SECONDS = 5.0

Contents = Mapping[str, bytes]


class Reads(Protocol):
    """A daemon that reads the certificate when it is told."""

    def renew(self) -> None:
        """Has the next signal be sent although none of the daemon's own files has changed."""
        ...

    def signal(self) -> None:
        """Tells it, if it runs."""
        ...


def host_keys(owner: int, private: Mapping[str, str]) -> Contents:
    """The files that make sshd show these keys, the configuration last."""
    config = [
        f"# onehost {owner}: the cluster's host keys, rewritten by its worker",
        *map("HostKey {}".format, KEYS.values()),
    ]
    keys = {KEYS[kind]: text.encode() for kind, text in private.items()}
    return keys | {CONFIG: ("\n".join(config) + "\n").encode()}


def certificate(owner: int, key: str, chain: str) -> Contents:
    """The file of the certificate. What stands before the first block is nothing to any reader of PEM."""
    return {CERTIFICATE: f"onehost {owner}\n{key}{chain}".encode()}


def drop_half(machine: Machine) -> None:
    """Forgets host keys of which one is gone: named and not there, sshd takes nothing, not even what brings it back.

    sshd is not told: it shows no other key before the whole identity is here again.
    """
    if not all(machine.path(path).exists() for path in KEYS.values()):
        files.remove(machine.path(CONFIG))


class Identity:
    """The Daemon of the identity. There is one at a time; sshd and the readers of the certificate are told once."""

    name = "identity"

    def __init__(self, machine: Machine, readers: Sequence[Reads]) -> None:
        self.machine = machine
        self._readers = readers
        self._staged: dict[int, Contents] = {}
        self._before: Contents | None = None

    def live(self) -> dict[str, bytes]:
        """The files that are there and onehost's, by path."""
        found = {path: files.read(self.machine.path(path)) for path in (*KEYS.values(), CONFIG, CERTIFICATE)}
        if not (found[CERTIFICATE] or b"").startswith(b"onehost "):
            del found[CERTIFICATE]  # the node's own, made because Apache must have one
        return {path: content for path, content in found.items() if content is not None}

    def put(self, owner: int, contents: Contents) -> None:
        """Stages an identity; empty: none. A certificate that is there stays, as Apache does not start without."""
        if self._before is None:
            self._before = self.live()
        self._staged = {owner: contents}

    def verify(self, publics: Mapping[str, str]) -> None:
        """Asks sshd for its keys. Raises Permanent with the kind it shows another key of. It need not run yet."""
        if not self.machine.real or self.machine.runner.run(["systemctl", "is-active", "--quiet", "ssh"]).code:
            return
        settings = self.machine.runner.run(["sshd", "-T"]).check(Permanent).output.splitlines()
        port = next((line.split()[1] for line in settings if line.startswith("port ")), "22")
        until = time.monotonic() + ANSWER_SECONDS
        while wrong := [kind for kind, public in publics.items() if public not in self._shown(port)]:
            if time.monotonic() > until:
                raise Permanent(f"sshd at port {port} does not show the cluster's {wrong[0]} key")
            time.sleep(0.1)  # it closes its socket for a moment; nothing tells when it listens again

    def _shown(self, port: str) -> set[str]:
        kinds = ",".join(KEYS)
        said = self.machine.runner.run(["ssh-keyscan", "-T", "3", "-p", port, "-t", kinds, "127.0.0.1"]).output
        return {line.partition(" ")[2] for line in said.splitlines() if not line.startswith("#")}

    # The contract of a Daemon.

    def changed(self) -> frozenset[int]:
        """See Daemon."""
        live = self.live()
        return frozenset(
            owner
            for owner, contents in self._staged.items()
            if any(live.get(path) != content for path, content in contents.items()) or self._left(contents)
        )

    def validate(self) -> None:
        """Has sshd read the keys, and TLS the certificate, from a folder that only root sees."""
        trial = self.machine.path(f"{FOLDER}/trial")
        for owner in self.changed():
            try:
                self._try(trial, self._staged[owner], str(owner))
            finally:
                for path in trial.glob("*"):
                    path.unlink()

    def _try(self, trial: Path, contents: Contents, culprit: str) -> None:
        trial.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, content in contents.items():
            files.fresh(trial / Path(path).name, content, 0o600, durable=False)
        if CERTIFICATE in contents:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(trial / Path(CERTIFICATE).name)
            except ssl.SSLError as error:
                raise Permanent(
                    f"the certificate does not work with its key: {error.reason}", culprit=culprit
                ) from error
        if CONFIG in contents and self.machine.real:
            lines = "".join(f"HostKey {trial / Path(path).name}\n" for path in KEYS.values())
            files.fresh(trial / "sshd_config", lines, 0o600, durable=False)
            tried = self.machine.runner.run(["sshd", "-t", "-f", str(trial / "sshd_config")])
            if tried.code or "Unable to load" in tried.output:
                raise Permanent(f"sshd: {tried.words}", culprit=culprit)

    def switch(self) -> None:
        """See Daemon. Keys stand before the configuration names them, and longer than it does."""
        live = self.live()
        for contents in self._staged.values():
            for path in self._left(contents):
                files.remove(self.machine.path(path))
            for path, content in contents.items():
                if live.get(path) != content:
                    place = self.machine.path(path)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    files.write(place, content, 0o644 if path == CONFIG else 0o600)

    def signal(self) -> None:
        """See Daemon. Sessions that run stay. Raises Blocked if sshd's live configuration is broken."""
        told, now = self._told(), self._marks()
        if told.get("ssh") != now["ssh"]:
            self._tell_sshd()
        if told.get("tls") != now["tls"] and CERTIFICATE in self.live():
            for reader in self._readers:
                reader.renew()
                reader.signal()
        files.write(self.machine.path(f"{FOLDER}/told"), "".join(f"{k} {v}\n" for k, v in now.items()), 0o600)

    def _tell_sshd(self) -> None:
        run = self.machine.runner.run
        if not self.machine.real or run(["systemctl", "is-active", "--quiet", "ssh"]).code:
            return
        tried = run(["sshd", "-t"])
        if tried.code:
            raise Blocked(f"sshd: {tried.words}")
        run(["systemctl", "reload", "ssh"], seconds=90).check(Temporary)

    def restore(self, owner: int) -> None:
        """See Daemon."""
        if owner in self._staged and self._before is not None:
            self._staged[owner] = self._before

    def settle(self) -> None:
        """See Daemon."""
        self._staged, self._before = {}, None

    def recover(self) -> None:
        """See Daemon."""
        folder = self.machine.path(FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        if self._told() and self._told() != self._marks():
            self.signal()

    def start(self) -> None:
        """Nothing to start: what shows it is started by itself."""

    # See Checked.

    def check(self, settled: frozenset[int], known: frozenset[int]) -> list[Finding]:
        """See Checked. No key is shown."""
        wanted = [Owned(FOLDER, mode=0o700, is_folder=True)]
        for owner, contents in self._staged.items():
            for path, content in contents.items():
                mode = 0o644 if path == CONFIG else 0o600
                wanted.append(Owned(path, content, mode, owner, is_secret=True, is_free=owner not in settled))
        return check(self.machine, self.name, wanted)

    def forget(self) -> None:
        """See Checked."""
        self.settle()

    def renew(self) -> None:
        """See Checked."""
        files.remove(self.machine.path(f"{FOLDER}/told"))

    def _left(self, contents: Contents) -> list[str]:
        """What is there and not wanted, the configuration first."""
        return [path for path in (CONFIG, *KEYS.values()) if path not in contents and self.machine.path(path).exists()]

    def _marks(self) -> dict[str, str]:
        """One hash for the bytes that sshd reads, one for those of the certificate."""
        live = self.live()
        parts = {"ssh": (*KEYS.values(), CONFIG), "tls": (CERTIFICATE,)}
        return {
            part: hashlib.sha256(b"\0".join(live.get(path, b"") for path in paths)).hexdigest()
            for part, paths in parts.items()
        }

    def _told(self) -> dict[str, str]:
        text = (files.read(self.machine.path(f"{FOLDER}/told")) or b"").decode()
        return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
