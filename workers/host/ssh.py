"""OpenSSH: who may come in is a matter of groups, so sshd is told once; per account there are only key files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ...models.errors import Blocked, Permanent, Temporary
from . import files
from .book import ACCESS_GROUPS
from .machine import Machine
from .users import Users

KEYS = "/etc/onehost/ssh/keys"
CONFIG = "/etc/ssh/sshd_config.d/onehost.conf"
#: From this version on sshd punishes addresses for failed logins: the director's own checks must not lock all out.
PENALTIES_SINCE = (9, 8)
_CONFIG = """# onehost's own file, rewritten by its worker
AllowGroups root sudo oh-shell oh-sftp
{penalties}Match Group oh-shell,oh-sftp
    AuthorizedKeysFile {keys}/%u
    PasswordAuthentication yes
Match Group oh-sftp
    ChrootDirectory /home/%u
    ForceCommand internal-sftp -d /home -u 0027
    DisableForwarding yes
    PermitTTY no
"""
_OWNER = re.compile(rb"\A# onehost (\d+)\n")
#: What `sshd -T -C user=…` must say of an account, by its access.
_EXPECTED = {
    "sftp": ("chrootdirectory /home/%u", "forcecommand internal-sftp -d /home -u 0027", "disableforwarding yes"),
    "shell": ("forcecommand none", "chrootdirectory none"),
    "none": (),
}


class Ssh:
    """The Daemon of sshd: key files by name, each naming its owner in its first line."""

    name = "ssh"

    def __init__(self, machine: Machine, users: Users) -> None:
        self.machine = machine
        self.users = users
        self._staged: dict[int, tuple[str, bytes | None]] = {}
        self._before: dict[int, tuple[str, bytes | None]] = {}
        self._proved: dict[str, tuple[int, ...]] = {}

    def holder(self, name: str) -> int | None:
        """Whose the key file of this name is; None if there is none."""
        match = _OWNER.match(files.read(self._path(name)) or b"")
        return int(match[1]) if match else None

    def get(self, name: str, owner: int) -> bytes | None:
        """The live key file of an owner."""
        return files.read(self._path(name)) if self.holder(name) == owner else None

    def put(self, name: str, owner: int, keys: Iterable[str]) -> None:
        """Stages an account's keys; none of them means no file."""
        self._stage(name, owner, render(owner, keys))

    def drop(self, name: str, owner: int) -> None:
        """Stages the absence of an owner's key file. Another's of the same name stays."""
        self._stage(name, owner, None)

    def verify(self, name: str, uid: int, gid: int, access: str, *, sshd: bool = True) -> None:
        """Asks NSS and sshd whether an account has that access. Raises Permanent with what was seen.

        NSS is asked for each account; sshd, which costs a process, once per kind of access and state of the users.
        """
        if (known := self.users.known(name)) != uid:
            raise Permanent(f"NSS gives {name} the uid {known} instead of {uid}")
        if (ways := self.users.known_access(name, gid)) != {access} - {"none"}:
            raise Permanent(f"NSS gives {name} access by {sorted(ways) or 'nothing'} instead of {access}")
        if not sshd or not self.machine.real or self._proved.get(access) == self.users.version():
            return
        who = f"user={name},host=localhost,addr=127.0.0.1"
        said = self.machine.runner.run(["sshd", "-T", "-C", who]).check(Permanent).output.lower().splitlines()
        allowed = {line.split()[1] for line in said if line.startswith("allowgroups ")}
        groups = {group for group, _ in ACCESS_GROUPS.values()}
        missing = [line for line in _EXPECTED[access] if line not in said]
        if allowed and not groups <= allowed:
            missing.append(f"allowgroups {' '.join(sorted(groups))}")
        if missing:
            raise Permanent(f"sshd does not say {missing[0]!r} for {name}: another file overrules onehost's")
        self._proved[access] = self.users.version()

    # The contract of a Daemon.

    def changed(self) -> frozenset[int]:
        """See Daemon."""
        return frozenset(owner for owner, (name, content) in self._staged.items() if self.get(name, owner) != content)

    def validate(self) -> None:
        """Nothing to try: keys were checked when they were asked for, and a bad one opens nothing."""

    def switch(self) -> None:
        """See Daemon. Each file by itself: there is no state between them."""
        for owner in self.changed():
            name, content = self._staged[owner]
            if content is not None:
                files.write(self._path(name), content)
            elif self.holder(name) == owner:
                files.remove(self._path(name))

    def signal(self) -> None:
        """Nothing to tell: sshd reads keys at each login."""

    def restore(self, owner: int) -> None:
        """See Daemon."""
        if owner in self._before:
            self._staged[owner] = self._before[owner]

    def settle(self) -> None:
        """See Daemon."""
        self._staged, self._before = {}, {}

    def recover(self) -> None:
        """Sets up what sshd includes once. Raises Blocked, with the old file back, if sshd refuses it."""
        keys = self.machine.path(KEYS)
        keys.mkdir(parents=True, exist_ok=True)
        for folder in (keys, keys.parent, keys.parent.parent):
            folder.chmod(0o755)
        path = self.machine.path(CONFIG)
        before = files.read(path)
        changed = files.ensure(path, _CONFIG.format(penalties=self._penalties(), keys=KEYS))
        if not self.machine.real:
            return
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        tried = self.machine.runner.run(["sshd", "-t"])
        if tried.code:
            if changed and before is not None:
                files.write(path, before)
            elif changed:
                files.remove(path)
            raise Blocked(f"sshd: {tried.words}")
        if changed and self._runs():
            self.machine.runner.run(["systemctl", "reload", "ssh"], seconds=90).check(Temporary)

    def start(self) -> None:
        """See Daemon."""
        if self.machine.real and not self._runs():
            self.machine.runner.run(["systemctl", "start", "ssh"], seconds=90).check(Temporary)

    def _runs(self) -> bool:
        return not self.machine.runner.run(["systemctl", "is-active", "--quiet", "ssh"]).code

    def _penalties(self) -> str:
        if not self.machine.real:
            return ""
        said = self.machine.runner.run(["ssh", "-V"]).output
        match = re.search(r"OpenSSH_(\d+)\.(\d+)", said)
        version = (int(match[1]), int(match[2])) if match else (0, 0)
        # A balanced client keeps its own address, so only this machine's own questions need be exempt.
        return "PerSourcePenaltyExemptList 127.0.0.0/8,::1/128\n" if version >= PENALTIES_SINCE else ""

    def _stage(self, name: str, owner: int, content: bytes | None) -> None:
        self._before.setdefault(owner, (name, self.get(name, owner)))
        self._staged[owner] = (name, content)

    def _path(self, name: str) -> Path:
        return self.machine.path(f"{KEYS}/{name}")


def render(owner: int, keys: Iterable[str]) -> bytes | None:
    """The key file of an owner; None if it has no keys."""
    lines = list(keys)
    return ("\n".join([f"# onehost {owner}", *lines]) + "\n").encode() if lines else None
