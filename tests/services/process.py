"""Services as processes: started in a group of their own, ended with the tests, also when those are killed."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

#: Linux hands out ports above this to clients; a server that wants one there loses the race on a busy machine.
FIRST_EPHEMERAL_PORT = 32768
BOOT_SECONDS = 90
#: Waits for the end of its standard input, which the tests hold, then ends the group $1 and removes the folder $2.
GUARD = 'read _; kill -s KILL -- "-$1" 2>/dev/null; rm -rf -- "$2"'


#: For each service, by process id, who ends it when the tests are killed.
_guards: dict[int, subprocess.Popen[bytes]] = {}


def is_missing(message: str) -> NoReturn:
    """Skips the test that needs a service, loudly; with CI set it fails."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody has."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20000, FIRST_EPHEMERAL_PORT)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def start(command: list[str], env: dict[str, str], folder: Path, **identity: Any) -> subprocess.Popen[bytes]:
    """Start a service as leader of a group of its own; it dies with the tests, also when they are killed."""
    with (folder / "out").open("ab") as out:
        service = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            **identity,
        )
    guard = ["sh", "-c", GUARD, "guard", str(service.pid), str(folder)]
    _guards[service.pid] = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)
    return service


def end(process: subprocess.Popen[bytes], how: int) -> None:
    """End a service and whatever it started in its session."""
    if process.poll() is None:
        os.killpg(process.pid, how)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    guard = _guards.pop(process.pid)
    guard.kill()
    guard.communicate()


def wait_until(answers: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until a service answers; fails with what it said."""
    until = time.monotonic() + BOOT_SECONDS
    while not answers():
        if process.poll() is not None or time.monotonic() > until:
            pytest.fail(f"{process.args} did not come up:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)
