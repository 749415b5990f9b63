"""Apache: one file per site, tried as a staged tree, switched, and taken by one graceful signal per round."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...models.errors import Blocked, Permanent, Temporary
from . import files, modules, site
from .machine import Machine
from .site import Site
from .tree import Tree

FOLDER = "/etc/onehost/apache"
CONFIG = "/etc/apache2/conf-enabled/zz-onehost.conf"
#: Least time between two signals.
SPACING_SECONDS = 0.3
#: Old generations that may still serve slow requests when a new one is asked for.
OLD_GENERATIONS = 2
#: A main process that sleeps this long after a signal, in seconds, while no old child accepts, naps.
NUDGE_SECONDS = 0.01
NAP_SECONDS = 1.1
#: How long a signal waits for an old generation to end, or for room beside it.
ROOM_SECONDS = 3.0
#: Children beyond which there is no room for another generation: half of ServerLimit.
ROOM_CHILDREN = 16
#: How long Apache may take to serve a new generation, and for each 1,000 sites more.
GENERATION_SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """What Apache on this machine answered."""

    status: int
    headers: dict[str, str]


class Apache:
    """The Daemon of Apache."""

    name = "apache"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.tree = Tree(machine.path(FOLDER), lambda folder, number: {"000-onehost.conf": site.default(number)})
        self._generations: dict[int, int] = {}
        self._last_signal = -SPACING_SECONDS
        self.serving = False

    def get(self, owner: int) -> bytes | None:
        """The owner's live site file."""
        return next(iter(self.tree.files(owner).values()), None)

    def put(self, wanted: Site) -> None:
        """Stages a site."""
        self.tree.put(wanted.owner, {wanted.file: wanted.render()})

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
        answer = self.ask(wanted.domain, wanted.question)
        seen = answer.headers.get("x-onehost", "")
        if answer.status != 204 or seen != wanted.answer:
            raise Permanent(
                f"Apache answers {answer.status} {seen!r} for {wanted.domain} instead of 204 {wanted.answer!r}"
            )
        if suspended and (status := self.ask(wanted.domain, "/").status) != 503:
            raise Permanent(f"Apache answers {status} for the suspended {wanted.domain} instead of 503")

    def verify_gone(self, was: Site) -> None:
        """Raises Permanent if Apache still serves a site that was removed."""
        if not self._answers():
            return
        if self.ask(was.domain, was.question).headers.get("x-onehost", "").startswith(f"{was.owner} "):
            raise Permanent(f"Apache still serves {was.domain} for id {was.owner}")

    def ask(self, host: str, path: str) -> Answer:
        """One request to Apache on this machine. Raises Temporary if it does not answer."""
        try:
            with socket.create_connection(("127.0.0.1", 80), timeout=5) as client:
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                answer = b""
                while b"\r\n\r\n" not in answer and (block := client.recv(65536)):
                    answer += block
        except OSError as error:
            raise Temporary(f"Apache does not answer on port 80: {error.strerror or error}") from error
        first, *lines = answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        status = first.split(" ")[1] if first.startswith("HTTP/") else "0"
        return Answer(int(status), {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)})

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
                self._wait_for_room(main)
                self._graceful(main)
            elif self.serving:
                self._systemctl("start")
        self.tree.signalled()

    def restore(self, owner: int) -> None:
        """See Daemon."""
        self.tree.restore(owner)

    def settle(self) -> None:
        """See Daemon."""
        self.tree.settle()

    def recover(self) -> None:
        """Sets up what Apache includes once. Raises Blocked if its own files are broken."""
        path = self.machine.path
        path(f"{site.SUSPENDED}/.").mkdir(parents=True, exist_ok=True)
        for folder in ("/etc/onehost", FOLDER, site.SUSPENDED):
            path(folder).chmod(0o755)
        self.tree.recover()
        guard = Path(__file__).with_name("guard.lua").read_bytes()
        changed = files.ensure(path(f"{FOLDER}/guard.lua"), guard)
        changed |= files.ensure(path(CONFIG), site.SERVER)
        changed |= modules.settle(self.machine)
        if self.machine.real:
            live = self._test()
            if live[0]:
                raise Blocked(f"apache2: {live[1]}")
            if changed and self._main():
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

    def _answers(self) -> bool:
        return self.machine.real and (self.serving or bool(self._main()))

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
        found = re.search(r"on line (\d+) of (\S+?):?\s+(.*)", ended.output, re.DOTALL)
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
        self._generations = {}

    def _graceful(self, main: int) -> None:
        old = _children(main)
        generation = max(self._generations.values(), default=0) + 1
        listening = _listening(main)
        self._generations = {pid: self._generations.get(pid, generation) for pid in old}
        self._last_signal = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(main, signal.SIGUSR1)
        deadline = time.monotonic() + GENERATION_SECONDS * (1 + len(self.tree.owners()) / 1000)
        wanted = str(self.tree.number)
        self._await_children(main, old, listening)
        # Apache tells nobody that it is done; its answers and its children's descriptors show it.
        while any(_sockets(pid) & listening for pid in old) or self._served() != wanted:
            if not self._main():
                self._systemctl("start")
                raise Temporary("Apache ended when it was asked to take new files; it was started again")
            if time.monotonic() > deadline:
                raise Temporary(f"Apache still serves tree {self._served()} and not {wanted}")
            time.sleep(0.003)

    def _await_children(self, main: int, old: list[int], listening: set[str]) -> None:
        """Waits for the first child of the new generation, at most as long as Apache's nap.

        Apache looks for dead children once and then naps for a second: children that stop a little later are replaced
        only after the nap, and nobody accepts meanwhile. Another signal ends it, and they are found at once.
        """
        nudge_at = self._last_signal + NUDGE_SECONDS
        while not set(_children(main)) - set(old) and time.monotonic() < self._last_signal + NAP_SECONDS:
            if time.monotonic() > nudge_at and _sleeps(main) and not any(_sockets(pid) & listening for pid in old):
                with suppress(ProcessLookupError):
                    os.kill(main, signal.SIGUSR1)
                nudge_at = time.monotonic() + NUDGE_SECONDS
            time.sleep(0.001)

    def _served(self) -> str:
        try:
            return self.ask("onehost.invalid", f"{site.WELL_KNOWN}/tree").headers.get("x-onehost-tree", "")
        except Temporary:
            return ""

    def _wait_for_room(self, main: int) -> None:
        """Spaces signals. Raises Temporary if slow requests hold so many old children that there is no room."""
        time.sleep(max(0.0, self._last_signal + SPACING_SECONDS - time.monotonic()))
        deadline = time.monotonic() + ROOM_SECONDS
        while True:
            listening, children = _listening(main), _children(main)
            old = {self._generations.get(pid, 0) for pid in children if not _sockets(pid) & listening}
            if len(old) < OLD_GENERATIONS:
                return
            if time.monotonic() > deadline:
                if len(children) < ROOM_CHILDREN:
                    return
                raise Temporary(f"{len(old)} old generations of Apache still serve slow requests, no room for another")
            time.sleep(0.05)

    def _flag(self, owner: int) -> Path:
        return self.machine.path(f"{site.SUSPENDED}/{owner}")


def _children(pid: int) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _sleeps(pid: int) -> bool:
    """Whether a process waits for something instead of working."""
    stat = files.read(Path(f"/proc/{pid}/stat")) or b""
    return stat.rpartition(b")")[2].split()[:1] == [b"S"]


def _listening(pid: int) -> set[str]:
    """The sockets of a process that listen. Apache's main process has another one, which all children inherit."""
    tables = [files.read(Path(f"/proc/{pid}/net/{name}")) or b"" for name in ("tcp", "tcp6")]
    rows = [row for table in tables for line in table.splitlines()[1:] if (row := line.split())[3] == b"0A"]
    return {f"socket:[{row[9].decode()}]" for row in rows} & _sockets(pid)


def _sockets(pid: int) -> set[str]:
    """The sockets a process has open; none if it has ended."""
    found: set[str] = set()
    with suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    return {name for name in found if name.startswith("socket:")}
