"""HAProxy on a director: its whole file is ours; weights go through its socket too, so a drain needs no reload."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ...models.errors import Blocked, Permanent, Temporary
from . import balance, files, route
from .balance import Server, Service
from .machine import Machine
from .tree import Tree

FOLDER = "/etc/onehost/director"
CONFIG = "/etc/haproxy/haproxy.cfg"
MASTER = "/run/haproxy-master.sock"
PID = "/run/haproxy.pid"
#: Least time between two reloads: nearer ones lose persistence.
SPACING_SECONDS = 3.0
RELOAD_SECONDS = 10.0


class Director:
    """The Daemon of HAProxy."""

    name = "director"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.tree = Tree(machine.path(FOLDER), _derive)
        self._last_reload = -SPACING_SECONDS
        self.serving = False

    def service(self, owner: int) -> Service | None:
        """An owner's live virtual service."""
        return next((balance.service(t) for n, t in self.tree.files(owner).items() if n.startswith("service.")), None)

    def server(self, owner: int) -> Server | None:
        """An owner's live server."""
        return next((balance.server(t) for n, t in self.tree.files(owner).items() if n.startswith("server.")), None)

    def put(self, wanted: Service | Server) -> None:
        """Stages a virtual service or a server."""
        self.tree.put(wanted.owner, {wanted.file: balance.document(wanted)})

    def drop(self, owner: int) -> None:
        """Stages the absence of an owner's service or server."""
        self.tree.put(owner, {})

    def others(self, owner: int, name: str, kind: type[Service] | type[Server]) -> list[int]:
        """Other owners of a live service or server of this name."""
        services, servers = _read(self.tree.live)
        things: list[Service] | list[Server] = services if kind is Service else servers
        return [thing.owner for thing in things if thing.name == name and thing.owner != owner]

    def connections(self, name: str) -> int:
        """Open connections of a node, over all virtual services, those of older HAProxy workers included."""
        if not self._answers():
            return 0
        texts = [self.say("show stat -1 4 -1")]
        texts += [_talk(MASTER, f"@!{pid} show stat -1 4 -1") for pid in self._old_workers()]
        return sum(int(row["scur"] or 0) for text in texts for row in _rows(text) if row["svname"] == name)

    def verify_server(self, wanted: Server) -> None:
        """Raises Permanent if HAProxy reckons with another weight, or does not know the node in one of its services."""
        if not self._answers():
            return
        rows = {row["pxname"]: row for row in _rows(self.say("show stat -1 4 -1")) if row["svname"] == wanted.name}
        for of in (s for s in _read(self.tree.live)[0] if wanted.roles and s.role in wanted.roles):
            row = rows.get(of.proxy)
            if row is None:
                raise Permanent(f"HAProxy does not know {wanted.name} in {of.name}")
            if int(row["weight"]) != wanted.effective_weight:
                raise Permanent(
                    f"HAProxy gives {wanted.name} the weight {row['weight']} in {of.name} "
                    f"instead of {wanted.effective_weight}"
                )

    def verify_service(self, wanted: Service) -> None:
        """Raises Permanent if HAProxy does not listen for a service, or lacks one of its real servers."""
        if not self._answers():
            return
        rows = [row for row in _rows(self.say("show stat -1 7 -1")) if row["pxname"] == wanted.proxy]
        front = next((row["status"] for row in rows if row["svname"] == "FRONTEND"), "missing")
        if front != "OPEN" or not _listens(wanted.address, wanted.port):
            raise Permanent(f"HAProxy does not listen on {wanted.address} port {wanted.port} (proxy {front})")
        expected = {server.name for server in balance.members(wanted, _read(self.tree.live)[1])}
        known = {row["svname"] for row in rows} - {"FRONTEND", "BACKEND"}
        if expected != known:
            names = ", ".join(sorted(expected ^ known))
            raise Permanent(f"HAProxy and onehost differ in the real servers of {wanted.name}: {names}")

    def verify_gone(self, proxy: str) -> None:
        """Raises Permanent if a removed service is still served."""
        if self._answers() and any(row["pxname"] == proxy for row in _rows(self.say("show stat -1 1 -1"))):
            raise Permanent(f"HAProxy still serves {proxy}")

    def say(self, command: str) -> str:
        """One command to the running HAProxy. Raises Temporary if it does not answer."""
        return _talk(balance.SOCKET, command)

    # The contract of a Daemon.

    def changed(self) -> frozenset[int]:
        """See Daemon."""
        return self.tree.changed()

    def validate(self) -> None:
        """See Daemon."""
        staged = self.tree.build()
        if not self.machine.real:
            return
        _, servers = _read(staged)
        numbers: dict[int, str] = {}
        for server in servers:
            if (other := numbers.setdefault(server.number, server.name)) != server.name:
                raise Permanent(f"nodes {other} and {server.name} get the same number", culprit=str(server.owner))
        tried = self.machine.runner.run(["haproxy", "-c", "-f", f"{FOLDER}/staged/haproxy.cfg"])
        if tried.code:
            live = self.machine.runner.run(["haproxy", "-c", "-f", CONFIG])
            if live.code:
                raise Blocked(f"haproxy: {live.words}")
            raise Permanent(f"haproxy: {tried.words}", culprit=_culprit(staged, tried.output))

    def switch(self) -> None:
        """See Daemon."""
        if self.tree.changed():
            self.tree.switch()

    def signal(self) -> None:
        """See Daemon. New weights alone are told through the socket; anything else is a reload."""
        if self.machine.real and self.tree.unsignalled() and (self.serving or self._main()):
            self._serve()
        self.tree.signalled()

    def restore(self, owner: int) -> None:
        """See Daemon."""
        self.tree.restore(owner)

    def settle(self) -> None:
        """See Daemon."""
        self.tree.settle()

    def recover(self) -> None:
        """Makes HAProxy's file ours and sets up the way back of answers. Raises Blocked if HAProxy refuses it."""
        self.tree.recover()
        config = self.machine.path(CONFIG)
        config.parent.mkdir(parents=True, exist_ok=True)
        if files.pointed(config) != f"{FOLDER}/live/haproxy.cfg":
            files.link(config, f"{FOLDER}/live/haproxy.cfg")
        if self.machine.real:
            Path("/run/haproxy").mkdir(mode=0o755, exist_ok=True)
            route.prepare(self.machine)
            tried = self.machine.runner.run(["haproxy", "-c", "-f", CONFIG])
            if tried.code:
                raise Blocked(f"haproxy: {tried.words}")
            if self._main():
                self._serve()
        self.tree.signalled()
        self.tree.settle()

    def start(self) -> None:
        """See Daemon."""
        self.serving = True
        if self.machine.real:
            self._serve()

    # How HAProxy is reached.

    def _serve(self) -> None:
        """Has HAProxy run with the live file: started, reloaded, or told new weights, whichever is needed."""
        services, servers = _read(self.tree.live)
        addresses = {service.address for service in services}
        route.bind(self.machine, addresses)
        _, structure = balance.render(services, servers)
        if not self._main():
            self._start(structure)
        elif self._structure() != structure:
            self._reload(structure)
        self._weigh(services, servers)
        route.unbind(self.machine, addresses)

    def _answers(self) -> bool:
        return self.machine.real and (self.serving or bool(self._main()))

    def _start(self, structure: str) -> None:
        self.machine.runner.run(["systemctl", "start", "haproxy"], seconds=90).check(Temporary)
        self._await(structure)

    def _reload(self, structure: str) -> None:
        time.sleep(max(0.0, self._last_reload + SPACING_SECONDS - time.monotonic()))
        self._last_reload = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(self._main(), signal.SIGUSR2)
        self._await(structure)

    def _await(self, structure: str) -> None:
        deadline = time.monotonic() + RELOAD_SECONDS
        while (runs := self._structure()) != structure:
            if time.monotonic() > deadline:
                raise Temporary(f"HAProxy serves {runs or 'nothing'} and not {structure}")
            time.sleep(0.01)

    def _structure(self) -> str:
        with suppress(Temporary):
            match = re.search(r"^description: (\S+)$", self.say("show info"), re.MULTILINE)
            return match[1] if match else ""
        return ""

    def _weigh(self, services: list[Service], servers: list[Server]) -> None:
        """Brings the running weights to the wanted ones, and moves persistent clients off drained nodes."""
        rows = {(row["pxname"], row["svname"]): row for row in _rows(self.say("show stat -1 4 -1"))}
        for of in services:
            for server in balance.members(of, servers):
                row = rows.get((of.proxy, server.name))
                if row and int(row["weight"]) != server.effective_weight:
                    said = self.say(f"set server {of.proxy}/{server.name} weight {server.effective_weight}").strip()
                    if said:
                        raise Temporary(f"HAProxy: {said}")
                if server.traffic == "drained" and of.persistence_seconds:
                    self.say(f"clear table {of.proxy} data.server_id eq {server.number}")

    def _main(self) -> int:
        text = files.read(Path(PID)) or b""
        pid = int(text.split()[0]) if text.split() else 0
        comm = files.read(Path(f"/proc/{pid}/comm")) if pid else None
        return pid if comm and comm.strip() == b"haproxy" else 0

    def _old_workers(self) -> list[int]:
        if not os.path.exists(MASTER):
            return []
        old = _talk(MASTER, "show proc").partition("# old workers")[2].partition("# programs")[0]
        return [int(row[0]) for line in old.splitlines() if len(row := line.split()) > 1 and row[0].isdigit()]


