"""Brakes on the command line: held, grace, pause, batches, deadlines, many jobs at once, and what a cancel says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from .command_line import CommandLine
from .manager import Store


@pytest.fixture
def onehost(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """A manager's store with a storage and two web nodes, that holds what comes after one removal or suspension."""
    made = CommandLine(tmp_path_factory.mktemp("manager"))
    made.init()
    monkeypatch.setenv("ONEHOST_HELD_BEYOND_PER_HOUR", "1")
    for number, (name, role) in enumerate((("s1", "storage"), ("w1", "web"), ("w2", "web"))):
        made.good("node", "add", name, f"10.0.0.{number + 1}", "--roles", role, "--no-broker")
    return made


@pytest.fixture
def nodes(onehost: CommandLine) -> Iterator[Store]:
    """What says things in the name of the nodes."""
    made = Store(onehost.store, onehost.folder)
    for name in ("s1", "w1", "w2"):
        made.say(made.beat(name))
    yield made
    made.close()


def create(onehost: CommandLine, nodes: Store, *names: str) -> None:
    for name in names:
        onehost.good("account", "create", name)
        for node in ("s1", "w1", "w2"):
            nodes.ack(node, nodes.id("account", name), 1)


def test_held_is_said_with_the_next_commands_and_released(onehost: CommandLine, nodes: Store) -> None:
    create(onehost, nodes, "alice", "bob", "carol")
    onehost.good("account", "suspend", "alice")
    said = onehost.good("account", "delete", "bob", "--yes", "bob")
    found = re.search(r"account bob: job (\d+) is held, nothing is changed", said)
    assert found and f"onehost job release {found[1]}" in said and f"onehost job cancel {found[1]}" in said
    assert "held" in onehost.good("job", "list", "--state", "held")
    assert f"do it: onehost job release {found[1]}" in onehost.good("job", "show", found[1])
    assert "it would be held" in onehost.good("account", "suspend", "carol", "--dry-run")
    done = onehost.run("account", "create", "bob")
    assert done.exit_code == 5 and f"onehost job release {found[1]}" in done.stderr
    said = onehost.good("job", "release", found[1], "--reason", "they have left")
    assert f"job {found[1]} waits until" in said and "undoes everything" in said
    assert onehost.run("job", "release", found[1]).exit_code == 3
    again = json.loads(onehost.good("account", "suspend", "carol", "-o", "json"))["receipt"]
    assert again["held"] and again["targets"] == 0
    said = onehost.good("job", "cancel", str(again["job_id"]))
    assert said == f"account carol: job {again['job_id']} is cancelled; it was held, so nothing had been changed\n"


def test_a_cancel_says_what_happened_on_each_node(onehost: CommandLine, nodes: Store) -> None:
    create(onehost, nodes, "alice")
    said = onehost.good("account", "delete", "alice", "--yes", "alice")
    job = re.search(r"job (\d+) waits until [0-9:]+Z; until then onehost job cancel \1 undoes everything", said)
    assert job
    nodes.ack("w1", nodes.id("account", "alice"), 2)
    said = onehost.good("job", "cancel", job[1])
    new = int(job[1]) + 1
    assert said.splitlines()[1:] == [
        f"  w1: had applied it; it is wanted again as it was (generation 3, job {new})",
        f"  w2: was not sent yet, and will not be; it is wanted again as it was (generation 3, job {new})",
        "  s1: stopped before it was sent there",
    ]
    done = onehost.run("job", "cancel", job[1])
    assert done.exit_code == 3 and f"job {new} came after it" in done.stderr


