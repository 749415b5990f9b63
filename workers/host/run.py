"""The only place that starts programs, so that each has a fixed PATH, a clean environment and a deadline."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from ...models.errors import HostError, Permanent, Temporary

#: Where programs are looked for; never the PATH the worker happened to be started with.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
#: Lines of a program's own words that are worth showing.
WORDS = 4
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Ended:
    """How a program ended. `output` is what it said on both channels, in its order."""

    argv: tuple[str, ...]
    code: int
    output: str

    @property
    def words(self) -> str:
        """The program's own last words, on one line."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return " / ".join(lines[-WORDS:]) or f"exit status {self.code}"

    def check(self, error: type[HostError] = Temporary) -> Ended:
        """Raises `error` with the program's own words if it failed."""
        if self.code:
            raise error(f"{os.path.basename(self.argv[0])}: {self.words}")
        return self


class Runner(Protocol):
    """What needs a real machine. The rehearsed one has the same shape and does nothing."""

    real: bool

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        seconds: float = 30,
        fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        """Runs a program to its end. Raises Temporary if it is not there or its time is up (it is then killed)."""
        ...

    def as_user(self, uid: int, gid: int, groups: Sequence[int], work: Callable[[], None], seconds: float = 30) -> None:
        """Does `work` in a child process with that user's rights. Raises what `work` raised, as Permanent."""
        ...

    def chown(self, path: int | str | os.PathLike[str], uid: int, gid: int) -> None:
        """Sets the owner of a file (not of what a link points to)."""
        ...


class RealRunner:
    """Touches this machine."""

    real = True

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        seconds: float = 30,
        fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        """See Runner. The child inherits `fds` and nothing else."""
        command = (_program(argv[0]), *argv[1:])
        try:
            done = subprocess.run(
                command,
                input=stdin.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                env={**ENVIRONMENT, **(env or {})},
                pass_fds=fds,
                cwd="/",
                umask=0o022,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Temporary(f"{argv[0]}: no answer in {seconds:g} s") from None
        return Ended(command, done.returncode, done.stdout.decode(errors="replace"))

    def as_user(self, uid: int, gid: int, groups: Sequence[int], work: Callable[[], None], seconds: float = 30) -> None:
        """See Runner. The child dies with the worker, and after `seconds` (shared storage may hang)."""
        reader, writer = os.pipe()
        parent = os.getpid()
        child = os.fork()
        if not child:
            os.close(reader)
            _be_user(parent, uid, gid, groups, work, writer, seconds)
        os.close(writer)
        _end_in_time(child, seconds + 1)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read().decode(errors="replace")
        _, status = os.waitpid(child, 0)
        if said:
            raise Permanent(said)
        if status:
            raise Temporary(f"work with the rights of uid {uid} did not end in {seconds:g} s")

    def chown(self, path: int | str | os.PathLike[str], uid: int, gid: int) -> None:
        """See Runner."""
        if isinstance(path, int):
            os.fchown(path, uid, gid)
        else:
            os.chown(path, uid, gid, follow_symlinks=False)


class RehearsedRunner:
    """Stands for a machine that is only a folder: no program runs and no owner changes."""

    real = False

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        seconds: float = 30,
        fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        """Says that it went well."""
        return Ended(tuple(argv), 0, "")

    def as_user(self, uid: int, gid: int, groups: Sequence[int], work: Callable[[], None], seconds: float = 30) -> None:
        """Does the work with the rights of whoever rehearses."""
        work()

    def chown(self, path: int | str | os.PathLike[str], uid: int, gid: int) -> None:
        """Leaves the owner as it is."""


@cache
def _program(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if not found:
        raise Temporary(f"{name} is not installed on this node")
    return found


def _end_in_time(child: int, seconds: float) -> None:
    """Waits for a child; kills one that its own alarm cannot end, as its user has stopped it."""
    handle = os.pidfd_open(child)
    try:
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        if not waiting.poll(seconds * 1000):
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(handle)


def _be_user(
    parent: int, uid: int, gid: int, groups: Sequence[int], work: Callable[[], None], writer: int, seconds: float
) -> None:
    """The child's whole life: never returns, so that no code of the worker runs twice."""
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        os.setgroups(list(groups))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        # After the change of user, which clears it.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        work()
        code = 0
    except HostError as error:
        os.write(writer, error.what.encode()[:4000])
    except OSError as error:
        os.write(writer, f"{error.strerror}: {error.filename or ''}".encode()[:4000])
    finally:
        os._exit(code)
