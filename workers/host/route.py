"""A director's network: the virtual addresses, and the way of nodes' answers back into HAProxy.

HAProxy speaks to nodes with the client's own address, so their answers are addressed to the client; the kernel must
give them to HAProxy's socket instead of forwarding them. Nodes need their default (or a policy) route to lead here.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from ...models.errors import Temporary
from .machine import Machine

log = logging.getLogger(__name__)

#: Packets for one of HAProxy's transparent sockets bear this mark and are routed by this table.
MARK, TABLE = 1, 100
#: Addresses put up by us bear this label.
LABEL = "lo:onehost"
#: So that HAProxy may listen on an address that is with another director at the moment.
_NONLOCAL = Path("/proc/sys/net/ipv4/ip_nonlocal_bind")
#: Replaced in one step, so that no packet of an open connection goes astray.
_RULES = f"""table ip onehost
delete table ip onehost
table ip onehost {{
  chain answers {{
    type filter hook prerouting priority mangle; policy accept;
    meta l4proto tcp socket transparent 1 meta mark set {MARK}
  }}
}}
"""


def prepare(machine: Machine) -> None:
    """Sets up the way back. Safe to repeat while connections run. Raises Temporary in the words of `ip` or `nft`."""
    try:
        if _NONLOCAL.read_text().strip() != "1":
            _NONLOCAL.write_text("1")
    except OSError as error:
        # A container may not set it. Addresses are put up before HAProxy binds them, so it is needed by few.
        log.info("not set", extra={"action": "sysctl", "name": _NONLOCAL.name, "why": error.strerror})
    run = machine.runner.run
    if f"fwmark {MARK:#x} lookup {TABLE}" not in run(["ip", "rule", "show"]).check().output:
        run(["ip", "rule", "add", "fwmark", str(MARK), "lookup", str(TABLE)]).check()
    run(["ip", "route", "replace", "local", "0.0.0.0/0", "dev", "lo", "table", str(TABLE)]).check()
    run(["nft", "-f", "-"], stdin=_RULES).check()


def bind(machine: Machine, addresses: set[str]) -> None:
    """Puts the virtual addresses up, except those that some interface has already."""
    present = {address for address, _ in _present(machine)}
    for address in sorted(addresses - present):
        length = 128 if ":" in address else 32
        label = [] if ":" in address else ["label", LABEL]
        machine.runner.run(["ip", "addr", "add", f"{address}/{length}", "dev", "lo", *label]).check()


def unbind(machine: Machine, addresses: set[str]) -> None:
    """Takes down those we put up and need no longer."""
    for address, label in _present(machine):
        if label == LABEL and address not in addresses:
            machine.runner.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"]).check()


def _present(machine: Machine) -> list[tuple[str, str]]:
    said = machine.runner.run(["ip", "-j", "addr", "show"]).check().output
    try:
        links = json.loads(said)
    except json.JSONDecodeError as error:
        raise Temporary(f"ip: {said[:200]}") from error
    return [(info["local"], info.get("label", "")) for link in links for info in link["addr_info"] if "local" in info]