def test_many_jobs_are_counted_first(onehost: CommandLine, nodes: Store) -> None:
    for name in ("alice", "bob", "carol"):
        onehost.good("account", "create", name)
        nodes.ack("s1", nodes.id("account", name), 1, "failed", reason="disk full")
    where = ("job", "retry", "--where", "state=halted,kind=account.*,node=s1,since=2h")
    assert "3 jobs would be retried\n" in onehost.good(*where, "--dry-run")
    done = onehost.run(*where)
    assert done.exit_code == 3 and "3 jobs match" in done.stderr and "--yes 3" in done.stderr
    done = onehost.run(*where, "--yes", "2")
    assert done.exit_code == 3 and "--yes 2, but 3 jobs match; nothing was changed" in done.stderr
    done = onehost.run(*where, "-o", "json")
    assert done.exit_code == 3 and not done.stdout
    found = json.loads(onehost.good(*where, "--yes", "3", "-o", "json"))
    assert [each["receipt"]["generation"] for each in found] == [2, 2, 2]
    assert onehost.good(*where, "--yes", "0").startswith("0 jobs")
    assert onehost.good("job", "cancel", "--where", "kind=account.retry", "--yes", "3") == "3 jobs cancelled\n"


def test_some_refused_is_exit_code_1(onehost: CommandLine, nodes: Store) -> None:
    create(onehost, nodes, "alice", "bob")
    onehost.good("account", "delete", "alice", "--yes", "alice")
    onehost.good("account", "create", "alice")  # the removal goes on, but nothing of it can be cancelled
    done = onehost.run("job", "cancel", "--where", "kind=account.delete", "--yes", "1")
    assert done.exit_code == 1 and "0 jobs cancelled, 1 refused:" in done.stdout and "came after it" in done.stdout


@pytest.mark.parametrize(
    "words",
    [["retry"], ["cancel", "12", "--where", "state=running"], ["retry", "--where", "state"],
     ["retry", "12", "--yes", "1"], ["retry", "--where", "colour=red"], ["retry", "--where", "state=a,state=b"],
     ["release", "12", "--dry-run"], ["retry", "--where", "state=failed", "--batch", "2"],
     ["retry", "--where", "since=soon"]],
)  # fmt: skip
def test_wrongly_put(onehost: CommandLine, words: list[str]) -> None:
    done = onehost.run("job", *words)
    assert done.exit_code == 2 and done.stderr.startswith("error: "), done.output


def test_batches_and_deadlines(onehost: CommandLine, nodes: Store) -> None:
    create(onehost, nodes, "alice")
    how = ("--batch", "50%", "--max-fail", "1", "--deadline", "30s")
    job = json.loads(onehost.good("account", "set", "alice", "--document-root", "new", *how, "-o", "json"))["receipt"]
    shown = json.loads(onehost.good("job", "show", str(job["job_id"]), "-o", "json"))
    assert [(n["node"], n["stage"]) for n in shown["nodes"]] == [("s1", 1), ("w1", 2), ("w2", 3)]
    began, ends = (datetime.fromisoformat(shown[name]) for name in ("submitted_at", "deadline_at"))
    assert (shown["max_fail"], ends - began) == (1, timedelta(seconds=30))
    for option in (("--batch", "half"), ("--deadline", "soon"), ("--deadline", "0s"), ("--deadline", "400d")):
        assert onehost.run("account", "set", "alice", "--no-php", *option).exit_code == 2


def test_pause_and_resume(onehost: CommandLine, nodes: Store) -> None:
    assert onehost.run("pause").exit_code == 2
    assert "3 nodes paused" in onehost.good("pause", "--all", "--reason", "storage is failing")
    assert onehost.run("pause", "--all").exit_code == 5
    job = json.loads(onehost.good("account", "create", "alice", "-o", "json"))["receipt"]["job_id"]
    done = onehost.run("job", "wait", str(job), "--timeout", "0.2")
    assert done.exit_code == 6 and "s1: waiting, the node is paused" in done.stderr
    assert "resumed" in onehost.good("resume", "--all")
    assert "node w1 paused" in onehost.good("node", "pause", "w1")
    assert "node w1 resumed" in onehost.good("node", "resume", "w1")
    kinds = onehost.good("audit", "list", "--kind", "node.*")
    assert "node.pause" in kinds and "node.resume" in kinds and "tester" in kinds
