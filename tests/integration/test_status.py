"""`onehost status` on real parts: the store, a broker, a supervisor; what it says, and whom it tells."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from onehost.broker_config.levels import levels
from onehost.models.moment import now
from onehost.models.store import Dead, Job, NodeStatus, Pause, writing
from onehost.producer import seal
from onehost.producer.hook import Hook
from onehost.producer.standing import standing
from onehost.producer.verdict import Reason, Verdict, judge

from .command_line import CommandLine
from .conftest import Cluster, wait_until
from .manager import Store

SUPERVISOR = """
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile={folder}/supervisord.pid
[unix_http_server]
file={folder}/s.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[program:relay]
command=/bin/false
startretries=0
[program:audit]
command=/bin/sleep 1000
"""


@pytest.fixture
def line(store: Store, tmp_path: Path) -> CommandLine:
    """The command line of a store, on both databases, without a broker."""
    made = CommandLine(tmp_path)
    made.config.write_text(f'store = "{store.onehost.settings.store}"\n')
    # It is a copy of one that was made when the first test needed it, and nobody seals here.
    with writing(store.engine) as connection:
        seal.seal(connection)
    return made


def said(line: CommandLine, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line.run("status", "-o", "json", *words).stdout)
    return found


def kinds(found: dict[str, Any]) -> list[str]:
    return [f"{reason['kind']} {reason['about']}".strip() for reason in found["reasons"]]


def test_what_the_store_knows_is_told(store: Store, line: CommandLine) -> None:
    with writing(store.engine) as connection:
        connection.execute(update(NodeStatus).values(orphans=None))
    found = said(line, "--no-broker")
    assert (found["level"], found["reasons"], found["broker"]) == ("ok", [], None)

    receipt = store.onehost.account_create("alice", domain="alice.example")
    store.ack("s1", receipt.resource_id, 1)
    long_ago = now().replace(year=2025)
    with writing(store.engine) as connection:
        connection.execute(
            insert(Pause).values(node_id=store.id("node", "w2"), actor="bob", reason="new disk", at=now())
        )
        connection.execute(update(Job).where(Job.id == receipt.job_id).values(state="held"))
        connection.execute(
            update(NodeStatus).where(NodeStatus.node_id == store.id("node", "s1")).values(orphans=b"[1,2]")
        )
        texts = dict.fromkeys(("queue", "why", "routing_key", "user", "message_id"), "")
        connection.execute(insert(Dead).values(**texts, at=now(), body=b"", size_bytes=0, state="kept", state_at=now()))
    found = said(line, "--no-broker")
    assert found["level"] == "degraded"
    assert sorted(kinds(found)) == ["dead", "held", "orphans s1", "paused w2"]
    node = {each["name"]: each for each in found["nodes"]}
    assert (node["w1"]["oldest"]["name"], node["w1"]["oldest"]["is_sent"], node["s1"]["oldest"]) == (
        "alice",
        False,
        None,
    )

    with writing(store.engine) as connection:
        status = standing(connection)
    status["nodes"] = [
        each | {"oldest": each["oldest"] and each["oldest"] | {"since_at": long_ago}} for each in status["nodes"]
    ]
    assert "behind w1" in judge(status, now()).causes


def test_a_clock_that_is_off_is_told_by_the_quickest_of_several_beats(store: Store, line: CommandLine) -> None:
    for late in (90, 3, 200, 90, 120):  # seconds under way, on a clock that is right
        store.say(store.beat("w1", at=time.time() - late, blocked={"apache": str(late)}))
    store.say(store.beat("w2", at=time.time() + 61, blocked={"apache": "x"}))
    assert [kind for kind in kinds(said(line, "--no-broker")) if kind.startswith("skew")] == ["skew w2"]
    for late in (90, 200, 90, 120):
        store.say(store.beat("w1", at=time.time() - late, blocked={"apache": str(late)}))
    assert [kind for kind in kinds(said(line, "--no-broker")) if kind.startswith("skew")] == ["skew w1", "skew w2"]


def test_a_store_that_is_away_is_bad(tmp_path: Path) -> None:
    line = CommandLine(tmp_path)
    line.config.write_text(f'store = "sqlite:///{tmp_path}/nothing.db"\n')
    done = line.run("status", "--no-broker")
    assert done.exit_code == 2 and done.stdout.startswith("bad: store ") and "onehost init" in done.stdout


def test_a_silent_broker_is_a_reason_and_costs_two_seconds_at_most(line: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        (line.folder / "secrets").mkdir()
        (line.folder / "secrets" / "topology").write_text("x")
        (line.folder / "secrets" / "topology").chmod(0o600)
        with line.config.open("a") as config:
            config.write(
                f'management = "http://127.0.0.1:{server.getsockname()[1]}"\nsecrets = "{line.folder}/secrets"\n'
            )
        began = time.monotonic()
        found = said(line)
        spent = time.monotonic() - began
    assert kinds(found) == ["broker-unreachable"] and found["level"] == "degraded"
    assert spent < 3 * 2.0, "the limit is two seconds; a slow machine may take as long again for the rest"


@pytest.mark.broker
def test_what_the_broker_knows_is_told(cluster: Cluster, rabbitmq: Any, tmp_path: Path) -> None:
    wait_until(lambda: set(levels(cluster.settings)["queues"]) >= {"onehost.audit", "onehost.node.web1"})
    wait_until(lambda: all(queue["consumers"] for queue in levels(cluster.settings)["queues"].values()))
    found = levels(cluster.settings)
    assert (found["reason"], found["alarms"], found["down"], found["parted"]) == ("", [], [], [])
    rabbitmq.ctl(["set_vm_memory_high_watermark", "absolute", "1MB"])
    try:
        wait_until(lambda: levels(cluster.settings)["alarms"])
        assert levels(cluster.settings)["alarms"][0][1] == "memory"
    finally:
        rabbitmq.ctl(["set_vm_memory_high_watermark", "0.4"])


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Path]:
    """A real supervisor with a process that dies and one that lives; its socket."""
    config = tmp_path / "supervisor.conf"
    config.write_text(SUPERVISOR.format(folder=tmp_path))
    program = [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)]
    running = subprocess.Popen(program, stdout=subprocess.DEVNULL, start_new_session=True)
    yield tmp_path / "s.sock"
    running.terminate()
    running.wait(15)


def test_what_supervisor_knows_is_told(line: CommandLine, supervisor: Path) -> None:
    with line.config.open("a") as config:
        config.write(f'supervisor = "{supervisor}"\n')
    wait_until(lambda: "process relay" in kinds(said(line, "--no-broker")))
    found = said(line, "--no-broker")
    assert found["level"] == "bad" and kinds(found) == ["process relay"]
    assert {each["name"]: each["state"] for each in found["processes"]}["audit"] in ("STARTING", "RUNNING")


def test_a_supervisor_that_is_named_must_be_there(line: CommandLine) -> None:
    assert said(line, "--no-broker")["processes"] == []
    with line.config.open("a") as config:
        config.write('supervisor = "/nowhere/x.sock"\n')
    assert kinds(said(line, "--no-broker")) == ["process supervisor at /nowhere/x.sock"]


# ---- the hook


BAD = Verdict((Reason("dead", "", "2 dead letters"),))


@pytest.fixture
def log(tmp_path: Path) -> Callable[[], list[str]]:
    """What the hook below has written: a level and a verdict each."""
    return lambda: (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []


def hook(tmp_path: Path, script: str, seconds: float = 30.0) -> Hook:
    program = tmp_path / "hook.sh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    return Hook((str(program), "a b; c"), tmp_path / "memory.json", seconds)


def test_a_hook_is_told_of_changes_only(tmp_path: Path, log: Callable[[], list[str]]) -> None:
    command = hook(tmp_path, f'echo "$ONEHOST_LEVEL $1 $(cat)" >> {tmp_path}/log')
    assert command.tell(Verdict(), b"{}") == "" and log() == [], "before the first time all was well"
    for words in ("2 dead letters", "3 dead letters"):  # the same cause
        assert command.tell(Verdict((Reason("dead", "", words),)), words.encode()) == ""
    assert log() == ["degraded a b; c 2 dead letters"]
    worse = Verdict((*BAD.reasons, Reason("none-online", "", "none", is_bad=True)))
    assert command.tell(worse, b"worse") == "" == command.tell(Verdict(), b"well")
    assert log()[1:] == ["bad a b; c worse", "ok a b; c well"]


def test_a_hook_that_fails_or_hangs_is_told_again(tmp_path: Path, log: Callable[[], list[str]]) -> None:
    assert "ended with 3" in hook(tmp_path, "exit 3").tell(BAD, b"x" * 10**6)
    slow = hook(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/pid; wait", seconds=0.5)
    assert "killed after 0.5 s" in slow.tell(BAD, b"")
    wait_until(lambda: is_gone(int((tmp_path / "pid").read_text())))
    assert "No such file" in Hook(("/nowhere/hook",), tmp_path / "memory.json").tell(BAD, b"")
    assert hook(tmp_path, f"echo told >> {tmp_path}/log").tell(BAD, b"") == "" and log() == ["told"]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except FileNotFoundError:
        return True


def test_a_hook_from_the_command_line(line: CommandLine, tmp_path: Path, log: Callable[[], list[str]]) -> None:
    program = hook(tmp_path, f"cat >> {tmp_path}/log").command[0]
    words = ("status", "--no-broker", "--hook", program, "--state", str(tmp_path / "memory.json"))
    with line.config.open("a") as config:
        config.write('supervisor = "/nowhere/x.sock"\n')
    for _ in range(2):
        assert line.run(*words).exit_code == 1
    assert json.loads("\n".join(log()))["reasons"][0]["kind"] == "process"
    done = line.run("status", "--hook", program, "--state", "/nowhere/memory.json")
    assert done.exit_code == 2 and "/nowhere" in done.stderr
    assert line.run("status", "--hook", "").exit_code in (0, 1)


def test_following_says_it_again_at_a_change(store: Store, line: CommandLine) -> None:
    program = [
        sys.executable,
        "-c",
        "from onehost.producer.cli import main; main()",
        "status",
        "--no-broker",
        "--follow",
    ]
    environment = os.environ | {"ONEHOST_CONFIG": str(line.config)}
    # Who runs tests in the background has them ignore the key, and so what they start.
    running = subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # fmt: skip
    assert running.stdout
    try:
        assert "ok: 3 of 3 nodes online" in running.stdout.readline()
        receipt = store.onehost.account_create("alice", domain="alice.example")
        store.ack("s1", receipt.resource_id, 1, "failed")
        assert "degraded: 1 failed on a node" in running.stdout.readline()
        running.send_signal(signal.SIGINT)
        assert running.wait(15) == 1 and running.stdout.read() == ""
    finally:
        running.kill()
        running.wait(15)
        running.stdout.close()
