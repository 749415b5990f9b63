"""PHP-FPM: pools in shards, one master per shard. A changed shard is handed over to a new master (masters.py)."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from ...models.errors import Blocked, Permanent
from . import files, masters, pool
from .machine import Machine
from .masters import FOLDER
from .owned import Finding, Owned, check
from .pool import Pool
from .tree import Tree

LOGS = "/var/log/onehost"
_CONFIG = """; onehost's own file, rewritten by its worker
[global]
error_log = {logs}/php-shard{shard}.log
log_level = warning
daemonize = yes
process.max = 512
rlimit_files = 8192
; Longer than any request may take: an old master finishes what it has.
process_control_timeout = 330s
include = {folder}/shard{shard}/{which}/*.conf
"""


class Php:
    """The Daemon of all PHP-FPM masters."""

    name = "php"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.folder = machine.path(FOLDER)
        self._trees: dict[int, Tree] = {}
        self._gone: set[str] = set()
        self.serving = False

    def tree(self, shard: int) -> Tree:
        """The pools of one shard. Sets its folder up if this is the first account in it."""
        if shard not in self._trees:
            tree = self._trees[shard] = Tree(self.folder / f"shard{shard}")
            tree.recover()
            for which in ("live", "staged"):
                if not (tree.folder / f"{which}.conf").exists():  # else what is there is judged by `check` first
                    files.write(tree.folder / f"{which}.conf", _config(shard, which))
        return self._trees[shard]

    def shards(self) -> list[int]:
        """Every shard of this node."""
        found = self.folder.glob("shard*") if self.folder.is_dir() else []
        return sorted(int(path.name.removeprefix("shard")) for path in found)

    def get(self, owner: int) -> dict[int, bytes]:
        """The owner's live pool files by shard: none, one, or two if it moved."""
        found = {shard: self.tree(shard).files(owner) for shard in self.shards()}
        return {shard: next(iter(contents.values())) for shard, contents in found.items() if contents}

    def holders(self, name: str) -> set[int]:
        """Owners of a pool of this name."""
        return {owner for shard in self.shards() for owner in self.tree(shard).holders(name)}

    def put(self, wanted: Pool) -> None:
        """Stages a pool in its shard, and its absence in all others."""
        for shard in {*self.shards(), wanted.shard}:
            self.tree(shard).put(wanted.owner, {wanted.file: wanted.render()} if shard == wanted.shard else {})

    def drop(self, owner: int) -> None:
        """Stages the absence of an owner's pool."""
        for shard in self.shards():
            self.tree(shard).put(owner, {})

    def ping(self, name: str, shard: int) -> None:
        """Has a pool answer. Raises Permanent with what was seen. Before `start` a shard need not run."""
        if not self.machine.real or not (self.serving or shard in masters.running()):
            return
        try:
            answer = pool.ping(f"{pool.PUBLIC}/{name}.sock", 10)
        except OSError as error:
            raise Permanent(f"PHP pool {name} cannot be reached: {error.strerror or error}") from error
        if answer != "pong":
            raise Permanent(f"PHP pool {name} answered {answer[:80]!r} instead of pong")

    # The contract of a Daemon.

    def changed(self) -> frozenset[int]:
        """See Daemon."""
        return frozenset().union(*(tree.changed() for tree in self._trees.values()))

    def validate(self) -> None:
        """See Daemon. Only shards with changes are tried; one without any pool is not, FPM would refuse it."""
        for shard, tree in self._trees.items():
            if not tree.changed() or not _pools(tree.build()) or not self.machine.real:
                continue
            tried = masters.test(self.machine, shard, "staged")
            if not tried.code:
                continue
            live = masters.test(self.machine, shard, "live")
            if live.code and _pools(tree.live):
                raise Blocked(f"php-fpm: {live.words}")
            culprit = tree.owner_in(tried.output) or _by_name(tree, tried.output)
            raise Permanent(f"php-fpm: {tried.words}", culprit=culprit)

    def switch(self) -> None:
        """See Daemon."""
        for tree in self._trees.values():
            if tree.changed():
                before = _pools(tree.live)
                tree.switch()
                self._gone |= before - _pools(tree.live)

    def signal(self) -> None:
        """Hands every touched shard over to a new master. The others feel nothing."""
        running = masters.running() if self.machine.real else {}
        for shard, tree in self._trees.items():
            if tree.unsignalled():
                if self.machine.real and (self.serving or shard in running):
                    masters.hand_over(self.machine, shard, _pools(tree.live))
                tree.signalled()

    def restore(self, owner: int) -> None:
        """See Daemon."""
        for tree in self._trees.values():
            tree.restore(owner)

    def settle(self) -> None:
        """See Daemon. Sockets of pools that are gone go too, unless the name has a pool again."""
        names = {label.rpartition(".")[0] for tree in self._trees.values() for label in _pools(tree.live)}
        for label in self._gone:
            name = label.rpartition(".")[0]
            if name not in names and self.machine.real:
                with suppress(FileNotFoundError):
                    os.unlink(f"{pool.PUBLIC}/{name}.sock")
        self._gone = set()
        for tree in self._trees.values():
            tree.settle()

    def recover(self) -> None:
        """See Daemon: a running master that was not told of its pools is handed over."""
        if self.machine.real:
            masters.binary()
            Path(pool.PRIVATE).mkdir(parents=True, exist_ok=True)
            for folder, mode in ((pool.PRIVATE, 0o700), (pool.PUBLIC, 0o755), ("/run/onehost", 0o755)):
                os.chmod(folder, mode)
        self.machine.path(LOGS).mkdir(parents=True, exist_ok=True)
        running = masters.running() if self.machine.real else {}
        for shard in self.shards():
            tree = self.tree(shard)
            for which in ("live", "staged"):
                files.ensure(tree.folder / f"{which}.conf", _config(shard, which))
            if shard in running and (tree.unsignalled() or _sockets_missing(_pools(tree.live))):
                masters.hand_over(self.machine, shard, _pools(tree.live))
            tree.signalled()
            tree.settle()

    def start(self) -> None:
        """See Daemon: a master for each shard that has pools and none."""
        self.serving = True
        running = masters.running() if self.machine.real else {}
        for shard in self.shards() if self.machine.real else []:
            pools = _pools(self.tree(shard).live)
            if pools and shard not in running:
                masters.hand_over(self.machine, shard, pools)

    # See Checked, and Program.

    def check(self, settled: frozenset[int], known: frozenset[int]) -> list[Finding]:
        """See Checked."""
        found = []
        for shard in self.shards():
            folder = f"{FOLDER}/shard{shard}"
            wanted = self.tree(shard).owned(folder, settled, known)
            wanted += [Owned(f"{folder}/{which}.conf", _config(shard, which)) for which in ("live", "staged")]
            found += check(self.machine, self.name, wanted, (folder, f"{folder}/trees/{self.tree(shard).number}"))
        return found

    def forget(self) -> None:
        """See Checked."""
        for tree in self._trees.values():
            tree.forget()

    def renew(self) -> None:
        """See Checked."""
        for shard in self.shards():
            self.tree(shard).unsignal()

    def masters(self) -> dict[int, int]:
        """The process id of the newest master of each shard that has pools; 0: none runs."""
        running = masters.running() if self.machine.real else {}
        return {shard: running.get(shard, [0])[0] for shard in self.shards() if _pools(self.tree(shard).live)}

    def hand_over(self) -> None:
        """Has every shard run by a new master, on the sockets of the old one. No request is lost."""
        for shard in self.shards():
            masters.hand_over(self.machine, shard, _pools(self.tree(shard).live))

    def stop(self) -> None:
        """Ends every master; each finishes what it has."""
        for shard in self.shards():
            masters.hand_over(self.machine, shard, set())

    def test(self) -> str:
        """Why FPM refuses a shard's live configuration; empty if it takes all."""
        for shard in self.shards():
            if _pools(self.tree(shard).live):
                said = masters.test(self.machine, shard, "live")
                if said.code:
                    return f"php-fpm: {said.words}"
        return ""


def _config(shard: int, which: str) -> bytes:
    return _CONFIG.format(logs=LOGS, shard=shard, folder=FOLDER, which=which).encode()


def _sockets_missing(pools: set[str]) -> bool:
    return not all(os.path.exists(f"{pool.PUBLIC}/{label.rpartition('.')[0]}.sock") for label in pools)


def _pools(folder: Path) -> set[str]:
    """The pools of a tree as NAME.ID."""
    return {name.removesuffix(".conf") for name in os.listdir(folder) if name.endswith(".conf")}


def _by_name(tree: Tree, words: str) -> str:
    """The owner of the pool that FPM names in `[pool NAME]`."""
    match = re.search(r"\[pool ([a-z0-9]+)\]", words)
    labels = [label for label in _pools(tree.folder / "staged") if match and label.rpartition(".")[0] == match[1]]
    return labels[0].rpartition(".")[2] if len(labels) == 1 else ""
