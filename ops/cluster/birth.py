"""How a lab's processes come to be.

    ops/lab up ── keeper (PID 1 of the lab's pid namespace, owner of its tmpfs)
                   ├── manager (PID 1 of its own pid, mount, net, uts and ipc namespaces)
                   ├── client
                   └── node1 ...

Killing the keeper kills all below it, and with the last process of a namespace go its mounts and interfaces. Until
`up` says "go" the keeper dies when `up` dies, so a lab is either whole or gone.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import kernel
from .names import CHECKOUT, KEEPER, Lab, kind_of

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def start(lab: Lab, machines: Iterable[str], disk: bool) -> tuple[socket.socket, list[str]]:
    """Makes keeper and machines; returns the line on which the keeper waits for "go", and what went wrong."""
    line, far_end = socket.socketpair()
    errors, told = os.pipe()
    if os.fork() == 0:
        line.close()
        os.close(errors)
        _in_child(_keep, lab, machines, disk, far_end, told)
    far_end.close()
    os.close(told)
    return line, _read_errors(errors)


def add(lab: Lab, keeper: int, machine: str, wipe: bool) -> list[str]:
    """Makes one machine in a lab that is up, with the files it had unless `wipe`; returns what went wrong."""
    errors, told = os.pipe()
    if os.fork() == 0:
        os.close(errors)
        _in_child(_join, lab, keeper, machine, wipe, told)
    os.close(told)
    return _read_errors(errors)


def _read_errors(pipe: int) -> list[str]:
    """Each machine holds the pipe until its anchor runs: end of file means that all are ready or dead."""
    with open(pipe, errors="replace") as stream:
        return stream.read().split("\0")[:-1]


def _in_child(work: Callable[..., None], lab: Lab, *arguments: Any) -> None:
    """Runs `work` in a forked child that must never return into the caller's code."""
    told = arguments[-1]
    try:
        work(lab, *arguments)
        os._exit(0)
    except BaseException as error:
        os.write(told, f"{error}\0".encode())
        os._exit(1)


def _keep(lab: Lab, machines: Iterable[str], disk: bool, line: socket.socket, told: int) -> None:
    kernel.unshare(kernel.NEWPID | kernel.NEWNS | kernel.NEWIPC)
    if os.fork():
        return
    _leave_terminal()
    kernel.mount("none", "/", flags=kernel.RECURSIVE | kernel.PRIVATE)
    if not disk:
        kernel.mount("lab", str(lab.path), "tmpfs", 0, "mode=711")
    os.makedirs(lab.path / "home", exist_ok=True)
    os.makedirs(lab.path / "ssh", mode=0o700, exist_ok=True)
    _make_host_key(lab)
    for machine in machines:
        _fork_machine(lab, machine, told)
    os.close(told)
    if line.recv(2) == b"go":
        os.execve("/usr/bin/sleep", [lab.title(KEEPER), "infinity"], {})
    os._exit(1)


def _join(lab: Lab, keeper: int, machine: str, wipe: bool, told: int) -> None:
    # Both by way of the /proc of where we are now.
    kernel.enter(keeper, "pid")
    kernel.enter(keeper, "mnt")
    own = lab.path / "machines" / machine
    if wipe and own.exists():
        shutil.rmtree(own)
    if os.fork() == 0:
        _leave_terminal()
        _fork_machine(lab, machine, told)


def _leave_terminal() -> None:
    os.setsid()
    os.umask(0o022)
    # Ignored survives exec, and then the kernel reaps every orphan of an anchor by itself.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)


def _make_host_key(lab: Lab) -> None:
    """One key for all machines of a lab: whichever node answers at the shared address, no client is warned."""
    key = lab.path / "ssh" / "ssh_host_ed25519_key"
    maker = shutil.which("ssh-keygen", path=PATH)
    if maker and not key.exists():
        # SIGCHLD is ignored here, so the status of a child is not to be had: the file is the proof.
        subprocess.run([maker, "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(key)], check=False)
        if not key.exists():
            raise OSError("ssh-keygen made no host key")


def _fork_machine(lab: Lab, machine: str, told: int) -> None:
    if os.fork():
        return
    try:
        kernel.unshare(kernel.NEWPID | kernel.NEWNS | kernel.NEWNET | kernel.NEWUTS | kernel.NEWIPC)
        if os.fork():
            os._exit(0)
        os.setsid()
        _become(lab, machine)
        os.execve("/usr/bin/sleep", [lab.title(machine), "infinity"], {"PATH": PATH})
    except BaseException as error:
        os.write(told, f"{machine}: {error}\0".encode())
        os._exit(1)


def _become(lab: Lab, machine: str) -> None:
    """Turns this process into PID 1 of `machine`, with a root of its own."""
    kind = kind_of(machine)
    socket.sethostname(machine)
    own = lab.path / "machines" / machine
    new = not own.exists()
    for part in ("upper", "work", "root"):
        os.makedirs(own / part, exist_ok=True)
    # Relative paths: a comma or colon in the checkout's path would end an overlay option.
    os.chdir(own)
    kernel.mount("lab", "root", "overlay", 0, "lowerdir=/,upperdir=upper,workdir=work")
    root = own / "root"
    _mount_system(root)
    if kind == "client":
        kernel.mount("home", str(root / "home"), "tmpfs", kernel.NO_DEV, "mode=755")
    else:
        kernel.bind(str(lab.path / "home"), str(root / "home"))
    _show_checkout(root)
    if new:
        # The lab's folder is out of sight after the change of root; the baseline takes the keys from /run.
        for name in os.listdir(lab.path / "ssh"):
            shutil.copy2(lab.path / "ssh" / name, root / "run" / name)
    kernel.change_root(str(root))
    if new:
        _run_baseline(kind)


def _mount_system(root: Path) -> None:
    """/proc /sys /dev /run /tmp, each the machine's own."""
    kernel.mount("proc", str(root / "proc"), "proc", kernel.NO_SUID | kernel.NO_DEV)
    kernel.mount("sysfs", str(root / "sys"), "sysfs", kernel.NO_SUID | kernel.NO_DEV | kernel.READ_ONLY)
    dev = root / "dev"
    kernel.mount("dev", str(dev), "tmpfs", kernel.NO_SUID, "mode=755")
    for name in DEVICES:
        (dev / name).touch()
        kernel.bind(f"/dev/{name}", str(dev / name))
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (dev / name).symlink_to(target)
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    kernel.mount("devpts", str(dev / "pts"), "devpts", kernel.NO_SUID, "newinstance,ptmxmode=666,mode=620,gid=5")
    (dev / "ptmx").symlink_to("pts/ptmx")
    for folder, mode in (("dev/shm", "1777"), ("run", "755"), ("tmp", "1777")):
        kernel.mount("lab", str(root / folder), "tmpfs", kernel.NO_SUID | kernel.NO_DEV, f"mode={mode}")
    (root / "run/lock").mkdir(mode=0o1777)


def _show_checkout(root: Path) -> None:
    """The checkout at its own path, read-only, without the labs' data."""
    here = root / CHECKOUT.relative_to("/")
    os.makedirs(here, exist_ok=True)
    kernel.bind(str(CHECKOUT), str(here), read_only=True)
    kernel.mount("hidden", str(here / ".lab"), "tmpfs", kernel.READ_ONLY, "mode=700,size=4k")


def _run_baseline(kind: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    script = [str(CHECKOUT / "ops/cluster/baseline"), kind]
    done = subprocess.run(script, env={"PATH": PATH}, capture_output=True, text=True, check=False)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if done.returncode:
        raise OSError(f"{script[0]} failed: {done.stderr.strip()}")
