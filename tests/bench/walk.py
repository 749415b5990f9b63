"""How long one account takes, and where the time goes: run on a lab that is up.

    .venv/bin/python tests/bench/walk.py LAB [COUNT] [PAUSE_SECONDS]

Prints the median of COUNT accounts from submit to the last node's acknowledgement, a table of the phases, and what the
first request and the first login from outside found on each node right after it. Asserts nothing about time.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
ADDRESSES = {f"node{n}": f"10.77.0.{10 + n}" for n in (1, 2, 3)}
WORD = "bench-password"

MAKE = """
import json, sys, time
from datetime import datetime
from onehost.producer import EventFilter, Onehost
prefix, count, pause, word = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
onehost = Onehost(actor="bench")
for name in (f"{prefix}{number}" for number in range(count)):
    began = time.perf_counter()
    receipt = onehost.account_create(name, domain=f"{name}.example.com", access="shell", password=word)
    commit = time.perf_counter() - began
    job = onehost.wait(receipt, seconds=60)
    acks = onehost.events(EventFilter(kind="acknowledgement", noun="account", name=name), None)
    at = {e["node"]: datetime.fromisoformat(e["detail"]["at"]).timestamp() for e in acks}
    nodes = [{"node": n["node"], "opened": n["opened_at"].timestamp(), "sent": n["sent_at"].timestamp(),
              "ended": n["ended_at"].timestamp(), "at": at[n["node"]], "phases": n["phases"]} for n in job["nodes"]]
    made = {"name": name, "commit": commit, "submitted": job["submitted_at"].timestamp(), "nodes": nodes}
    print(json.dumps(made), flush=True)
    time.sleep(pause)
"""


def inside(lab: str, machine: str, *command: str, stdin: str = "") -> str:
    enter = [CHECKOUT / "ops" / "lab", "exec", "--name", lab, machine, "--", *command]
    return subprocess.run(enter, input=stdin, capture_output=True, text=True, check=True).stdout


def phases(node: dict[str, Any]) -> dict[str, float]:
    """Seconds of one node's way, by phase; they add up to what the node took."""
    said = node["phases"]
    started = node["at"] - said["node"]
    arrived = started - said["ledger"]
    found = {"relay": node["sent"] - node["opened"], "broker": arrived - node["sent"], "ledger": said["ledger"]}
    for word in ("compare", "files", "validate", "signal", "verify", "settle"):
        found[word] = sum(seconds for name, seconds in said.items() if name.split()[0] == word)
    found["acknowledge+audit"] = node["ended"] - node["at"]
    return found


def main() -> None:
    lab, count, pause = sys.argv[1], *(sys.argv[2:] + ["20", "0"][len(sys.argv) - 2 :])
    inside(lab, "client", "sh", "-c", "umask 077; cat >/root/bench-password", stdin=WORD)
    totals, commits, storage, table, firsts = [], [], [], [], []
    enter = [CHECKOUT / "ops" / "lab", "exec", "--name", lab, "manager", "--", ".venv/bin/python", "-c", MAKE]
    prefix = f"b{os.getpid() % 10000}n"
    with subprocess.Popen([*enter, prefix, count, pause, WORD], stdout=subprocess.PIPE, text=True) as made:
        assert made.stdout is not None
        for job in map(json.loads, made.stdout):
            totals.append(max(node["ended"] for node in job["nodes"]) - job["submitted"])
            commits.append(job["commit"])
            storage.append(job["nodes"][0]["ended"] - job["submitted"])
            table += [phases(node) for node in job["nodes"][1:]]
            # Only where there is time for it: the logins would slow the next account down.
            firsts += [first(lab, job["name"], address) for address in ADDRESSES.values()] if float(pause) else []
    median = statistics.median
    print(f"{count} accounts, {pause} s apart: from submit to the last acknowledgement, median {median(totals):.3f} s, "
          f"max {max(totals):.3f} s")  # fmt: skip
    print(f"  submit call {median(commits):.3f}; storage acknowledged after {median(storage):.3f};"
          " then per web node (median, max):")  # fmt: skip
    for word in table[0]:
        print(f"  {word:18} {median(row[word] for row in table):.3f} {max(row[word] for row in table):.3f}")
    if firsts:
        print(f"  first outside HTTP request and SSH login: {firsts.count(True)} of {len(firsts)} succeeded at once")


def first(lab: str, name: str, address: str) -> bool:
    """The very first request and login on a node, no retry."""
    script = (
        f"curl -s -o /dev/null -w '%{{http_code}}' -H 'Host: {name}.example.com' http://{address}/; "
        f"sshpass -f /root/bench-password ssh -o LogLevel=ERROR {name}@{address} id -un"
    )
    return inside(lab, "client", "sh", "-c", script) == f"200{name}\n"


main()
