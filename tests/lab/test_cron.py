"""Cron of accounts on three nodes with one /home: each minute starts once, somewhere; a dead node's work moves."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.lab

#: Looks at cron's minutes from a moment on, one each `step` seconds of the real clock, and waits for what it started.
SIMULATE = """
from datetime import datetime
from pathlib import Path
from onehost.workers.cron import minute
first, count, begin, step = datetime.fromisoformat(sys.argv[1]).timestamp(), int(sys.argv[2]), *map(float, sys.argv[3:])
for number in range(count):
    time.sleep(max(0.0, begin + number * step - time.time()))
    for pid in minute.run(Path("/"), first + number * 60):
        os.waitpid(pid, 0)
print("null")
"""
#: No real minute of a test: entries of the first of January are started by `simulate` alone.
NEW_YEAR = "2027-01-01T00:{:02}:00+00:00"


@pytest.fixture(scope="module")
def alice(lab: Any) -> Iterator[Any]:
    lab.onehost("account", "create", "alice", "--domain", "alice.example", "--access", "sftp", "--wait")
    yield lab
    for each in LEFT:
        each.kill()
        each.communicate()


#: What still waits for a command of the test's; ended with the lab.
LEFT: list[Any] = []


def create(lab: Any, label: str, command: str, schedule: str = "* * 1 1 *") -> None:
    lab.onehost("cron", "create", f"alice.{label}", "alice", schedule, command, "--wait")


def delete(lab: Any, label: str) -> None:
    lab.onehost("cron", "delete", f"alice.{label}", "--yes", f"alice.{label}", "--wait")


def simulate(lab: Any, nodes: list[str], first: int, count: int = 1, step: float = 0.5, wait: bool = True) -> list[Any]:
    """All these nodes at once."""
    begin = time.time() + 1.5
    code = "import os, sys, time\n" + SIMULATE
    arguments = [NEW_YEAR.format(first), str(count), str(begin), str(step)]
    running = [lab.start(node, ".venv/bin/python", "-c", code, *arguments) for node in nodes]
    for each in running if wait else []:
        assert each.communicate(timeout=60)[0] == "null\n"
    LEFT.extend([] if wait else running)
    return running


def written(lab: Any, name: str) -> list[str]:
    return str(lab.run("node1", "cat", f"/home/alice/home/{name}", check=False)).split()


def log(lab: Any, label: str) -> list[str]:
    text = lab.run("node1", "cat", "/home/alice/log/cron.log", check=False)
    return [line for line in text.splitlines() if f" alice.{label}: " in line]


def test_twenty_minutes_on_three_nodes_at_once_start_once_each(alice: Any) -> None:
    create(alice, "once", "hostname >>once")
    simulate(alice, alice.nodes, 0, 20)
    lines = log(alice, "once")
    minutes = [line.split()[0] for line in lines]
    assert sorted(minutes) == [f"2027-01-01T00:{number:02}Z" for number in range(20)], lines
    assert len(written(alice, "once")) == 20
    # The same again, as nodes that are late would do it.
    simulate(alice, alice.nodes, 0, 20, 0.1)
    assert len(written(alice, "once")) == 20
    delete(alice, "once")
    simulate(alice, alice.nodes, 30)
    assert len(written(alice, "once")) == 20


def test_it_runs_as_the_account_and_says_what_it_did(alice: Any) -> None:
    create(
        alice, "who", 'id -un; id -u; pwd; umask; nice; echo "$HOME $USER $SHELL" 100% $(date +%Y | wc -l); env | wc -l'
    )
    simulate(alice, ["node2"], 0)
    text = alice.run("node1", "cat", "/home/alice/log/cron.log")
    uid = alice.onehost("account", "show", "alice")["spec"]["uid"]
    said = text.split(" alice.who: ")[1].splitlines()
    assert re.fullmatch(r"exit 0 in \d+\.\d s", said[0])
    words = [line.strip() for line in said[1:]]
    assert words[:6] == ["alice", str(uid), "/home/alice/home", "0027", "10",
                         "/home/alice/home alice /bin/sh 100% 1"]  # fmt: skip
    assert int(words[6]) <= 8, "the environment of root came along"
    assert alice.run("node1", "stat", "-c", "%U %a", "/home/alice/.cron", "/home/alice/log/cron.log").split() == [
        "alice", "700", "alice", "600"]  # fmt: skip
    look = "setpriv --reuid alice --regid alice --clear-groups cat /etc/onehost/cron/entries/live/* 2>&1 || true"
    assert "Permission denied" in alice.run("node1", "bash", "-c", look)
    delete(alice, "who")


def test_it_ends_at_its_limit_and_does_not_meet_itself(alice: Any) -> None:
    alice.onehost("cron", "create", "alice.slow", "alice", "* * 1 1 *", "echo in >>slow; sleep 60",
                  "--limit-seconds", "15", "--wait")  # fmt: skip
    first = simulate(alice, ["node1"], 0, wait=False)
    alice.wait(lambda: written(alice, "slow") == ["in"], 20)
    simulate(alice, ["node1", "node2", "node3"], 1)
    assert written(alice, "slow") == ["in"], "it was started beside itself"
    assert first[0].communicate(timeout=60)[0] == "null\n"
    assert "ended after its 15 s" in log(alice, "slow")[0]
    simulate(alice, ["node2"], 2, wait=True)
    assert written(alice, "slow") == ["in", "in"]
    delete(alice, "slow")


def test_a_killed_holder_is_followed_by_another_node(alice: Any) -> None:
    create(alice, "held", "hostname >>held; exec sleep 1000")
    simulate(alice, alice.nodes, 0, wait=False)
    alice.wait(lambda: len(written(alice, "held")) == 1, 20)
    holder = written(alice, "held")[0]
    others = [node for node in alice.nodes if node != holder]
    (id_,) = [each["id"] for each in alice.onehost("cron", "list") if each["name"] == "alice.held"]
    assert alice.run("node1", "cat", f"/home/alice/.cron/{id_}").split()[1] == holder
    simulate(alice, others, 1)
    assert written(alice, "held") == [holder]
    alice.ops("kill", holder)
    simulate(alice, others, 2, wait=False)
    alice.wait(lambda: len(alice.run(others[0], "cat", "/home/alice/home/held").split()) == 2, 20)
    assert alice.run(others[0], "cat", "/home/alice/home/held").split()[1] in others
    alice.ops("boot", holder)
    alice.wait(alice.is_quiet, 60)
    # A killed process alone: what it ran ends with it, so that nothing runs twice.
    second = written(alice, "held")[1]
    processes = "ps -u alice -o pid=,args="
    rows = [row.split(None, 1) for row in alice.run(second, "bash", "-c", processes).splitlines()]
    (keeper,) = [pid for pid, command in rows if "onehost.workers.cron" in command or "minute" in command]
    alice.run(second, "kill", "-9", keeper)
    alice.wait(lambda: "sleep 1000" not in alice.run(second, "bash", "-c", f"{processes} || true"), 10)
    simulate(alice, [node for node in alice.nodes if node != second], 3, wait=False)
    alice.wait(lambda: len(written(alice, "held")) == 3, 20)


def test_suspended_nothing_runs_and_nothing_starts(alice: Any) -> None:
    assert len(written(alice, "held")) == 3
    alice.onehost("account", "suspend", "alice", "--wait")
    for node in alice.nodes:
        assert alice.run(node, "bash", "-c", "ps -u alice -o args= || true").strip() == ""
    simulate(alice, alice.nodes, 10, 3)
    assert len(written(alice, "held")) == 3
    alice.onehost("account", "unsuspend", "alice", "--wait")
    simulate(alice, alice.nodes, 20, wait=False)
    alice.wait(lambda: len(written(alice, "held")) == 4, 20)
    alice.onehost("cron", "disable", "alice.held", "--wait")
    delete(alice, "held")


def test_debians_cron_starts_it_each_minute(alice: Any) -> None:
    create(alice, "tick", "echo $(hostname) $(date +%H:%M) >>tick", "* * * * *")
    alice.wait(lambda: len(written(alice, "tick")) >= 4, 150, "cron did not start it twice")
    times = written(alice, "tick")[1::2]
    assert len(times) == len(set(times))
    assert all(line.split()[1] in alice.nodes for line in log(alice, "tick"))


def test_a_removed_account_takes_its_entries_along(alice: Any) -> None:
    alice.onehost("account", "delete", "alice", "--yes", "alice", "--wait")
    alice.wait(alice.is_quiet, 60)
    assert alice.onehost("cron", "list") == []
    for node in alice.nodes:
        assert alice.run(node, "bash", "-c", "ls /etc/onehost/cron/entries/live/").strip() == ""
    assert "tick" not in json.dumps(alice.onehost("status"))
