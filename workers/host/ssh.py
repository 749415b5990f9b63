"""OpenSSH: who may come in is a matter of groups, so sshd is told once; per account there are only key files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ...models.errors import Blocked, Permanent, Temporary
from . import files, identity, key_file
from .book import ACCESS_GROUPS
from .key_file import Section
from .machine import Machine
from .owned import Finding, Owned, check
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
#: What `sshd -T -C user=…` must say of an account, by its access.
_EXPECTED = {
    "sftp": ("chrootdirectory /home/%u", "forcecommand internal-sftp -d /home -u 0027", "disableforwarding yes"),
    "shell": ("forcecommand none", "chrootdirectory none"),
    "none": (),
}


class Ssh:
    """The Daemon of sshd: a key file for each account, made of the keys of each resource that has some."""

    name = "ssh"

    def __init__(self, machine: Machine, users: Users) -> None:
        self.machine = machine
        self.users = users
        #: By owner: the account's name and the owner's section, None for its absence.
        self._staged: dict[int, tuple[str, Section | None]] = {}
        self._before: dict[int, tuple[str, Section | None]] = {}
        self._proved: dict[str, tuple[int, ...]] = {}

    def holders(self, name: str) -> set[int]:
        """The accounts that have keys in the file of this name."""
        return {section.account for section in self._live(name).values()}

    def get(self, name: str, owner: int) -> tuple[str, ...]:
        """The live keys of an owner."""
        section = self._live(name).get(owner)
        return section.lines if section else ()

    def put(self, name: str, owner: int, keys: Iterable[str], account: int | None = None) -> None:
        """Stages an owner's keys for the account `name`, whose id is `account`; without it, the account's own."""
        self._stage(name, owner, Section(owner, account or owner, tuple(keys)))

    def drop(self, name: str, owner: int) -> None:
        """Stages the absence of an owner's keys; of an account, of all keys that let anybody into it."""
        for section in self._live(name).values():
            if section.account == owner:
                self._stage(name, section.owner, None)
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
        return frozenset(
            owner for owner, (name, section) in self._staged.items() if self.get(name, owner) != _lines(section)
        )

    def validate(self) -> None:
        """Nothing to try: keys were checked when they were asked for, and a bad one opens nothing."""

    def switch(self) -> None:
        """See Daemon. Each file by itself: there is no state between them."""
        for name in {self._staged[owner][0] for owner in self.changed()}:
            content = key_file.render(self._wanted(name).values())
            if content is not None:
                files.write(self._path(name), content)
            else:
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
        changed = files.ensure(path, self._config())
        identity.drop_half(self.machine)
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

    # See Checked, and Program.

    def check(self, settled: frozenset[int], known: frozenset[int]) -> list[Finding]:
        """See Checked."""
        wanted = [Owned(each, mode=0o755, is_folder=True) for each in ("/etc/onehost/ssh", KEYS)]
        wanted.append(Owned(CONFIG, self._config().encode()))
        for name in {whose for whose, _ in self._staged.values()} | set(self.users.book().users):
            staged = {owner: section for owner, (whose, section) in self._staged.items() if whose == name}
            waiting = (staged.keys() | self._live(name).keys() & known) - settled
            content = key_file.render(section for section in staged.values() if section)
            account = next((section.account for section in staged.values() if section), 0)
            if waiting:
                wanted.append(Owned(f"{KEYS}/{name}", owner=account or min(waiting), is_free=True))
            elif content is not None:
                wanted.append(Owned(f"{KEYS}/{name}", content, owner=account))
        return check(self.machine, self.name, wanted, (KEYS,))

    def forget(self) -> None:
        """See Checked."""
        self._staged, self._before, self._proved = {}, {}, {}

    def renew(self) -> None:
        """See Checked. Nothing to tell: sshd reads keys at each login."""

    def test(self) -> str:
        """Why sshd refuses its configuration; empty if it takes it."""
        tried = self.machine.runner.run(["sshd", "-t"])
        return f"sshd: {tried.words}" if tried.code else ""

    def _config(self) -> str:
        return _CONFIG.format(penalties=self._penalties(), keys=KEYS)

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

    def _stage(self, name: str, owner: int, section: Section | None) -> None:
        self._before.setdefault(owner, (name, self._live(name).get(owner)))
        self._staged[owner] = (name, section)

    def _live(self, name: str) -> dict[int, Section]:
        return key_file.parse(files.read(self._path(name)))

    def _wanted(self, name: str) -> dict[int, Section]:
        """The sections of an account's file with what is staged."""
        staged = {owner: section for owner, (whose, section) in self._staged.items() if whose == name}
        return {owner: each for owner, each in (self._live(name) | staged).items() if each is not None}

    def _path(self, name: str) -> Path:
        return self.machine.path(f"{KEYS}/{name}")


def _lines(section: Section | None) -> tuple[str, ...]:
    return section.lines if section else ()
