"""The few Linux calls that Python 3.11 does not offer: namespaces, mounts, a new root, a process seen by descriptor."""

import ctypes
import os
import platform
import select
import signal
import time
from collections.abc import Iterable

NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
READ_ONLY, NO_SUID, NO_DEV, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 0x20, 0x1000, 0x4000, 1 << 18
DETACH = 2

#: pivot_root has no wrapper in libc; its number depends on the processor.
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}

libc = ctypes.CDLL(None, use_errno=True)


def _check(code: int, what: str) -> None:
    if code:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leaves the namespaces named by `flags`; with NEWPID only the next child is in the new one."""
    _check(libc.unshare(flags), "new namespaces")


def enter(pid: int, kind: str) -> None:
    """Joins the namespace `kind` (mnt, net, pid ...) of process `pid`."""
    with open(f"/proc/{pid}/ns/{kind}") as handle:
        _check(libc.setns(handle.fileno(), 0), f"namespace {kind} of process {pid}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError naming source, target and kind."""
    code = libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _check(code, f"mount {kind or 'bind'} {source} on {target}")


def bind(source: str, target: str, read_only: bool = False) -> None:
    """Shows the folder or file `source` at `target` as well."""
    mount(source, target, flags=BIND)
    if read_only:
        mount("none", target, flags=BIND | REMOUNT | READ_ONLY)


def change_root(new_root: str) -> None:
    """Makes `new_root` (a mount point) the root of this mount namespace and drops the old one."""
    number = PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(f"pivot_root: unknown processor {platform.machine()}")
    os.chdir(new_root)
    _check(libc.syscall(number, b".", b"."), "pivot_root")
    _check(libc.umount2(b".", DETACH), "detach the old root")
    os.chdir("/")


def kill_and_wait(pids: Iterable[int], seconds: float = 20.0) -> list[int]:
    """SIGKILLs `pids` and waits until each has ended; returns those still there after `seconds`."""
    poller, open_ones = select.poll(), {}
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            continue
        open_ones[handle] = pid
        poller.register(handle, select.POLLIN)
    end = time.monotonic() + seconds
    while open_ones and (left := end - time.monotonic()) > 0:
        for handle, _ in poller.poll(left * 1000):
            poller.unregister(handle)
            os.close(handle)
            del open_ones[handle]
    for handle in open_ones:
        os.close(handle)
    return list(open_ones.values())
