"""Two hundred accounts at once: one round's worth of reloads, one that cannot be made fails alone, retry mends it."""

from __future__ import annotations

import json
import secrets
import time

import pytest

from .conftest import CHECKOUT, Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

ACCOUNTS = 200
BAD = "m077"


def rounds(lab: Lab) -> dict[str, dict[str, int]]:
    """Rounds and signals of each machine so far."""
    return {machine: lab.rounds(machine) for machine in [*lab.nodes, "manager"]}


def test_two_hundred_at_once(lab: Lab) -> None:
    lab.run("manager", "onehost", "account", "create", BAD, "--domain", f"{BAD}.example.com", "--wait")
    lab.run("manager", "touch", f"/home/{BAD}/home/shop")
    before = rounds(lab)
    seconds, jobs = lab.python("manager", f"""
        onehost = Onehost(actor="test")
        names = [f"m{{n:03}}" for n in range({ACCOUNTS})]
        wishes = [onehost.wish("account", name, "create", {{"domain": f"{{name}}.example.com"}})
                  for name in names if name != "{BAD}"]
        wishes.append(onehost.wish("account", "{BAD}", "set", {{"document_root": "shop"}}))
        began = time.monotonic()
        receipts = onehost.submit(wishes)
        jobs = [onehost.wait(receipt, seconds=180) for receipt in receipts]
        ended = time.monotonic() - began
        print(json.dumps([ended, [[job["id"], job["name"], job["state"]] for job in jobs]]))
        """)  # fmt: skip
    after = rounds(lab)
    print(f"{ACCOUNTS} accounts on 3 nodes in {seconds:.1f} s")
    for machine, counts in after.items():
        new = {word: count - before[machine].get(word, 0) for word, count in counts.items()}
        print(f"  {machine}: {new}")
        assert all(count <= new["rounds"] for word, count in new.items()), "at most one signal a round"
    failed = [(job, name, state) for job, name, state in jobs if state != "applied"]
    assert [name for _, name, _ in failed] == [BAD], failed
    shown = lab.onehost("job", "show", str(failed[0][0]))
    reasons = [node["reason"] for node in shown["nodes"] if node["state"] == "failed"]
    print(f"  {BAD}: {shown['state']}: {reasons}")
    assert len(reasons) == 1 and f"/home/{BAD}/home/shop is a file" in reasons[0]
    lab.run("manager", "rm", f"/home/{BAD}/home/shop")
    retried = json.loads(lab.run("manager", "onehost", "-o", "json", "job", "retry", "--wait", str(failed[0][0])))
    assert retried["job"]["state"] == "applied", retried
    status = lab.run("client", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H",
                     f"Host: {BAD}.example.com", "http://10.77.0.12/")  # fmt: skip
    assert status == "200"


def test_a_planted_password_is_nowhere(lab: Lab) -> None:
    planted = f"planted-{secrets.token_hex(8)}"
    lab.run("manager", "onehost", "account", "create", "vera", "--domain", "vera.example.com", "--access", "shell",
            "--password", "--wait", stdin=planted + "\n")  # fmt: skip
    lab.run("manager", "onehost", "account", "passwd", "vera", "--password", "--wait", stdin=planted + "\n")
    lab.run("client", "sh", "-c", "umask 077; cat >/root/vera", stdin=planted)
    ssh = ["sshpass", "-f", "/root/vera", "ssh", "-o", "LogLevel=ERROR"]
    who = lab.run("client", *ssh, "vera@10.77.0.12", "id", "-un")
    assert who == "vera\n"
    for machine in [*lab.nodes, "manager"]:
        # By a file of patterns: the search must not find itself.
        lab.run(machine, "tee", "/root/pattern", stdin=planted)
        hits = lab.run(machine, "sh", "-c", "grep -rlaFf /root/pattern /etc/onehost /var/lib /var/log /run /tmp /home; "
                       "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | grep -aFf /root/pattern",
                       check=False)  # fmt: skip
        assert hits == "", (machine, hits)
    hashed = lab.run("node1", "sh", "-c", "grep ^vera: /var/lib/extrausers/shadow | cut -d: -f2").strip()
    where = lab.python("manager", f"""
        import sqlite3
        db = sqlite3.connect("file:/var/lib/onehost/store.db?mode=ro", uri=True)
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        hits = {{}}
        for table in tables:
            rows = [row for row in db.execute(f"SELECT * FROM {{table}}") if any({hashed!r}.encode() in
                    (value if isinstance(value, bytes) else str(value).encode()) for value in row)]
            if rows:
                hits[table] = len(rows)
        print(json.dumps(hits))
        """)  # fmt: skip
    assert where == {"revision": 1}, "the hash stands in the newest revision alone"
    for machine in [*lab.nodes, "manager"]:
        logs = lab.run(machine, "grep", "-rlaF", hashed, "/var/log", "/run", "/tmp", check=False)
        assert logs == "", machine


def test_no_request_is_lost_while_each_node_is_drained(lab: Lab) -> None:
    lab.run("manager", "onehost", "account", "create", "drain", "--domain", "drain.example.com", "--wait")
    for name, port, role, check in (("http", 80, "web", "http"), ("ssh", 22, "ssh", "ssh")):
        spec = {"address": "198.51.100.10", "port": port, "role": role, "check": check}
        document = json.dumps({"noun": "virtual_service", "name": name, "spec": spec})
        lab.run("manager", "onehost", "apply", "--wait", "-f", "-", stdin=document)
    page = "/home/drain/home/web/who.php"
    lab.run("manager", "sh", "-c", f"echo '<?php echo gethostname();' >{page}; chmod 644 {page}")
    time.sleep(6)  # a director that has just started may still move clients at a reload
    clients = [f"198.51.100.{n}" for n in range(20, 30)]
    spread = {node for client in clients if (node := ask(lab, client))}
    assert spread == set(lab.nodes), "ten clients are spread over three nodes"
    load = lab.start("client", "python3", str(CHECKOUT / "tests/lab/load.py"), "198.51.100.10", "80",
                     "drain.example.com", "/who.php", "100", "30", *clients)  # fmt: skip
    home = ask(lab, "198.51.100.50")
    moved = []
    for node in lab.nodes:
        before = ask(lab, "198.51.100.50")
        lab.run("manager", "onehost", "node", "drain", node, "--drain-seconds", "20", "--wait")
        after = ask(lab, "198.51.100.50")
        moved.append(before != after)
        assert after != node
        assert (before == node) == (before != after), "a client stays until its own node is drained"
        lab.run("manager", "onehost", "node", "uncordon", node, "--wait")
    said = json.loads(load.communicate(timeout=90)[0].splitlines()[-1])
    print(
        f"  {said['answered']} answered, {len(said['failed'])} failed, by node {said['answers']}; {home} moved {moved}"
    )
    assert said["failed"] == [] and said["answered"] == 3000
    for node in lab.nodes[:2]:
        lab.run("manager", "onehost", "node", "cordon", node, "--wait")
    refused = lab.run("manager", "sh", "-c", f"onehost node drain {lab.nodes[2]} --wait 2>&1; echo status $?")
    assert "last active" in refused and "status 3" in refused


def ask(lab: Lab, client: str) -> str:
    """Which node answers this client at the virtual address."""
    return lab.run("client", "curl", "-s", "-m", "5", "--interface", client, "-H", "Host: drain.example.com",
                   "http://198.51.100.10/who.php")  # fmt: skip
