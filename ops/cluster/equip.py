"""What newborn machines are given: each other's names, routes, credentials, and a start of onehost in each."""

import os
import shutil
import subprocess
from pathlib import Path

from . import birth
from .names import CHECKOUT, VIRTUAL, Lab, address_of, in_order, kind_of, say

SCRIPTS = CHECKOUT / "ops" / "cluster"


def inside(pid: int, command: list[str]) -> list[str]:
    """The command line that runs `command` in the machine; it dies with the caller."""
    enter = ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "--", "setpriv", "--pdeathsig", "KILL"]
    variables = {"PATH": birth.PATH, "HOME": "/root", "USER": "root", "LANG": "C.UTF-8"}
    variables["TERM"] = os.environ.get("TERM", "dumb")
    return [*enter, "env", "-i", "-C", str(CHECKOUT), *(f"{k}={v}" for k, v in variables.items()), *command]


def write_hosts(pids: dict[str, int]) -> None:
    """Tells these machines each other's names."""
    lines = ["127.0.0.1 localhost", "::1 localhost", f"{VIRTUAL} vip"]
    lines += [f"{address_of(machine)} {machine}" for machine in sorted(pids, key=in_order)]
    for pid in pids.values():
        Path(f"/proc/{pid}/root/etc/hosts").write_text("\n".join(lines) + "\n")


def direct(manager: int) -> None:
    """Lets the manager pass on what comes for an address that is not its own, as a director does; or says why not."""
    done = subprocess.run(
        inside(manager, [str(SCRIPTS / "director-routes")]), capture_output=True, text=True, check=False
    )
    if done.returncode:
        say(f"warning: the manager cannot be a director with transparent source here: {done.stderr.strip()}")


def start_all(lab: Lab, pids: dict[str, int]) -> list[str]:
    """Starts onehost in these machines, the manager first: it makes what a node joins with. Returns what failed."""
    manager = {name: pid for name, pid in pids.items() if name == "manager"}
    failed = _run_hooks(lab, manager)
    rest = {name: pid for name, pid in pids.items() if name not in manager}
    # A node that was a member before boots without the manager, too.
    if source := lab.running().get("manager"):
        for machine, pid in rest.items():
            _carry_credentials(source, machine, pid)
    return failed + _run_hooks(lab, rest)


def _carry_credentials(manager: int, machine: str, pid: int) -> None:
    """What an operator does once: brings a node its settings and its broker password, a client the nodes' keys."""
    if kind_of(machine) == "client":
        shutil.copy(f"/proc/{manager}/root/etc/onehost/known_hosts", f"/proc/{pid}/root/etc/ssh/ssh_known_hosts")
    source = Path(f"/proc/{manager}/root/etc/onehost/nodes/{machine}")
    if kind_of(machine) == "node" and not source.exists():
        # One node more than `up` made: it is added to the cluster first.
        joining = [
            str(CHECKOUT / ".venv/bin/python"),
            str(SCRIPTS / "join.py"),
            f"{machine}={address_of(machine)}=web,ssh,ftp",
        ]
        subprocess.run(inside(manager, joining), check=True)
    if source.exists():
        shutil.copytree(source, f"/proc/{pid}/root/etc/onehost", dirs_exist_ok=True)


def _run_hooks(lab: Lab, pids: dict[str, int]) -> list[str]:
    """Runs each machine's boot script, all at once; returns what failed."""
    script = 'exec "$0" "$@" >>/var/log/lab-boot.log 2>&1 </dev/null'
    nodes = [f"{m}={address_of(m)}=web,ssh,ftp" for m in sorted(lab.running(), key=in_order) if m.startswith("node")]
    joining = ["manager=10.77.0.1=storage,director", *nodes]
    running = {}
    for machine, pid in pids.items():
        kind = kind_of(machine)
        arguments = joining if kind == "manager" else []
        running[machine] = subprocess.Popen(inside(pid, ["sh", "-c", script, str(SCRIPTS / "boot"), kind, *arguments]))
    failed = []
    for machine, process in running.items():
        if process.wait():
            log = Path(f"/proc/{pids[machine]}/root/var/log/lab-boot.log").read_text(errors="replace")
            last = "\n  ".join(log.splitlines()[-15:])
            failed.append(
                f"{machine}: ops/cluster/boot ended with {process.returncode}, /var/log/lab-boot.log:\n  {last}"
            )
    return failed
