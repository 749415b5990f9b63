"""Programs: found in a fixed PATH, in a clean environment, with a deadline, and failing in their own words."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from onehost.models.errors import Blocked, Permanent, Temporary
from onehost.workers.host.run import RealRunner

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def test_environment_and_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "leaks")
    ended = RealRunner().run(["sh", "-c", "cat; env; umask"], stdin="hello\n", env={"EXTRA": "1"})
    assert ended.output.startswith("hello\n") and "SECRET" not in ended.output and "EXTRA=1" in ended.output
    assert ended.output.endswith("0022\n")


def test_failure_speaks_in_the_programs_words() -> None:
    ended = RealRunner().run(["sh", "-c", "echo first; echo 'bad line 3' >&2; exit 4"])
    with pytest.raises(Blocked, match=r"sh: first / bad line 3"):
        ended.check(Blocked)


def test_a_program_that_hangs_or_is_missing() -> None:
    with pytest.raises(Temporary, match="no answer in"):
        RealRunner().run(["sleep", "5"], seconds=0.1)
    with pytest.raises(Temporary, match="not installed"):
        RealRunner().run(["no-such-program-here"])


@root
def test_work_as_a_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o001)
    path = tmp_path / "made"
    RealRunner().as_user(20001, 20002, [33], lambda: path.write_text("x") and None)
    assert (path.stat().st_uid, path.stat().st_gid) == (20001, 20002)


@root
def test_work_as_a_user_fails_in_its_own_words() -> None:
    def refused() -> None:
        Path("/etc/onehost-test").write_text("")

    def raises() -> None:
        raise Permanent("said so")

    with pytest.raises(Permanent, match="Permission denied: /etc/onehost-test"):
        RealRunner().as_user(20001, 20001, [], refused)
    with pytest.raises(Permanent, match="said so"):
        RealRunner().as_user(20001, 20001, [], raises)


@root
def test_work_as_a_user_has_a_deadline() -> None:
    def hangs() -> None:
        os.read(os.pipe()[0], 1)

    def is_stopped() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)  # as its user may do, from a shell or by PHP

    for work in (hangs, is_stopped):
        with pytest.raises(Temporary, match="did not end in"):
            RealRunner().as_user(20001, 20001, [], work, seconds=0.1)
