"""What each word of `ops/lab` does."""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import birth, equip, kernel, network
from .names import KEEPER, VIRTUAL, Fault, Lab, address_of, in_order, kind_of, say

#: How long a machine's processes may take to end.
END_SECONDS = 20.0
#: How long `down` waits for this machine's init to take the keeper off the process list; some take their time.
REAP_SECONDS = 2.0


@contextmanager
def _alone(lab: Lab) -> Iterator[None]:
    """One `ops/lab` at a time changes a lab. Half-born processes hold the lock too, so it also waits for their end."""
    handle = _lock(lab)
    try:
        yield
    finally:
        os.close(handle)


def _lock(lab: Lab) -> int:
    while True:
        lab.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(lab.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting: another ops/lab is at work on '{lab.name}'")
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Whoever had the lock before us may have removed the folder; then another one bears the name.
        if os.path.exists(lab.path) and os.path.samestat(os.stat(lab.path), os.fstat(handle)):
            return handle
        os.close(handle)


def _whole(lab: Lab) -> dict[str, int]:
    """The running machines of a lab that is up, without the keeper. Raises Fault if it is not up."""
    pids = lab.running()
    if KEEPER not in pids:
        raise Fault(f"lab '{lab.name}' is not up. try: ops/lab up 3")
    return {name: pid for name, pid in pids.items() if name != KEEPER}


def _pid(lab: Lab, machine: str) -> int:
    pids = {name: pid for name, pid in lab.running().items() if name != KEEPER}
    if machine not in pids:
        there = ", ".join(sorted(pids, key=in_order)) or "none: ops/lab up 3"
        raise Fault(f"no machine '{machine}' runs in lab '{lab.name}'. Running: {there}.")
    return pids[machine]


def up(lab: Lab, nodes: int, bare: bool, disk: bool) -> None:
    """Makes manager, client and nodes. Killed half way, it leaves only an empty folder."""
    if nodes < 1:
        raise Fault(f"a lab of {nodes} nodes serves nobody. It takes at least one. try: ops/lab up 3")
    wanted = ["manager", "client", *(f"node{i}" for i in range(1, nodes + 1))]
    kind_of(wanted[-1])
    with _alone(lab):
        there = lab.running()
        if KEEPER not in there:
            _make(lab, wanted, bare, disk)
        elif set(there) >= {*wanted, KEEPER}:
            say(f"lab '{lab.name}' is already up: {', '.join(sorted(there.keys() - {KEEPER}, key=in_order))}")
        else:
            raise Fault(f"lab '{lab.name}' is up with other machines. try: ops/lab ps, ops/lab boot, ops/lab down")


def _make(lab: Lab, wanted: list[str], bare: bool, disk: bool) -> None:
    began = time.monotonic()
    _clear(lab)
    line, errors = birth.start(lab, wanted, disk)
    try:
        pids = _born(lab, wanted, errors)
        network.wire(pids, set(wanted))
        equip.write_hosts(pids)
        equip.direct(pids["manager"])
        say(f"lab '{lab.name}': {len(wanted)} machines in {time.monotonic() - began:.2f} s")
        failed = [] if bare else equip.start_all(lab, pids)
        line.sendall(b"go")
        # End of file: the keeper has taken its name and no longer depends on us.
        line.recv(1)
    except BaseException:
        line.close()
        _remove(lab)
        raise
    if failed:
        raise Fault("\n".join([*failed, "The lab is left up to be looked at. try: ops/lab exec MACHINE, ops/lab down"]))
    if not bare:
        say(f"lab '{lab.name}' is ready after {time.monotonic() - began:.2f} s")


def _born(lab: Lab, wanted: list[str], errors: list[str]) -> dict[str, int]:
    pids = lab.running()
    missing = [machine for machine in wanted if machine not in pids]
    if errors or missing:
        why = "; ".join(errors) or "it died without a word"
        raise Fault(f"{', '.join(missing) or 'a machine'} did not start: {why}. try: ops/lab check")
    return {machine: pid for machine, pid in pids.items() if machine != KEEPER}


def down(lab: Lab) -> None:
    """Removes everything of the lab; safe at any time."""
    if not lab.path.exists() and not lab.running():
        say(f"lab '{lab.name}' is not up")
        return
    began = time.monotonic()
    with _alone(lab):
        pids = lab.running()
        _remove(lab)
    # No event tells when somebody else's child is reaped.
    keeper = pids.pop(KEEPER, 0)
    while keeper and os.path.exists(f"/proc/{keeper}") and time.monotonic() - began < REAP_SECONDS:
        time.sleep(0.02)
    say(f"lab '{lab.name}' is gone: {len(pids)} machines in {time.monotonic() - began:.2f} s")


def _clear(lab: Lab) -> None:
    """Kills all processes of the lab and empties its folder. The folder stays: it bears the lock."""
    pids = lab.running()
    # The keeper first: the machines die with it.
    if left := kernel.kill_and_wait([pids[name] for name in sorted(pids, key=lambda n: n != KEEPER)], END_SECONDS):
        raise Fault(f"processes of lab '{lab.name}' do not end: {left}. They hang in the kernel; nothing was removed.")
    _refuse_mounts(lab)
    for entry in lab.path.iterdir():
        shutil.rmtree(entry)


def _remove(lab: Lab) -> None:
    _clear(lab)
    lab.path.rmdir()
    with suppress(OSError):  # other labs are there
        lab.path.parent.rmdir()


def _refuse_mounts(lab: Lab) -> None:
    """A lab mounts nothing in our sight; what is mounted there is somebody else's and must not be deleted through."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[4].startswith(f"{lab.path}/"):
            raise Fault(f"something is mounted below {lab.path}, so it is not removed. try: umount {line.split()[4]}")


def execute(lab: Lab, machine: str, command: list[str]) -> None:
    """Becomes `command` in the machine; does not return."""
    arguments = equip.inside(_pid(lab, machine), command or ["bash"])
    os.execvp(arguments[0], arguments)


def kill(lab: Lab, machine: str) -> None:
    """SIGKILL for a whole machine, as if its power had failed. Its files are kept for `boot`."""
    kind_of(machine)
    with _alone(lab):
        _whole(lab)
        if kernel.kill_and_wait([_pid(lab, machine)], END_SECONDS):
            raise Fault(f"{machine} does not end: a process hangs in the kernel.")
        network.unplug(_whole(lab), machine)
    say(f"{machine} is dead; its files are kept. try: ops/lab boot {machine}")


def boot(lab: Lab, machine: str, wipe: bool, bare: bool) -> None:
    """Starts a machine that was killed, or a node that never was, with the files it had (`wipe`: with none)."""
    kind_of(machine)
    with _alone(lab):
        there = _whole(lab)
        if machine in there:
            raise Fault(f"{machine} runs already. try: ops/lab reboot {machine}, or ops/lab kill {machine} first")
        errors = birth.add(lab, lab.running()[KEEPER], machine, wipe)
        pids = _born(lab, [machine], errors)
        network.wire(pids, {machine})
        equip.write_hosts(pids)
        if machine == "manager":
            equip.direct(pids[machine])
        failed = [] if bare else equip.start_all(lab, {machine: pids[machine]})
    if failed:
        raise Fault("\n".join(failed))
    say(f"{machine} is up")


def reboot(lab: Lab, machine: str, bare: bool) -> None:
    """Kills every process of the machine, empties /run and /tmp, and lets it boot; network and files stay."""
    with _alone(lab):
        pid = _pid(lab, machine)
        # kill -1 spares the caller and PID 1; again until nothing forks any more.
        sweep = "while kill -9 -1 2>/dev/null; do :; done; find /run /tmp -mindepth 1 -delete; mkdir -m 1777 /run/lock"
        subprocess.run(equip.inside(pid, ["sh", "-c", sweep]), check=True)
        failed = [] if bare else equip.start_all(lab, {machine: pid})
    if failed:
        raise Fault("\n".join(failed))
    say(f"{machine} is up again")


def cable(lab: Lab, machine: str, state: str) -> None:
    """Pulls or plugs the network cable of a node or the client."""
    if kind_of(machine) == "manager":
        raise Fault("the manager is where all cables end. try: ops/lab cable node1 down")
    _pid(lab, machine)
    network.set_cable(_whole(lab), machine, state)


def show(lab: Lab, as_json: bool) -> None:
    """Prints the machines, their addresses, processes and memory."""
    pids = _whole(lab)
    spaces = {os.readlink(f"/proc/{pid}/ns/pid"): machine for machine, pid in pids.items()}
    processes, memory = dict.fromkeys(pids, 0), dict.fromkeys(pids, 0)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            machine = spaces.get(os.readlink(f"/proc/{pid}/ns/pid"))
            if machine:
                processes[machine] += 1
                memory[machine] += _memory_bytes(pid)
    if as_json:
        rows = {
            m: {"address": address_of(m), "pid": pids[m], "processes": processes[m], "memory_bytes": memory[m]}
            for m in sorted(pids, key=in_order)
        }
        print(json.dumps({"name": lab.name, "virtual": VIRTUAL, "machines": rows}))
        return
    print(f"{'MACHINE':9} {'ADDRESS':13} {'PID':>7} {'PROCESSES':>9} {'MEMORY':>9}")
    for m in sorted(pids, key=in_order):
        print(f"{m:9} {address_of(m):13} {pids[m]:7} {processes[m]:9} {memory[m] / 2**20:5.1f} MiB")


def _memory_bytes(pid: str) -> int:
    """Bytes of the process, shared pages counted by share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
