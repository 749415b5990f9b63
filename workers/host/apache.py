"""Apache: one file per site, tried as a staged tree, switched, and taken by one graceful signal per round."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from ...models.errors import Blocked, Permanent, Temporary
from . import files, modules, server, site
from .access_log import LOGS, AccessLog
from .asking import Asking
from .generations import Generations
from .homes import www_data
from .machine import Machine
from .own_home import OwnHome
from .owned import Finding, Owned, check
from .server import FOLDER
from .site import Site
from .tree import Private, Tree

CONFIG = "/etc/apache2/conf-enabled/zz-onehost.conf"
#: How long Apache may take to serve a new generation, and for each 1,000 sites more.
GENERATION_SECONDS = 10.0


class Apache:
    """The Daemon of Apache."""

    name = "apache"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        private = Private(".users", www_data(), machine.runner.chown)
        derive = lambda folder, number: {"000-onehost.conf": server.default(number)}  # noqa: E731
        self.tree = Tree(machine.path(FOLDER), derive, private)
        self._asking = Asking()
        self._generations = Generations()
        # Its children may read what all accounts show: no link of a tenant's is to lead them to another's.
        self._home = OwnHome(machine, "apache2", "/usr/sbin/apachectl start", f"{FOLDER}/start")
        self.serving = False

    def files(self, owner: int) -> dict[str, bytes]:
        """The owner's live files, by name."""
        return self.tree.files(owner)

    def put(self, owner: int, contents: Mapping[str, bytes]) -> None:
        """Stages all files of an owner."""
        self.tree.put(owner, contents)

    def drop(self, owner: int) -> None:
        """Stages the absence of a site."""
        self.tree.put(owner, {})

    def suspended(self, owner: int) -> bool:
        """Whether the owner's site answers with the notice."""
        return self._flag(owner).exists()

    def suspend(self, owner: int) -> None:
        """Has the owner's site answer with the notice, from the next request on."""
        files.ensure(self._flag(owner), b"")

    def resume(self, owner: int) -> None:
        """Has the owner's site answer again."""
        files.remove(self._flag(owner))

    def verify(self, wanted: Site, suspended: bool) -> None:
        """Asks Apache for the site. Raises Permanent with what was seen. Before `start` it need not run."""
        if not self._answers():
            return
        answer = self._asking.ask(wanted.domain, wanted.question)
        seen = answer.headers.get("x-onehost", "")
        if answer.status != 204 or seen != wanted.answer:
            raise Permanent(
                f"Apache answers {answer.status} {seen!r} for {wanted.domain} instead of 204 {wanted.answer!r}"
            )
        if suspended and (status := self._asking.ask(wanted.domain, "/").status) != 503:
            raise Permanent(f"Apache answers {status} for the suspended {wanted.domain} instead of 503")

    def verify_gone(self, was: Site) -> None:
        """Raises Permanent if Apache still serves a site that was removed."""
        if not self._answers():
            return
        if self._asking.ask(was.domain, was.question).headers.get("x-onehost", "").startswith(f"{was.owner} "):
            raise Permanent(f"Apache still serves {was.domain} for id {was.owner}")

    # The contract of a Daemon.

    def changed(self) -> frozenset[int]:
        """See Daemon."""
        return self.tree.changed()

    def validate(self) -> None:
        """See Daemon."""
        self.tree.build()
        if not self.machine.real:
            return
        tried = self._test("-D", "ONEHOST_STAGED")
        if not tried[0]:
            return
        live = self._test()
        if live[0]:
            raise Blocked(f"apache2: {live[1]}")
        raise Permanent(f"apache2: {tried[1]}", culprit=self.tree.owner_in(tried[2]))

    def switch(self) -> None:
        """See Daemon."""
        if self.tree.changed():
            self.tree.switch()

    def signal(self) -> None:
        """See Daemon. Returns when every child that takes new connections serves the live tree."""
        if self.machine.real and self.tree.unsignalled():
            if main := self._main():
                self._generations.wait_for_room(main)
                self._graceful(main)
            elif self.serving:
                self._systemctl("start")
        self.tree.signalled()

    def reopen(self) -> None:
        """Has Apache open its logs anew, by the same signal. Only between rounds. Raises Blocked or Temporary."""
        if not self.main():
            return
        if words := self.test():
            raise Blocked(words)  # Apache would end, and not come back
        self.tree.unsignal()
        self.signal()

    def restore(self, owner: int) -> None:
        """See Daemon."""
        self.tree.restore(owner)

    def settle(self) -> None:
        """See Daemon."""
        self._asking.leave()
        self.tree.settle()

    def recover(self) -> None:
        """Sets up what Apache includes once. Raises Blocked if its own files are broken."""
        path = self.machine.path
        AccessLog(self.machine).make()
        path(f"{site.SUSPENDED}/.").mkdir(parents=True, exist_ok=True)
        for folder in ("/etc/onehost", FOLDER, site.SUSPENDED):
            path(folder).chmod(0o755)
        self.tree.recover()
        guard = Path(__file__).with_name("guard.lua").read_bytes()
        changed = files.ensure(path(f"{FOLDER}/guard.lua"), guard)
        changed |= files.ensure(path(CONFIG), server.SERVER)
        server.settle_certificate(self.machine)
        changed |= modules.settle(self.machine)
        changed |= self._home.settle()
        if self.machine.real:
            live = self._test()
            if live[0]:
                raise Blocked(f"apache2: {live[1]}")
            if (main := self._main()) and (changed or not self._home.has(main)):
                # A graceful signal does not take a new ServerLimit.
                self._systemctl("restart")
            else:
                self.signal()
        self.tree.signalled()
        self.tree.settle()

    def start(self) -> None:
        """See Daemon."""
        self.serving = True
        if self.machine.real and not self._main():
            self._systemctl("start")
        if self.machine.real and (main := self._main()) and not self._home.has(main):
            raise Blocked(f"apache2: it does not run by {self._home.starter}, so links may lead from home to home")

    def _answers(self) -> bool:
        return self.machine.real and (self.serving or bool(self._main()))

    # See Checked, and Program.

    def check(self, settled: frozenset[int], known: frozenset[int]) -> list[Finding]:
        """See Checked."""
        guard = Path(__file__).with_name("guard.lua").read_bytes()
        wanted = [*self.tree.owned(FOLDER, settled, known), Owned(site.SUSPENDED, mode=0o755, is_folder=True)]
        wanted.append(Owned(LOGS, mode=0o700, is_folder=True))
        wanted += self._home.owned()
        wanted += [Owned(f"{FOLDER}/guard.lua", guard), Owned(CONFIG, server.SERVER.encode())]
        wanted += [Owned(f"{site.SUSPENDED}/{owner}", owner=owner, is_free=True) for owner in settled | known]
        closed = (FOLDER, f"{FOLDER}/trees/{self.tree.number}", site.SUSPENDED)
        return check(self.machine, self.name, wanted, closed) + modules.wrong(self.machine, self.name)

    def forget(self) -> None:
        """See Checked."""
        self.tree.forget()

    def renew(self) -> None:
        """See Checked."""
        self.tree.unsignal()

    def main(self) -> int:
        """The process id of Apache's main process; 0 if it does not run."""
        return self._main() if self.machine.real else 0

    def test(self) -> str:
        """Why Apache refuses the live configuration, as FILE:LINE: WORDS; empty if it takes it."""
        code, words, _ = self._test()
        return f"apache2: {words}" if code else ""

    # How Apache is reached.

    @cached_property
    def _environment(self) -> dict[str, str]:
        said = self.machine.runner.run(["sh", "-c", ". /etc/apache2/envvars && env -0"]).check(Blocked)
        pairs = (pair.partition("=") for pair in said.output.split("\0"))
        return {name: value for name, _, value in pairs if name.startswith("APACHE_")}

    def _test(self, *defines: str) -> tuple[int, str, str]:
        """Exit status, words as FILE:LINE where they name a line, and the whole output of the configuration test."""
        Path(self._environment["APACHE_RUN_DIR"]).mkdir(parents=True, exist_ok=True)
        ended = self.machine.runner.run(["apache2", "-t", *defines], env=self._environment, seconds=60)
        # An error in an included file is told as one in the file that includes it, and then where it is.
        found = re.search(r".*on line (\d+) of (\S+?):?\s+(.*)", ended.output, re.DOTALL)
        words = f"{found[2]}:{found[1]}: {' '.join(found[3].split())}" if found else ended.words
        return ended.code, words[:600], ended.output

    def _main(self) -> int:
        """The process id of Apache's main process; 0 if it does not run."""
        text = files.read(Path(self._environment["APACHE_PID_FILE"])) or b""
        pid = int(text) if text.strip().isdigit() else 0
        comm = files.read(Path(f"/proc/{pid}/comm")) if pid else None
        return pid if comm and comm.strip() == b"apache2" else 0

    def _systemctl(self, verb: str) -> None:
        self.machine.runner.run(["systemctl", verb, "apache2"], seconds=90).check(Temporary)
        self._generations.forget()

    def _graceful(self, main: int) -> None:
        deadline = time.monotonic() + GENERATION_SECONDS * (1 + len(self.tree.owners()) / 1000)
        wanted = str(self.tree.number)
        self._generations.begin(main)
        # Apache tells nobody that it is done; its answers and its children's descriptors show it.
        while self._generations.old_ones_accept() or self._served() != wanted:
            if not self._main():
                self._systemctl("start")
                raise Temporary("Apache ended when it was asked to take new files; it was started again")
            if time.monotonic() > deadline:
                raise Temporary(f"Apache still serves tree {self._served()} and not {wanted}")
            time.sleep(0.003)

    def _served(self) -> str:
        try:
            self._asking.leave()
            return self._asking.ask("onehost.invalid", f"{site.WELL_KNOWN}/tree").headers.get("x-onehost-tree", "")
        except Temporary:
            return ""

    def _flag(self, owner: int) -> Path:
        return self.machine.path(f"{site.SUSPENDED}/{owner}")
