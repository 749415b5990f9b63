"""The neutral model of a director: virtual services and servers as documents, and HAProxy's file rendered from them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from .proftpd import PASSIVE_PORTS

#: HAProxy's own limit.
MAX_WEIGHT = 256
#: LVS's words for them, and HAProxy's.
_SCHEDULERS = {"wrr": "roundrobin", "wlc": "leastconn"}
#: HAProxy's server ids are positive and of 31 bits.
_NUMBERS = 2**31 - 1
#: Where the running HAProxy is asked and told.
SOCKET = "/run/haproxy/onehost.sock"
#: Where a reload hands the tables of persistence over; on the loopback, for HAProxy alone.
PEER = "127.0.0.1:10777"
_CHECKS = {
    "tcp": (),
    # Any answer that is not the server's own failure: a site for this name is not expected.
    "http": (
        "option httpchk",
        "http-check send meth GET uri / ver HTTP/1.1 hdr Host onehost.invalid hdr Connection close",
        "http-check expect status 100-499",
    ),
    "ssh": ("option tcp-check", "tcp-check connect", "tcp-check expect rstring ^SSH-2.0-"),
}
_HEAD = """# onehost's own file, rewritten by its worker from its documents beside it.
global
    description {structure}
    log /dev/log local0 notice
    stats socket {socket} mode 600 level admin expose-fd listeners
    stats timeout 30s
    maxconn 20000
    # Where the machine grants fewer descriptors it serves fewer connections instead of none.
    no strict-limits
    localpeer onehost
    # An old worker with a connection that never ends must end one day.
    hard-stop-after 24h

defaults
    mode tcp
    log global
    option dontlognull
    option redispatch
    option clitcpka
    option srvtcpka
    retries 3
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    timeout tunnel 24h
    timeout client-fin 30s
    timeout server-fin 30s
    timeout check 2s
    default-server inter 2s fastinter 500ms downinter 2s rise 2 fall 2

# A reload hands the tables of persistence over through this.
peers onehost
    peer onehost {peer}
"""


@dataclass(frozen=True)
class Service:
    """A virtual service."""

    owner: int
    name: str
    address: str
    port: int
    role: str
    persistence_seconds: int
    scheduler: str
    check: str

    @property
    def file(self) -> str:
        """The name of its document."""
        return f"service.{self.owner}.json"

    @property
    def proxy(self) -> str:
        """Its name in HAProxy."""
        return f"{self.name}.{self.owner}"


@dataclass(frozen=True)
class Server:
    """A node, as a real server of each virtual service of its roles."""

    owner: int
    name: str
    address: str
    roles: tuple[str, ...]
    weight: int
    traffic: str

    @property
    def file(self) -> str:
        """The name of its document."""
        return f"server.{self.owner}.json"

    @property
    def effective_weight(self) -> int:
        """What the scheduler reckons with: nothing for a node that takes no new traffic."""
        return min(self.weight, MAX_WEIGHT) if self.traffic == "active" else 0

    @property
    def number(self) -> int:
        """Its id within HAProxy, the same in every table and after every reload."""
        return (self.owner - 1) % _NUMBERS + 1


def document(thing: Service | Server) -> bytes:
    """The document of a service or server."""
    return json.dumps(asdict(thing), sort_keys=True, indent=1).encode() + b"\n"


def service(text: bytes) -> Service:
    """A service from its document."""
    return Service(**json.loads(text))


def server(text: bytes) -> Server:
    """A server from its document."""
    given = json.loads(text)
    return Server(**{**given, "roles": tuple(given["roles"])})


def render(services: Iterable[Service], servers: Iterable[Server]) -> tuple[str, str]:
    """HAProxy's whole file, and its structure: a hash that is the same for files that differ in weights alone.

    The structure stands in the file too, so that a running HAProxy tells which one it has.
    """
    nodes = sorted(servers, key=lambda s: s.name)
    body = "".join(_listen(s, nodes) for s in sorted(services, key=lambda s: (s.name, s.owner)))
    plain = re.sub(r" weight \d+ ", " weight ", _HEAD + body)
    structure = "onehost-" + hashlib.sha256(plain.encode()).hexdigest()[:16]
    return _HEAD.format(structure=structure, socket=SOCKET, peer=PEER) + body, structure


def members(of: Service, servers: Iterable[Server]) -> list[Server]:
    """The real servers of a service."""
    return [server for server in servers if of.role in server.roles]


def _listen(of: Service, nodes: list[Server]) -> str:
    colon = f"[{of.address}]" if ":" in of.address else of.address
    lines = [
        f"bind {colon}:{of.port}",
        # Data connections come to the same proxy, so that they stick to the node which waits for them.
        *([f"bind {colon}:{PASSIVE_PORTS[0]}-{PASSIVE_PORTS[1]}"] if of.role == "ftp" else []),
        f"balance {_SCHEDULERS[of.scheduler]}",
        # Nodes see the client's own address.
        "source 0.0.0.0 usesrc clientip" if ":" not in of.address else "source :: usesrc clientip",
        *_CHECKS[of.check],
    ]
    if of.persistence_seconds:
        lines += [
            f"stick-table type {'ipv6' if ':' in of.address else 'ip'} size 200k "
            f"expire {of.persistence_seconds}s peers onehost",
            "stick on src",
        ]
    for node in members(of, nodes):
        address = f"[{node.address}]" if ":" in node.address else node.address
        # Without a port it is the one that the client asked for.
        port = "" if of.role == "ftp" else f":{of.port}"
        check = f"check port {of.port}" if of.role == "ftp" else "check"
        lines.append(f"server {node.name} {address}{port} id {node.number} weight {node.effective_weight} {check}")
    return f"\nlisten {of.proxy}\n" + "".join(f"    {line}\n" for line in lines)
