"""A director: HAProxy's whole file, rendered from the documents of services and nodes; weights go by its socket."""

from __future__ import annotations

import errno
import os
import re
import socket
from pathlib import Path

from ...models.errors import Blocked, Permanent, Temporary
from . import balance, files, route
from .balance import Server, Service
from .machine import Machine
from .owned import Finding, Owned, check
from .proxy import Proxy
from .tree import Tree

FOLDER = "/etc/onehost/director"
CONFIG = "/etc/haproxy/haproxy.cfg"
#: What stood at CONFIG before it was ours, for the operator.
BEFORE = f"{CONFIG}.before-onehost"
#: From linux/in.h: an address may be bound that this machine does not have (yet).
_IP_FREEBIND = 15


class Director:
    """The Daemon of HAProxy."""

    name = "director"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.tree = Tree(machine.path(FOLDER), _derive)
        self.proxy = Proxy(machine)
        #: Whether HAProxy may be started by now.
        self.serving = False

    # What reconcilers say and ask.

    def service(self, owner: int) -> Service | None:
        """An owner's live virtual service."""
        return next((balance.service(t) for n, t in self.tree.files(owner).items() if n.startswith("service.")), None)

    def server(self, owner: int) -> Server | None:
        """A node's live server."""
        return next((balance.server(t) for n, t in self.tree.files(owner).items() if n.startswith("server.")), None)

    def put(self, wanted: Service | Server) -> None:
        """Stages a virtual service or a server."""
        self.tree.put(wanted.owner, {wanted.file: balance.document(wanted)})

    def drop(self, owner: int) -> None:
        """Stages the absence of an owner's service or server."""
        self.tree.put(owner, {})

    def holders(self, thing: Service | Server) -> set[int]:
        """Owners of a live thing of this kind and name."""
        alike = [each for some in _read(self.tree.live) for each in some if isinstance(each, type(thing))]
        return {each.owner for each in alike if each.name == thing.name}

    def connections(self, owner: int) -> int:
        """Open connections of a node, over all virtual services."""
        server = self.server(owner)
        return self.proxy.connections(server.number) if server and self._answers() else 0

    def align(self) -> None:
        """Mends what another hand changed in the running HAProxy: its weights, or that it ended."""
        if self._answers():
            self._serve()

    def expel(self, owner: int) -> None:
        """Has persistent clients of a node go elsewhere with their next connection."""
        services, _ = _read(self.tree.live)
        server = self.server(owner)
        if server and self._answers():
            for of in services:
                if of.role in server.roles:
                    self.proxy.expel(of, server)

    def verify_server(self, wanted: Server) -> None:
        """Raises Permanent if HAProxy has a node otherwise than wanted, or not at all in one of its services."""
        if not self._answers():
            return
        known = {one.proxy: one for one in self.proxy.servers() if one.number == wanted.number}
        for of in (service for service in _read(self.tree.live)[0] if service.role in wanted.roles):
            is_ = known.get(of.proxy)
            if is_ is None:
                raise Permanent(f"HAProxy does not know {wanted.name} in {of.name}")
            if is_.address != wanted.address:
                raise Permanent(f"HAProxy reaches {wanted.name} at {is_.address} in {of.name}, not {wanted.address}")
            if is_.weight != wanted.effective_weight:
                raise Permanent(
                    f"HAProxy gives {wanted.name} the weight {is_.weight} in {of.name}, not {wanted.effective_weight}"
                )

    def verify_no_server(self, owner: int) -> None:
        """Raises Permanent if HAProxy still knows a removed node."""
        number = Server(owner, "", "", (), 0, "").number
        if self._answers() and (left := [one for one in self.proxy.servers() if one.number == number]):
            raise Permanent(f"HAProxy still knows {left[0].name} in {left[0].proxy}")

    def verify_service(self, wanted: Service) -> None:
        """Raises Permanent if HAProxy does not listen for a service, or has other real servers than it is to have."""
        if not self._answers():
            return
        if (front := self.proxy.front(wanted.proxy)) != "OPEN":
            raise Permanent(f"HAProxy does not listen on {wanted.address} port {wanted.port} ({front})")
        expected = {server.number: server.name for server in balance.members(wanted, _read(self.tree.live)[1])}
        known = {one.number: one.name for one in self.proxy.servers() if one.proxy == wanted.proxy}
        if expected != known:
            names = ", ".join(sorted({*expected.values()} ^ {*known.values()}) or sorted(expected.values()))
            raise Permanent(f"HAProxy and onehost differ in the real servers of {wanted.name}: {names}")

    def verify_no_service(self, proxy: str) -> None:
        """Raises Permanent if a removed service is still served."""
        if self._answers() and self.proxy.front(proxy) != "missing":
            raise Permanent(f"HAProxy still serves {proxy}")

    # The contract of a Daemon.

    def changed(self) -> frozenset[int]:
        """See Daemon."""
        return self.tree.changed()

    def validate(self) -> None:
        """See Daemon."""
        staged = self.tree.build()
        services, _ = _read(staged)
        # Without a service there is no listener, which HAProxy refuses; it is stopped then.
        if not self.machine.real or not services:
            return
        tried = self.machine.runner.run(["haproxy", "-c", "-f", f"{FOLDER}/staged/haproxy.cfg"])
        if tried.code:
            live = self.machine.runner.run(["haproxy", "-c", "-f", CONFIG])
            if live.code and _read(self.tree.live)[0]:
                raise Blocked(f"haproxy: {live.words}")
            raise Permanent(f"haproxy: {tried.words}", culprit=_culprit(staged, tried.output))
        ours = {(of.address, of.port) for of in _read(self.tree.live)[0]}
        for of in services:
            if (of.address, of.port) not in ours:
                _try_port(of)

    def switch(self) -> None:
        """See Daemon."""
        if self.tree.changed():
            self.tree.switch()

    def signal(self) -> None:
        """See Daemon. New weights alone are told through the socket; the first service starts it, the last stops it."""
        if self.tree.unsignalled() and self._may_touch():
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
        self._own_config()
        if self.machine.real:
            Path(balance.SOCKET).parent.mkdir(mode=0o755, exist_ok=True)
            route.prepare(self.machine)
            if _read(self.tree.live)[0]:
                tried = self.machine.runner.run(["haproxy", "-c", "-f", CONFIG])
                if tried.code:
                    raise Blocked(f"haproxy: {tried.words}")
            if self._may_touch():
                self._serve()
        self.tree.signalled()
        self.tree.settle()

    def start(self) -> None:
        """See Daemon."""
        self.serving = True
        if self.machine.real:
            self._serve()

    # See Checked, and Program.

    def check(self, settled: frozenset[int], known: frozenset[int]) -> list[Finding]:
        """See Checked."""
        wanted = self.tree.owned(FOLDER, settled, known)
        wanted.append(Owned(CONFIG, target=f"../onehost/director/live/{Path(CONFIG).name}"))
        return check(self.machine, self.name, wanted, (FOLDER, f"{FOLDER}/trees/{self.tree.number}"))

    def forget(self) -> None:
        """See Checked."""
        self.tree.forget()

    def renew(self) -> None:
        """See Checked."""
        self.tree.unsignal()

    def has_work(self) -> bool:
        """Whether there is a service; without one HAProxy does not run."""
        return bool(_read(self.tree.live)[0])

    def test(self) -> str:
        """Why HAProxy refuses the live configuration; empty if it takes it, or needs none."""
        if not self.has_work():
            return ""
        tried = self.machine.runner.run(["haproxy", "-c", "-f", CONFIG])
        return f"haproxy: {tried.words}" if tried.code else ""

    def _may_touch(self) -> bool:
        """Whether HAProxy runs, or may be started."""
        return self.machine.real and (self.serving or bool(self.proxy.main()))

    def _answers(self) -> bool:
        """Whether there is something to be asked: without a service HAProxy does not run."""
        return self._may_touch() and bool(_read(self.tree.live)[0])

    def _serve(self) -> None:
        """Has HAProxy run as the live file says: started, reloaded, stopped or told weights, whichever is needed."""
        services, servers = _read(self.tree.live)
        addresses = {service.address for service in services}
        route.bind(self.machine, addresses)
        if services:
            self.proxy.take(balance.render(services, servers)[1])
            self.proxy.weigh(services, servers)
        else:
            self.proxy.stop()
        route.unbind(self.machine, addresses)

    def _own_config(self) -> None:
        """HAProxy's file is a link to the live tree's, so that one rename switches both."""
        config, target = self.machine.path(CONFIG), f"../onehost/director/live/{Path(CONFIG).name}"
        config.parent.mkdir(parents=True, exist_ok=True)
        if files.pointed(config) == target:
            return
        if config.exists() and not config.is_symlink():
            os.rename(config, self.machine.path(BEFORE))
        files.link(config, target)


