"""The masters of PHP-FPM: which run, and how one takes over from another on the same sockets.

A reload of FPM (USR2) would make every pool of the master wait for its slowest request. So a new master is started
with the listening sockets of the old one, fetched from it by pidfd_getfd(2), and the old one is asked to finish.
No state is kept about masters: their titles in /proc name the configuration they run.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import re
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

from ...models.errors import Blocked, Temporary
from . import pool
from .machine import Machine
from .run import Ended

#: Configurations of masters: of shard 2 it is `shard2/live.conf`.
FOLDER = "/etc/onehost/php"
_PIDFD_GETFD = 438
_LIBC = ctypes.CDLL(None, use_errno=True)
#: What only a master can set: cached code of one account is never given to another without its own permission.
_OPTIONS = ("-d", "opcache.validate_permission=1")


def binary() -> str:
    """The newest php-fpm of this machine: Debian names it by version. Raises Blocked if there is none."""
    found = [(tuple(map(int, m.groups())), path.name) for path in Path("/usr/sbin").glob("php-fpm*")
             if (m := re.fullmatch(r"php-fpm(\d+)\.(\d+)", path.name))]  # fmt: skip
    if not found:
        raise Blocked("php-fpm is not installed on this node")
    return max(found)[1]


def test(machine: Machine, shard: int, which: str) -> Ended:
    """Has FPM read a shard's configuration, `live` or `staged`, and say what it thinks."""
    return machine.runner.run([binary(), *_OPTIONS, "-t", "-y", f"{FOLDER}/shard{shard}/{which}.conf"])


def running() -> dict[int, list[int]]:
    """The process ids of our masters by shard, newest first. Only root's processes count: a title proves nothing."""
    title = re.compile(rb"^php-fpm: master process \(" + re.escape(FOLDER.encode()) + rb"/shard(\d+)/live\.conf\)")
    found: dict[int, list[tuple[int, int]]] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError):
            if os.stat(f"/proc/{pid}").st_uid == 0 and (
                match := title.match(Path(f"/proc/{pid}/cmdline").read_bytes())
            ):
                started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
                found.setdefault(int(match[1]), []).append((started, int(pid)))
    return {shard: [pid for _, pid in sorted(group, reverse=True)] for shard, group in found.items()}


def hand_over(machine: Machine, shard: int, wanted: set[str]) -> None:
    """Starts a master for `wanted` on the sockets of the running one, then has all older ones finish and end.

    Raises Temporary if the new one does not start; the old one then serves on.
    """
    old = running().get(shard, [])
    if wanted:
        account = pwd.getpwnam("www-data")
        with ExitStack() as stack:
            given = _sockets(old[0]) if old else {}
            for descriptor in given.values():
                stack.callback(os.close, descriptor)
            passed = {}
            for label in sorted(wanted):
                if label in given and os.path.exists(f"{pool.PUBLIC}/{label.rpartition('.')[0]}.sock"):
                    passed[label] = given[label]
                else:
                    passed[label] = stack.enter_context(pool.bind(label, (account.pw_uid, account.pw_gid))).fileno()
            inherited = ",".join(f"{pool.PRIVATE}/{label}.sock={number}" for label, number in passed.items())
            command = [binary(), *_OPTIONS, "-D", "-y", f"{FOLDER}/shard{shard}/live.conf"]
            machine.runner.run(command, fds=list(passed.values()), env={"FPM_SOCKETS": inherited}).check(Temporary)
    for pid in old:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT)


def _sockets(pid: int) -> dict[str, int]:
    """Our own descriptors of a master's listening sockets, by the pool NAME.ID they were bound for."""
    sockets: dict[str, int] = {}
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return {}
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if not os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
                    continue
                ours = _LIBC.syscall(_PIDFD_GETFD, process, int(number), 0)
                if ours < 0:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"pidfd_getfd {pid}")
                label = _bound(ours)
                if not label or label in sockets:
                    os.close(ours)
                else:
                    sockets[label] = ours
    except FileNotFoundError:
        return sockets
    finally:
        os.close(process)
    return sockets


def _bound(descriptor: int) -> str:
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        name = listener.getsockname() if listener.family == socket.AF_UNIX else ""
    match = re.fullmatch(re.escape(pool.PRIVATE) + r"/(.+)\.sock", name) if isinstance(name, str) else None
    return match[1] if match else ""
