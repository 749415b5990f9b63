"""The running HAProxy: its process, and what it is asked and told through its sockets."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...models.errors import Temporary
from . import balance, files
from .balance import Server, Service
from .machine import Machine
from .run import Ended

MASTER = "/run/haproxy-master.sock"
PID = Path("/run/haproxy.pid")
#: Least time between two reloads: nearer ones lose persistence, as tables are still being handed over.
SPACING_SECONDS = 3.0
#: How long HAProxy may take to serve a new file.
TAKE_SECONDS = 10.0
#: How long it may take to answer a question.
ANSWER_SECONDS = 5.0
#: Bits of a server's administrative state that a hand has set: forced maintenance, forced drain.
_BY_HAND = 0x01 | 0x08


@dataclass(frozen=True)
class Known:
    """A server of one proxy as HAProxy has it now."""

    proxy: str
    name: str
    number: int
    address: str
    weight: int
    by_hand: bool


class Proxy:
    """HAProxy on this machine, under its service manager."""

    def __init__(self, machine: Machine) -> None:
        self._run = machine.runner.run
        self._last_reload = -SPACING_SECONDS

    def main(self) -> int:
        """The process id of its master; 0 if it does not run."""
        words = (files.read(PID) or b"").split()
        name = files.read(Path(f"/proc/{int(words[0])}/comm")) if words else None
        return int(words[0]) if name and name.strip() == b"haproxy" else 0

    def take(self, structure: str) -> None:
        """Has it serve the live file, whose structure this is: started or reloaded, unless it has it already.

        Returns when it does. Raises Temporary if it does not.
        """
        if not self.main():
            self._systemctl("reset-failed")
            self._systemctl("start").check(Temporary)
        elif (runs := self._structure()) == structure:
            return
        elif runs:
            self._reload()
        else:
            # Another hand's HAProxy, or one that started with another file: it has no socket of ours.
            self._systemctl("restart").check(Temporary)
        self._await(structure)

    def stop(self) -> None:
        """Ends it, if it runs."""
        if self.main():
            self._systemctl("stop").check(Temporary)

    def weigh(self, services: Iterable[Service], servers: Iterable[Server]) -> None:
        """Brings the running weights to the wanted ones. Nothing is told that is so already."""
        known = {(one.proxy, one.number): one for one in self.servers()}
        for of in services:
            for server in balance.members(of, servers):
                is_ = known.get((of.proxy, server.number))
                if is_ and is_.by_hand:
                    self._tell(f"set server {of.proxy}/{server.name} state ready")
                if is_ and is_.weight != server.effective_weight:
                    self._tell(f"set server {of.proxy}/{server.name} weight {server.effective_weight}")

    def expel(self, of: Service, server: Server) -> None:
        """Forgets that clients are to stay on this server: at their next connection they are given another."""
        if of.persistence_seconds:
            self._tell(f"clear table {of.proxy} data.server_id eq {server.number}")

    def servers(self) -> list[Known]:
        """Every server of every proxy."""
        rows = [line.split() for line in self.ask("show servers state").splitlines()]
        return [
            Known(row[1], row[3], int(row[2]), row[4], int(row[7]), bool(int(row[6]) & _BY_HAND))
            for row in rows
            if len(row) > 7 and row[0].isdigit()
        ]

    def front(self, proxy: str) -> str:
        """The state of a proxy's listening side, OPEN if it serves; "missing" if there is no such proxy."""
        rows = _rows(self.ask("show stat -1 1 -1"))
        return next((row["status"] for row in rows if row["pxname"] == proxy), "missing")

    def connections(self, number: int) -> int:
        """Open connections to a server, over all proxies, with those that workers of before a reload carry."""
        texts = [
            self.ask("show stat -1 4 -1"),
            *(self._ask_master(f"@!{pid} show stat -1 4 -1") for pid in self._old()),
        ]
        return sum(int(row["scur"] or 0) for text in texts for row in _rows(text) if row["sid"] == str(number))

    def ask(self, command: str) -> str:
        """One question to the worker that serves. Raises Temporary if it does not answer."""
        return _talk(balance.SOCKET, command)

    def _tell(self, command: str) -> None:
        if said := self.ask(command).strip():
            raise Temporary(f"HAProxy: {command}: {said}")

    def _systemctl(self, verb: str) -> Ended:
        return self._run(["systemctl", verb, "haproxy"], seconds=90)

    def _reload(self) -> None:
        time.sleep(max(0.0, self._last_reload + SPACING_SECONDS - time.monotonic()))
        if main := self.main():
            self._last_reload = time.monotonic()
            with suppress(ProcessLookupError):
                os.kill(main, signal.SIGUSR2)

    def _await(self, structure: str) -> None:
        deadline = time.monotonic() + TAKE_SECONDS
        # HAProxy tells nobody that a new worker serves; whoever answers at its socket shows it.
        while (runs := self._structure()) != structure:
            if time.monotonic() > deadline:
                raise Temporary(f"HAProxy has {runs or 'nothing'} and not {structure}; its log tells why")
            time.sleep(0.01)

    def _structure(self) -> str:
        """The structure of the file it serves; empty if none of ours answers."""
        if not _listens(balance.SOCKET):
            return ""
        match = re.search(r"^description: (\S+)$", self.ask("show info"), re.MULTILINE)
        return match[1] if match else ""

    def _old(self) -> list[int]:
        """Workers that a reload replaced and that still carry connections."""
        if not _listens(MASTER):
            return []
        old = self._ask_master("show proc").partition("# old workers")[2].partition("# programs")[0]
        return [int(row[0]) for line in old.splitlines() if (row := line.split()) and row[0].isdigit()]

    @staticmethod
    def _ask_master(command: str) -> str:
        return _talk(MASTER, command, half_close=True)


def _talk(path: str, command: str, *, half_close: bool = False) -> str:
    """What is answered to one command. The master's socket ends its answer only if nothing more can come."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(ANSWER_SECONDS)
            client.connect(path)
            client.sendall(command.encode() + b"\n")
            if half_close:
                client.shutdown(socket.SHUT_WR)
            answer = b""
            while block := client.recv(65536):
                answer += block
    except OSError as error:
        raise Temporary(f"HAProxy does not answer on {path}: {error.strerror or error}") from error
    return answer.decode(errors="replace")


def _listens(path: str) -> bool:
    """Whether somebody listens at a socket; one that is slow does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(ANSWER_SECONDS)
        try:
            client.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            raise Temporary(f"HAProxy does not answer on {path}: {error.strerror or error}") from error
    return True


def _rows(text: str) -> list[dict[str, str]]:
    _, mark, body = text.partition("# pxname,")
    return list(csv.DictReader(io.StringIO("pxname," + body.strip()))) if mark else []