def _derive(folder: Path, number: int) -> dict[str, bytes]:
    return {"haproxy.cfg": balance.render(*_read(folder))[0].encode()}


def _read(folder: Path) -> tuple[list[Service], list[Server]]:
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    services = [balance.service((folder / n).read_bytes()) for n in names if n.startswith("service.")]
    return services, [balance.server((folder / n).read_bytes()) for n in names if n.startswith("server.")]


def _culprit(folder: Path, words: str) -> str:
    """The owner of the line of the staged file that HAProxy names first; empty if it names none of theirs."""
    found = re.search(r"haproxy\.cfg:(\d+)\]", words)
    if not found:
        return ""
    lines = (folder / "haproxy.cfg").read_text().splitlines()[: int(found[1])]
    services, servers = _read(folder)
    word, _, rest = lines[-1].strip().partition(" ")
    if word == "server":
        return next((str(one.owner) for one in servers if one.name == rest.split()[0]), "")
    proxy = next((line.split()[1] for line in reversed(lines) if line.startswith("listen ")), "")
    return next((str(one.owner) for one in services if one.proxy == proxy), "")


def _try_port(of: Service) -> None:
    """HAProxy's own check does not bind: a port that another program has would show only when a reload fails."""
    family = socket.AF_INET6 if ":" in of.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        try:
            probe.bind((of.address, of.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Permanent(
                    f"another program on the director listens on port {of.port}", culprit=str(of.owner)
                ) from error
            raise Temporary(f"{of.address} port {of.port} cannot be listened on: {error.strerror}") from error
