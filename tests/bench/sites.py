"""Many domains at once, on a lab of three nodes that it makes and removes.

    .venv/bin/python tests/bench/sites.py [DOMAINS] [ACCOUNTS]        1000 and 50 unless said

One `apply -f` adds all domains, while an existing site is asked 50 times a second and 200 slow downloads go on. Then an
account is suspended under the same load, a node is wiped and comes back by itself, and the idle nodes are weighed.
Prints what was measured; asserts nothing about time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from onehost.tests.lab.conftest import CHECKOUT, Lab

SLOW, RATE = 200, 50
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
#: Signals that Apache took, and masters of PHP that were handed over, so far.
RELOADS = """
echo apache $(cat /var/log/apache2/error.log* | grep -c 'Doing graceful restart')
echo sshd $(grep -c 'Received SIGHUP' /var/log/auth.log 2>/dev/null)
echo proftpd $(grep -c 'received SIGHUP' /var/log/proftpd/proftpd.log 2>/dev/null)
"""
WEIGHT = """
import pathlib
found = {}
for each in pathlib.Path("/proc").iterdir():
    if each.name.isdigit():
        try:
            comm = (each / "comm").read_text().strip()
            pss = next(int(line.split()[1]) for line in (each / "smaps_rollup").open() if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
        count, total = found.get(comm, (0, 0))
        found[comm] = (count + 1, total + pss)
print(json.dumps(found))
"""
#: What reconcilers have written. Numbers of trees and generations are each node's own.
TREE = "cd /etc/onehost && find -L . -type f -path '*/live/*' -not -name '000-*' | sort"


def reloads(lab: Lab, node: str) -> dict[str, int]:
    said = (line.split() for line in lab.run(node, "bash", "-c", RELOADS).splitlines())
    return {words[0]: int(words[1]) for words in said if len(words) == 2}


def fill(lab: Lab, domains: int, accounts: int) -> None:
    """The domains, by one file."""
    documents = [
        {"noun": "domain", "name": f"d{n:04}.example.net", "spec": {"account": f"b{n % accounts:03}"}}
        for n in range(domains)
    ]
    before = {node: reloads(lab, node) for node in lab.nodes}
    probe = lab.start("client", "python3", str(CHECKOUT / "tests/lab/load.py"), ADDRESS, "80", "b001.example.com", "/",
                      str(RATE), "60")  # fmt: skip
    slow = lab.start("client", "bash", "-c", DOWNLOADS)
    time.sleep(5)
    began = time.monotonic()
    said = lab.run("manager", "bash", "-c", "cat > /root/sites.json; onehost apply -f /root/sites.json --wait "
                   "--timeout 300 > /root/said; tail -n 1 /root/said", stdin=json.dumps(documents))  # fmt: skip
    took = time.monotonic() - began
    print(
        f"{domains} domains of {accounts} accounts on {len(lab.nodes)} nodes by one apply -f: {took:.1f} s; "
        f"at last: {said.strip()}"
    )
    for node in lab.nodes:
        now = reloads(lab, node)
        print(f"  {node}: " + ", ".join(f"{name} {now[name] - before[node].get(name, 0)} reloads" for name in now))
    asked = json.loads(probe.communicate(timeout=200)[0])
    print(f"  {RATE} requests a second meanwhile: {asked['answered']} answered, {len(asked['failed'])} failed"
          f" {asked['failed'][:3]}")  # fmt: skip
    downloads = slow.communicate(timeout=900)[0].splitlines()
    whole = sum(line == f"200 {BIG_BYTES}" for line in downloads)
    print(f"  {SLOW} slow downloads: {whole} whole, {len(downloads) - whole} not")


BIG_BYTES = 1_600_000


def suspend(lab: Lab) -> None:
    """The last page of an account after its suspension was submitted, asked on all nodes, while others are asked."""
    script = """
import json, socket, sys, time
until, last = time.time() + 8, {}
while time.time() < until:
    for address in sys.argv[1:]:
        with socket.create_connection((address, 80), timeout=5) as client:
            client.sendall(b"GET / HTTP/1.1\\r\\nHost: d0002.example.net\\r\\nConnection: close\\r\\n\\r\\n")
            if client.recv(20).startswith(b"HTTP/1.1 200"):
                last[address] = time.time()
print(json.dumps(last))
"""
    others = lab.start("client", "python3", str(CHECKOUT / "tests/lab/load.py"), ADDRESS, "80", "b001.example.com", "/",
                       str(RATE), "8")  # fmt: skip
    asking = lab.start("client", "python3", "-c", script, *(f"10.77.0.1{n}" for n in (1, 2, 3)))
    time.sleep(2)
    submitted = lab.python("manager", """
        onehost = Onehost(actor="bench")
        at = time.time()
        onehost.account_suspend("b002", reason="bench")
        print(at)
        """)  # fmt: skip
    last: dict[str, float] = json.loads(asking.communicate(timeout=60)[0])
    others.communicate(timeout=60)
    print("last page after a suspension was asked for: "
          + ", ".join(f"{address} {at - submitted:.2f} s" for address, at in last.items()))  # fmt: skip
    lab.onehost("account", "unsuspend", "b002", "--wait")


def wipe(lab: Lab) -> None:
    """A node without any of its files, until it is equal to its peers."""
    hashed = f"{TREE} | xargs sha256sum; sha256sum /var/lib/extrausers/* /etc/onehost/ftp/users"

    def files(node: str) -> set[str]:
        return set(lab.run(node, "bash", "-c", hashed, check=False).splitlines())

    wanted = files("node3")
    lab.ops("kill", "node2")
    began = time.monotonic()
    lab.ops("boot", "node2", "--wipe")
    try:
        lab.wait(lambda: files("node2") == wanted, 300)
    except AssertionError:
        print("  not equal: ", sorted(files("node2") ^ wanted)[:6])
    took = time.monotonic() - began
    print(f"a wiped node: its {len(wanted)} files are those of its peer {took:.1f} s after its boot began")


def weigh(lab: Lab) -> None:
    found: dict[str, Any] = lab.python("node3", WEIGHT)
    total = sum(pss for _, pss in found.values())
    print(f"an idle node: {sum(count for count, _ in found.values())} processes, {total / 1024:.0f} MiB (PSS)")
    for comm, (count, pss) in sorted(found.items(), key=lambda each: -each[1][1])[:8]:
        print(f"  {comm} {count}, {pss / 1024:.1f} MiB")


def main() -> None:
    domains, accounts = (int(word) for word in (sys.argv[1:] + ["1000", "50"][len(sys.argv) - 1 :]))
    lab = Lab("sites")
    lab.ops("up", "3")
    try:
        lab.wait(lab.is_quiet, 60)
        print("accounts applied:", lab.python("manager", MAKE.replace("ACCOUNTS", str(accounts))))
        lab.wait(lab.is_quiet)
        lab.run("node1", "bash", "-c", f"head -c {BIG_BYTES} /dev/zero > /home/b000/home/web/big")
        for step in (lambda: fill(lab, domains, accounts), lambda: suspend(lab), lambda: wipe(lab), lambda: weigh(lab)):
            try:
                step()
            except (AssertionError, subprocess.SubprocessError, ValueError) as error:
                print(f"  could not be measured: {error}"[:2000])
    finally:
        lab.ops("down")


main()
