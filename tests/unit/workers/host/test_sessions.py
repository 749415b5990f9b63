"""Every process of an account ends, however stubborn, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onehost.workers.host.machine import real
from onehost.workers.host.sessions import Sessions

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of another user")
#: Numbers of nobody on this machine.
UID, OTHER = 58123, 58124


def start(uid: int, script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["setpriv", "--reuid", str(uid), "--clear-groups", "sh", "-c", script])


def wait_for(uid: int, count: int) -> None:
    deadline = time.monotonic() + 5
    while len(Sessions(real()).of(uid, "nobodyhere")) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_all_end_and_others_stay() -> None:
    mine = [
        start(UID, "exec sleep 60"),
        start(UID, "trap '' TERM; while :; do sleep 1; done"),
        start(UID, "sleep 61 & wait"),
    ]
    others = start(OTHER, "exec sleep 60")
    wait_for(UID, 4)
    assert Sessions(real()).end(UID, "nobodyhere") >= 4
    assert Sessions(real()).of(UID, "nobodyhere") == set()
    assert others.poll() is None
    others.kill()
    for process in [*mine, others]:
        process.wait(5)


def test_nothing_to_end() -> None:
    assert Sessions(real()).end(UID, "nobodyhere") == 0


def test_a_title_proves_nothing(tmp_path: Path) -> None:
    fake = subprocess.Popen(["setpriv", "--reuid", str(OTHER), "--clear-groups", sys.executable, "-c", FAKE],
                            stdout=subprocess.PIPE)  # fmt: skip
    assert fake.stdout
    fake.stdout.readline()
    assert Sessions(real()).of(UID, "alice") == set()
    fake.kill()
    fake.communicate()


FAKE = """
import ctypes, time
libc = ctypes.CDLL(None)
libc.prctl(15, b"sshd", 0, 0, 0)
print("ready", flush=True)
time.sleep(60)
"""
