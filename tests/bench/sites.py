"""Many domains at once, on a lab of three nodes that it makes and removes.

    .venv/bin/python tests/bench/sites.py [DOMAINS] [ACCOUNTS]        1000 and 50 unless said

One `apply -f` adds all domains, while an existing site is asked 50 times a second, 200 slow downloads go on and one
account is suspended. Then a node is checked, one is wiped and comes back by itself, idle nodes are weighed, and an
account with 100 domains is deleted. Prints what was measured; asserts nothing about time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import suspension

from onehost.tests.lab.conftest import CHECKOUT, Lab

SLOW, RATE, BIG_BYTES = 200, 50, 1_600_000
#: Domains of the account that is deleted.
OWNED = 100
ADDRESS = "10.77.0.11"
MAKE = """
onehost = Onehost(actor="bench")
names = [f"b{n:03}" for n in range(ACCOUNTS)]
wishes = [onehost.wish("account", name, "create", {"domain": f"{name}.example.com"}) for name in names]
receipts = onehost.submit(wishes)
print(json.dumps([onehost.wait(receipt, seconds=300)["state"] for receipt in receipts].count("applied")))
"""
DOWNLOADS = (
    f"seq {SLOW} | xargs -P {SLOW} -I N curl -s -o /dev/null -m 900 --limit-rate 16k -H 'Host: b000.example.com' "
    f"-w '%{{http_code}} %{{size_download}}\\n' http://{ADDRESS}/big"
)
#: What the daemons say themselves about signals, and the masters of PHP by process and start.
TOLD = """
echo apache $(cat /var/log/apache2/error.log* | grep -c 'Doing graceful restart')
echo sshd $(grep -c 'Received SIGHUP' /var/log/auth.log 2>/dev/null)
echo proftpd $(grep -c 'received SIGHUP' /var/log/proftpd/proftpd.log 2>/dev/null)
echo masters $(ps -eo pid=,lstart=,args= | grep '[m]aster process (/etc/onehost/php/' | sort | sha256sum | cut -c-8)
"""
WEIGHT = """
import pathlib, re
found = {}
for each in pathlib.Path("/proc").iterdir():
    if each.name.isdigit():
        try:
            comm = (each / "comm").read_text().strip()
            words = (each / "cmdline").read_bytes().decode().split("\\0")
            pss = next(int(line.split()[1]) for line in (each / "smaps_rollup").open() if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
        if comm.startswith("python"):
            comm = f"python {words[words.index('-m') + 1]}" if "-m" in words else "this look"
        count, total = found.get(comm, (0, 0))
        found[comm] = (count + 1, total + pss)
found.pop("this look", None)
print(json.dumps(found))
"""
#: Everything below /etc/onehost that is not the node's own: numbers of trees and what is counted up are, and what it
#: joined with.
TREE = (
    "cd /etc/onehost && { find . -type f -not -path '*/trees/*' -not -name signalled; "
    "find -L . -type f -path '*/live/*' -not -name '000-*'; } | sort -u | grep -vxE './(worker.toml|node.password)'"
)
DELETE = """
import cProfile, pstats
from sqlalchemy import event
onehost, statements = Onehost(actor="bench"), [0]
event.listen(onehost.engine, "before_cursor_execute", lambda *given: statements.__setitem__(0, statements[0] + 1))
profile = cProfile.Profile()
began = time.monotonic()
receipt = onehost.account_delete("owner") if "plain" in sys.argv else profile.runcall(onehost.account_delete, "owner")
took = time.monotonic() - began
if "plain" not in sys.argv:
    pstats.Stats(profile, stream=sys.stderr).sort_stats("cumulative").print_stats(45)
print(json.dumps([took, statements[0], onehost.wait(receipt, seconds=200)["state"], time.monotonic() - began]))
"""


def told(lab: Lab, node: str) -> dict[str, str]:
    said = (line.split() for line in lab.run(node, "bash", "-c", TOLD).splitlines())
    return {words[0]: words[1] for words in said if len(words) == 2}


def documents(domains: int, accounts: int) -> str:
    return json.dumps([
        {"noun": "domain", "name": f"d{n:04}.example.net", "spec": {"account": f"b{n % accounts:03}"}}
        for n in range(domains)
    ])  # fmt: skip


def fill(lab: Lab, domains: int, accounts: int) -> None:
    """The domains, by one file, and a suspension in the midst of it."""
    before = {node: (told(lab, node), lab.rounds(node)) for node in lab.nodes}
    probe = lab.start("client", "python3", str(CHECKOUT / "tests/lab/load.py"), ADDRESS, "80", "b001.example.com", "/",
                      str(RATE), "60")  # fmt: skip
    slow = lab.start("client", "bash", "-c", DOWNLOADS)
    time.sleep(5)
    lab.run("manager", "bash", "-c", "cat >/root/sites.json", stdin=documents(domains, accounts))
    timed = "began=$(date +%s.%N); onehost apply -f /root/sites.json --wait --timeout 300 >/root/said; " \
            "echo $? $began $(date +%s.%N); tail -n 1 /root/said"  # fmt: skip
    adding = lab.start("manager", "bash", "-c", timed)
    looks = suspension.measure(lab)
    first, *last = adding.communicate(timeout=400)[0].splitlines()[-2:]
    code, began, ended = first.split()
    print(
        f"{domains} domains of {accounts} accounts on {len(lab.nodes)} nodes by one apply -f: "
        f"{float(ended) - float(began):.1f} s, status {code}; at last: {' '.join(last)}"
    )
    for node in lab.nodes:
        _print_signals(node, before[node], (told(lab, node), lab.rounds(node)))
    asked = json.loads(probe.communicate(timeout=200)[0])
    print(f"  {RATE} requests a second meanwhile: {asked['answered']} answered, {len(asked['failed'])} failed"
          f" {asked['failed'][:3]}")  # fmt: skip
    downloads = slow.communicate(timeout=900)[0].splitlines()
    whole = sum(line == f"200 {BIG_BYTES}" for line in downloads)
    print(f"  {SLOW} slow downloads: {whole} whole, {len(downloads) - whole} not")
    suspension.undo(lab, looks)


def _print_signals(node: str, before: tuple[dict[str, str], dict[str, int]],
                   after: tuple[dict[str, str], dict[str, int]]) -> None:  # fmt: skip
    (said, rounds), (says, now) = before, after
    new = {word: now.get(word, 0) - rounds.get(word, 0) for word in ("rounds", "apache", "php")}
    logged = {name: int(says[name]) - int(said.get(name, 0)) for name in says if name != "masters"}
    masters = "the same as before" if said.get("masters") == says.get("masters") else "others than before"
    print(
        f"  {node}: {new['rounds']} rounds; Apache told in {new['apache']} of them ({logged.get('apache', 0)} graceful "
        f"restarts in its log), PHP handed over in {new['php']} (masters {masters}), "
        f"sshd {logged.get('sshd', 0)} and proftpd {logged.get('proftpd', 0)} reloads"
    )


def check(lab: Lab) -> None:
    """How long a node takes to be compared with what it should have."""
    for _ in range(2):
        began = time.monotonic()
        said = json.loads(lab.run("manager", "onehost", "-o", "json", "node", "check", "node1", check=False))
        took, its = time.monotonic() - began, said["node1"]["told"]
        print(f"node check: {its['seconds']:.2f} s on the node, {took:.2f} s with the command, {its['count']} findings")


def wipe(lab: Lab) -> None:
    """A node without any of its files, until it is equal to its peers."""
    hashed = f"{TREE} | tr '\\n' '\\0' | xargs -0 sha256sum; sha256sum /var/lib/extrausers/* /etc/ssh/ssh_host_*"

    def files(node: str) -> set[str]:
        return set(lab.run(node, "bash", "-c", hashed, check=False).splitlines())

    wanted = files("node3")
    print(f"node1 and node3 have the same {len(wanted)} files: {'yes' if files('node1') == wanted else 'no'}"
          f" {sorted(files('node1') ^ wanted)[:6]}")  # fmt: skip
    lab.ops("kill", "node2")
    began = time.monotonic()
    lab.ops("boot", "node2", "--wipe")
    try:
        lab.wait(lambda: files("node2") == wanted, 120)
    except AssertionError:
        print("  not equal: ", sorted(files("node2") ^ wanted)[:6])
    took = time.monotonic() - began
    tree = lab.run("node2", "bash", "-c", f"({hashed}) | sort | sha256sum").split()[0][:16]
    peer = lab.run("node3", "bash", "-c", f"({hashed}) | sort | sha256sum").split()[0][:16]
    print(f"a wiped node: its {len(wanted)} files are those of its peer {took:.1f} s after its boot began; tree hash "
          f"{tree}, of its peer {peer}")  # fmt: skip
    lab.wait(lab.is_quiet, 120)


def weigh(lab: Lab, what: str) -> None:
    time.sleep(12)  # PHP's idle children end after ten seconds
    found: dict[str, Any] = lab.python("node3", WEIGHT)
    total = sum(pss for _, pss in found.values())
    print(f"an idle node, {what}: {sum(count for count, _ in found.values())} processes, {total / 1024:.0f} MiB (PSS)")
    for comm, (count, pss) in sorted(found.items(), key=lambda each: -each[1][1]):
        print(f"  {comm} {count}, {pss / 1024:.1f} MiB")


def delete(lab: Lab) -> None:
    """An account that owns many domains."""
    for how in ("plain", "profiled"):
        lab.run("manager", "onehost", "account", "create", "owner", "--domain", "owner.example.com", "--wait")
        owned = [{"noun": "domain", "name": f"o{n:03}.example.net", "spec": {"account": "owner"}} for n in range(OWNED)]
        lab.run("manager", "onehost", "apply", "-f", "-", "--wait", "--timeout", "200", stdin=json.dumps(owned))
        submitted, statements, state, took = lab.python("manager", DELETE, how)
        print(f"an account with {OWNED} domains deleted, {how}: {submitted:.2f} s to submit ({statements} statements), "
              f"{state} after {took:.1f} s")  # fmt: skip


def main() -> None:
    domains, accounts = (int(word) for word in (sys.argv[1:] + ["1000", "50"][len(sys.argv) - 1 :]))
    lab = Lab("sites")
    lab.ops("up", "3")
    steps: list[Callable[[], None]] = [
        partial(weigh, lab, f"{accounts} accounts"), partial(fill, lab, domains, accounts), partial(check, lab),
        partial(wipe, lab), partial(weigh, lab, f"{accounts} accounts and {domains} domains"), partial(delete, lab),
    ]  # fmt: skip
    try:
        lab.wait(lab.is_quiet, 60)
        print("accounts applied:", lab.python("manager", MAKE.replace("ACCOUNTS", str(accounts))))
        suspension.make(lab)
        lab.wait(lab.is_quiet)
        lab.run("node1", "bash", "-c", f"head -c {BIG_BYTES} /dev/zero > /home/b000/home/web/big")
        for step in steps:
            try:
                step()
            except (AssertionError, subprocess.SubprocessError, ValueError, KeyError) as error:
                print(f"  could not be measured: {error!r}"[:2000])
    finally:
        lab.ops("down")


main()
