"""What the machines of a lab are called, which addresses they have, and how their processes are found again."""

import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

#: More would leave 10.77.0.0/24.
MAX_NODES = 200
INSIDE_GATEWAY, OUTSIDE_GATEWAY, CLIENT, VIRTUAL = "10.77.0.1", "198.51.100.1", "198.51.100.2", "198.51.100.10"
#: Further addresses of the client, to act as many clients (curl --interface 198.51.100.23).
CLIENT_EXTRA = [f"198.51.100.{n}" for n in range(20, 61)]

#: The process that holds a lab together: PID 1 above all its machines. Not a machine.
KEEPER = "keeper"


class Fault(Exception):
    """An error for the person at the terminal: what, why, and what to try."""


def say(text: str) -> None:
    """Progress goes to stderr: stdout is for what was asked."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def kind_of(machine: str) -> str:
    """manager, client or node. Raises Fault for anything else."""
    if machine in ("manager", "client"):
        return machine
    if re.fullmatch(r"node[1-9]\d{0,2}", machine) and int(machine[4:]) <= MAX_NODES:
        return "node"
    raise Fault(f"no machine can be called '{machine}'. Machines are manager, client, node1 to node{MAX_NODES}.")


def address_of(machine: str) -> str:
    """The machine's own IPv4 address."""
    if machine == "manager":
        return INSIDE_GATEWAY
    return CLIENT if machine == "client" else f"10.77.0.{10 + int(machine[4:])}"


def in_order(machine: str) -> tuple[int, int]:
    """Sort key: manager, client, node1, node2, ... node10; the keeper last."""
    rank = {"manager": 0, "client": 1, KEEPER: 3}.get(machine, 2)
    return rank, int(machine[4:]) if rank == 2 else 0


@dataclass(frozen=True)
class Lab:
    """One cluster of this checkout. Several may live side by side under different names."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,30}", self.name):
            raise Fault(f"lab name '{self.name}' is not usable. It takes a-z 0-9 _ - only. try: --name lab2")

    @property
    def path(self) -> Path:
        """The lab's folder; its files are seen only by the lab's own processes."""
        return CHECKOUT / ".lab" / self.name

    def title(self, machine: str) -> str:
        """The name the machine's first process bears in /proc: the only record that the machine exists."""
        return f"onehost-lab:{self.path}:{machine}"

    def running(self) -> dict[str, int]:
        """Machine (and keeper) to process id, as /proc shows them now."""
        prefix, found, depth = self.title(""), {}, _depth("self")
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0", 1)[0].decode(errors="replace")
                if title.startswith(prefix):
                    machine = title[len(prefix) :]
                    # A checkout of the same path in somebody's deeper container has labs of its own.
                    if _depth(pid) == depth + (1 if machine == KEEPER else 2):
                        found[machine] = int(pid)
        return found


def _depth(pid: str) -> int:
    """How many pid namespaces deep a process lives, as seen from here."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return len(line.split()) - 1
    raise OSError(f"/proc/{pid}/status has no NSpid line")
