"""The wires of a lab. Everything lives in the machines' network namespaces; the host's own network is not touched.

client 198.51.100.2 ──── out0 198.51.100.1 (+ virtual address .10)  manager  br0 10.77.0.1 ──── nodeI 10.77.0.(10+I)
"""

import subprocess

from .names import CLIENT_EXTRA, INSIDE_GATEWAY, OUTSIDE_GATEWAY, VIRTUAL, Fault, address_of


def port_of(machine: str) -> str:
    """The interface of the manager into which the machine's cable is plugged."""
    return "out0" if machine == "client" else f"v-{machine}"


def wire(pids: dict[str, int], new: set[str]) -> None:
    """Connects the machines in `new` with the manager; with the manager itself new, connects all."""
    if "manager" not in pids:
        return
    others = [m for m in pids if m != "manager" and (m in new or "manager" in new)]
    at_manager = _bridge() if "manager" in new else []
    for machine in others:
        port = port_of(machine)
        at_manager += [f"link add {port} type veth peer name eth0 netns {pids[machine]}"]
        if machine == "client":
            at_manager += [f"addr add {OUTSIDE_GATEWAY}/24 dev {port}", f"addr add {VIRTUAL}/32 dev {port}"]
        else:
            at_manager += [f"link set {port} master br0"]
        at_manager += [f"link set {port} up"]
    _finish([_ip(pids["manager"], at_manager)])
    _finish([_ip(pids[machine], _own_end(machine)) for machine in others])


def unplug(pids: dict[str, int], machine: str) -> None:
    """Removes the manager's end of the cable of a machine that is gone."""
    if "manager" in pids and machine != "manager":
        # The kernel may have removed it already, together with the machine's end.
        subprocess.run(_at(pids["manager"], "link", "del", port_of(machine)), stderr=subprocess.DEVNULL, check=False)


def set_cable(pids: dict[str, int], machine: str, state: str) -> None:
    """Pulls (down) or plugs (up) the cable of a node or of the client, at the manager's end."""
    done = subprocess.run(_at(pids["manager"], "link", "set", port_of(machine), state), check=False)
    if done.returncode:
        raise Fault(f"the cable of {machine} cannot be set {state}. See the message of `ip` above.")


def _bridge() -> list[str]:
    return ["link set lo up", "link add br0 type bridge", f"addr add {INSIDE_GATEWAY}/24 dev br0", "link set br0 up"]


def _own_end(machine: str) -> list[str]:
    gateway = OUTSIDE_GATEWAY if machine == "client" else INSIDE_GATEWAY
    addresses = [address_of(machine), *(CLIENT_EXTRA if machine == "client" else [])]
    lines = ["link set lo up", *(f"addr add {address}/24 dev eth0" for address in addresses)]
    return [*lines, "link set eth0 up", f"route add default via {gateway}"]


def _at(pid: int, *words: str) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", *words]


def _ip(pid: int, lines: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    process = subprocess.Popen(_at(pid, "-batch", "-"), stdin=pipe, stderr=pipe, text=True)
    assert process.stdin
    process.stdin.write("\n".join(lines) + "\n")
    process.stdin.flush()
    return process


def _finish(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        _, errors = process.communicate()
        if process.returncode:
            raise Fault(f"the lab's network could not be made. ip says: {errors.strip()}")