def _derive(folder: Path, number: int) -> dict[str, bytes]:
    return {"haproxy.cfg": balance.render(*_read(folder))[0].encode()}


def _read(folder: Path) -> tuple[list[Service], list[Server]]:
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    services = [balance.service((folder / n).read_bytes()) for n in names if n.startswith("service.")]
    return services, [balance.server((folder / n).read_bytes()) for n in names if n.startswith("server.")]


def _culprit(folder: Path, words: str) -> str:
    """The owner of the line of the staged file that HAProxy names."""
    found = re.search(r"haproxy\.cfg:(\d+)\]", words)
    if not found:
        return ""
    services, servers = _read(folder)
    lines = (folder / "haproxy.cfg").read_text().splitlines()[: int(found[1])]
    for line in reversed(lines):
        word, _, rest = line.strip().partition(" ")
        if word == "server" and line is lines[-1]:
            return next((str(s.owner) for s in servers if s.name == rest.split()[0]), "")
        if word == "listen":
            return next((str(s.owner) for s in services if s.proxy == rest), "")
    return ""


def _talk(path: str, command: str) -> str:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            client.connect(path)
            client.sendall(command.encode() + b"\n")
            answer = b""
            while block := client.recv(65536):
                answer += block
    except OSError as error:
        raise Temporary(f"HAProxy does not answer on {path}: {error.strerror or error}") from error
    return answer.decode(errors="replace")


def _rows(text: str) -> Iterator[dict[str, str]]:
    lines = [line for line in text.splitlines() if line.strip()]
    start = next((i for i, line in enumerate(lines) if line.startswith("# pxname")), None)
    if start is not None:
        yield from csv.DictReader(io.StringIO("\n".join([lines[start][2:], *lines[start + 1 :]])))


def _listens(address: str, port: int) -> bool:
    """Whether some socket of this machine listens there, by the kernel's own table."""
    family, table = (socket.AF_INET6, "tcp6") if ":" in address else (socket.AF_INET, "tcp")
    packed = socket.inet_pton(family, address)
    words = "".join(packed[i : i + 4][::-1].hex() for i in range(0, len(packed), 4)).upper()
    text = Path(f"/proc/net/{table}").read_text()
    rows = [line.split() for line in text.splitlines()[1:]]
    return any(row[1] == f"{words}:{port:04X}" and row[3] == "0A" for row in rows)
