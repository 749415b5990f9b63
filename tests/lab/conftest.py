"""A whole cluster in namespaces, by `ops/lab`: what acceptance tests of onehost stand on."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
#: Runs in every machine before the script that a test hands over.
PREAMBLE = "import json, os, sys, time\nfrom onehost.producer import EventFilter, Onehost, Wish\n"


class Lab:
    """A lab of three nodes with onehost running, found by its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes = ["node1", "node2", "node3"]

    def ops(self, *words: str) -> str:
        """Runs a word of `ops/lab`."""
        command = [CHECKOUT / "ops" / "lab", words[0], "--name", self.name, *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, machine: str, *command: str, stdin: str = "", check: bool = True) -> str:
        """A command in a machine; its standard output."""
        enter = [CHECKOUT / "ops" / "lab", "exec", "--name", self.name, machine, "--", *command]
        done = subprocess.run(enter, input=stdin, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{machine}: {command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, machine: str, *command: str) -> subprocess.Popen[str]:
        """A command in a machine, left running."""
        enter = [CHECKOUT / "ops" / "lab", "exec", "--name", self.name, machine, "--", *command]
        return subprocess.Popen(
            enter, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def python(self, machine: str, script: str, *arguments: str) -> Any:
        """A script in a machine, in onehost's environment; what it prints last is read as JSON."""
        code = PREAMBLE + textwrap.dedent(script)
        said = self.run(machine, ".venv/bin/python", "-", *arguments, stdin=code)
        return json.loads(said.splitlines()[-1])

    def onehost(self, *words: str, stdin: str = "") -> Any:
        """The command line on the manager; its JSON."""
        # `status` says by its exit status how the cluster is.
        return json.loads(self.run("manager", "onehost", "-o", "json", *words, stdin=stdin, check=words[0] != "status"))

    def supervisor(self, machine: str, *words: str) -> str:
        """supervisorctl of a machine's worker."""
        return self.run(machine, ".venv/bin/supervisorctl", "-c", "ops/supervisor/worker.conf", *words, check=False)

    def wait(self, true: Callable[[], Any], seconds: float = 60.0, why: str = "it did not come true in time") -> None:
        until = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < until, f"{why}: {self.onehost('status')}"
            time.sleep(0.2)

    def is_quiet(self) -> bool:
        """Whether nothing is under way and every node is there."""
        status = self.onehost("status")
        states = [node["state"] for node in status["nodes"]]
        return not status["placements_open"] and not status["jobs_running"] and set(states) == {"online"}

    def rounds(self, machine: str) -> dict[str, int]:
        """Rounds of a machine's worker so far, and in how many of them each daemon was told of its files."""
        lines = self.run(machine, "grep", '"action": "round"', "/var/log/onehost/worker.log", check=False).splitlines()
        counts = {"rounds": len(lines)}
        for phase in (phase for line in lines for phase in json.loads(line)["seconds"]):
            if phase.startswith("signal ") and phase != "signal users":  # no daemon is told about users
                counts[phase.removeprefix("signal ")] = counts.get(phase.removeprefix("signal "), 0) + 1
        return counts

    def holds(self, node: str) -> dict[str, dict[str, int]]:
        """What a node really has, read from its own files: users, sites and pools, each name to owner id."""
        return self.python(node, """
            import pathlib, re
            users = {}
            for line in pathlib.Path("/var/lib/extrausers/passwd").read_text().splitlines():
                name, _, uid, _, gecos = line.split(":")[:5]
                users[name] = int(re.search(r"onehost (\\d+)", gecos)[1])
            def files(pattern):
                found = {}
                for live in pathlib.Path("/etc/onehost").glob(pattern):
                    for path in live.resolve().iterdir():
                        if match := re.fullmatch(r"([a-z][a-z0-9]*)\\.(\\d+)\\.conf", path.name):
                            found[match[1]] = int(match[2])
                return found
            sites, pools = files("apache/live"), files("php/*/live")
            print(json.dumps({"users": users, "sites": sites, "pools": pools}))
            """)  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab of its own for each file of tests; skipped where namespaces are forbidden, failed in CI."""
    checked = subprocess.run([CHECKOUT / "ops" / "lab", "check"], capture_output=True, text=True, check=False)
    if checked.returncode:
        why = f"no lab can be made here: {checked.stdout}{checked.stderr}"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    made = Lab(f"t{os.getpid()}")
    made.ops("up", "3")
    try:
        made.wait(made.is_quiet, 60, "the lab did not become quiet")
        yield made
    finally:
        made.ops("down")
