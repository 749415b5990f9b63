"""The process of one due entry: takes its account's rights, claims the minute, runs the command, keeps what it said."""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import subprocess
import syslog
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from . import claim, said
from .entry import CronEntry, parse

PATH = "/usr/local/bin:/usr/bin:/bin"
SHELL = "/bin/sh"
#: Added to the niceness of what tenants run by the clock.
NICE = 10
#: After SIGTERM, in seconds, until SIGKILL.
GRACE_SECONDS = 10.0
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Rights:
    """Whose rights the process takes."""

    name: str
    uid: int
    gid: int


def live(root: Path, file: str, rights: Rights, siblings: Collection[int], minute: int, node: str) -> NoReturn:
    """The whole life of the process; never returns, so that no code of its parent runs twice."""
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        syslog.openlog("onehost-cron", syslog.LOG_PID, syslog.LOG_CRON)
        # The last thing done as root: the account is another's in the files of a node that lags behind.
        entry = parse(Path(file).read_bytes())
        become(rights)
        try:
            _claimed(entry, root / "home" / entry.account, siblings, minute, node)
        except OSError as error:
            syslog.syslog(syslog.LOG_ERR, f"{entry.name} of {entry.account} not started: {error}")
    finally:
        os._exit(0)


def become(rights: Rights) -> None:
    """Drops root for good. Nothing of this process can be looked into by the account's other processes."""
    os.setgroups(sorted({*os.getgrouplist(rights.name, rights.gid), rights.gid}))
    os.setresgid(rights.gid, rights.gid, rights.gid)
    os.setresuid(rights.uid, rights.uid, rights.uid)
    _LIBC.prctl(_PR_SET_DUMPABLE, 0)
    os.umask(0o027)


def _claimed(entry: CronEntry, home: Path, siblings: Collection[int], minute: int, node: str) -> None:
    lock = claim.claim(home, entry.owner, minute, node)
    if lock is None:
        return
    syslog.syslog(syslog.LOG_INFO, f"({entry.account}) {entry.name} started")
    began = time.monotonic()
    outcome, words = run(entry, home)
    text = f"{entry.name}: {outcome} in {time.monotonic() - began:.1f} s"
    with suppress(OSError):
        said.keep(home, minute, f"{node} {text}", words)
    with suppress(OSError):
        claim.sweep(home, siblings)
    # The lock goes with the process, and not before.
    os.close(lock)


def run(entry: CronEntry, home: Path) -> tuple[str, bytes]:
    """Runs the command to its end or its limit. Gives how it ended and the first of what it said."""
    environment = {"HOME": f"{home}/home", "LOGNAME": entry.account, "USER": entry.account, "SHELL": SHELL,
                   "PATH": PATH, "LANG": "C.UTF-8"}  # fmt: skip
    parent = os.getpid()
    process = subprocess.Popen(
        [SHELL, "-c", entry.command],
        cwd=environment["HOME"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: _be_the_command(parent),
    )
    assert process.stdout
    words, is_late = _listen(process, process.stdout.fileno(), entry.limit_seconds)
    code = process.wait()
    how = f"signal {-code}" if code < 0 else f"exit {code}"
    return (f"ended after its {entry.limit_seconds} s, {how}" if is_late else how), words


def _be_the_command(parent: int) -> None:
    """In the command's own process: it ends with the one that holds the lock, and leaves no core behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _listen(process: subprocess.Popen[bytes], output: int, limit_seconds: float) -> tuple[bytes, bool]:
    """Reads until the command has ended, and ends it when its time is up. Reads on beyond what is kept."""
    os.set_blocking(output, False)
    waiting, words, kills = select.poll(), b"", 0
    ended = os.pidfd_open(process.pid)
    waiting.register(ended, select.POLLIN)
    waiting.register(output, select.POLLIN)
    until = time.monotonic() + limit_seconds
    while True:
        ready = {handle for handle, _ in waiting.poll(max(0.0, until - time.monotonic()) * 1000)}
        if output in ready or ended in ready:
            words, is_open = _read(output, words)
            if not is_open and output in ready:
                waiting.unregister(output)
        if ended in ready:
            return words, kills > 0
        if time.monotonic() >= until:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL if kills else signal.SIGTERM)
            kills, until = kills + 1, time.monotonic() + GRACE_SECONDS


def _read(output: int, words: bytes) -> tuple[bytes, bool]:
    """What is there to be read, and whether more may come."""
    while True:
        try:
            more = os.read(output, 65536)
        except BlockingIOError:
            return words, True
        if not more:
            return words, False
        words = (words + more)[: said.KEPT_BYTES + 1]
