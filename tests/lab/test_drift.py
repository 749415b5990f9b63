"""What another hand does to a node: found, named, told, put back only when asked; a broken daemon waits and heals."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest

from .conftest import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

ACCOUNTS = 200
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g mine"
FOO = "/etc/apache2/conf-enabled/foo.conf"
#: Twenty edits of more than ten kinds on node1: by what is run there, the path that must be named, and its words.
EDITS = {
    "site changed": ('echo "# x" >>$(live d001)', "d001.", "is changed"),
    "site removed": ("rm $(live d002)", "d002.", "is missing"),
    "site added": ('cp $(live d003) "$(dirname $(live d003))/evil.9999.conf"', "evil.9999.conf", "not onehost's"),
    "site open to writing": ("chmod 0666 $(live d004)", "d004.", "mode 0666"),
    "site given away": ("chown www-data $(live d005)", "d005.", "belongs to 33:0"),
    "site a link": ("ln -sf /etc/hostname $(live d006)", "d006.", "is a link"),
    "row removed": ("sed -i '/^d007:/d' $users/passwd", "extrausers/passwd", "no row of d007"),
    "row changed": ("sed -i 's#^\\(d008:.*\\):[^:]*$#\\1:/bin/zsh#' $users/passwd", "extrausers/passwd", "row of d008"),
    "row added": ("echo 'root2:x:0:0:onehost 9999:/root:/bin/sh' >>$users/passwd", "extrausers/passwd", "root2"),
    "password changed": ("sed -i 's/^d009:[^:]*/d009:x/' $users/shadow", "extrausers/shadow", "row of d009"),
    "group left": ("sed -i '/^oh-shell/s/d010,//' $users/group", "extrausers/group", "row of oh-shell"),
    "users file open to all": ("chmod 0644 $users/shadow", "extrausers/shadow", "mode 0644"),
    "key added": ("sed -i '$a ssh-ed25519 AAAA evil' /etc/onehost/ssh/keys/d011", "keys/d011", "is changed"),
    "key file of nobody": ("cp /etc/onehost/ssh/keys/d011 /etc/onehost/ssh/keys/root", "keys/root", "not onehost's"),
    "pool changed": ('echo "php_admin_value[open_basedir] =" >>$(pool d012)', "d012.", "is changed"),
    "pool removed": ("rm $(pool d013)", "d013.", "is missing"),
    "suspension lifted": ("rm /etc/onehost/apache/suspended/$(id d014)", "", "no -> yes"),
    "daemon stopped": ("systemctl stop ssh", "", "does not run"),
    "Apache's settings": ("echo 'TraceEnable On' >>$apache/conf-enabled/zz-onehost.conf", "zz-onehost", "is changed"),
    "sshd's settings": ("echo 'MaxSessions 3' >>$sshd/onehost.conf", "sshd_config.d/onehost.conf", "is changed"),
    "guard removed": ("rm /etc/onehost/apache/guard.lua", "guard.lua", "is missing"),
    "module allowed": ("ln -s ../mods-available/userdir.load $apache/mods-enabled/", "userdir.load", "not allowed"),
}  # fmt: skip
SHELL = """set -e
users=/var/lib/extrausers apache=/etc/apache2 sshd=/etc/ssh/sshd_config.d
live() { echo $(readlink -f /etc/onehost/apache/live)/$1.*.conf; }
pool() { echo $(readlink -f /etc/onehost/php/shard0/live)/$1.*.conf; }
id() { basename $(live $1) | cut -d. -f2; }
"""


def check(lab: Lab, *words: str) -> tuple[int, Any]:
    """Exit code and answer of `node check`."""
    script = 'onehost -o json node check "$@"; echo "exit $?"'
    said = lab.run("manager", "bash", "-c", script, "-", *words).rstrip().rpartition("\n")
    return int(said[2].split()[1]), json.loads(said[0]) if said[0] else None


def findings(lab: Lab, node: str) -> list[dict[str, str]]:
    code, said = check(lab, node)
    assert said[node]["reason"] == "", said
    assert code == (1 if said[node]["told"]["count"] else 0)
    found: list[dict[str, str]] = said[node]["told"]["findings"]
    return found


def events(lab: Lab, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.onehost("audit", "list", "--kind", kind)
    return found


@pytest.fixture(scope="module")
def accounts(lab: Lab) -> None:
    made = lab.python("manager", f"""
        onehost = Onehost(actor="test")
        wishes = [onehost.wish("account", f"d{{n:03}}", "create", {{"domain": f"d{{n:03}}.example", "access": "shell",
                  "ssh_keys": ["{KEY}"], "suspended": n == 14}}) for n in range({ACCOUNTS})]
        states = [onehost.wait(receipt, seconds=240)["state"] for receipt in onehost.submit(wishes)]
        print(json.dumps(sorted(set(states))))
        """)  # fmt: skip
    assert made == ["applied"]
    lab.wait(lab.is_quiet)


def test_twenty_edits_of_another_hand_are_found_and_put_back(lab: Lab, accounts: None) -> None:
    began = time.monotonic()
    code, said = check(lab, "node1")
    assert (code, said["node1"]["told"]["findings"]) == (0, [])
    print(f"node check of {ACCOUNTS} accounts, nothing differs: {said['node1']['told']['seconds']:.2f} s on the node, "
          f"{time.monotonic() - began:.2f} s with the command")  # fmt: skip
    assert findings(lab, "manager") == []
    for edit, (script, _, _) in EDITS.items():
        done = lab.run("node1", "bash", "-c", f"{SHELL}\n{script} || {{ echo failed; exit 9; }}")
        assert "failed" not in done, edit
    lab.run("manager", "mv", "/home/d020", "/root/d020")
    began = time.monotonic()
    found = findings(lab, "node1")
    print(f"node check with {len(EDITS)} edits: {time.monotonic() - began:.2f} s")
    for each in found:
        print(f"  {each['path'] or each['resource'] or each['daemon']}: {each['what']}")
    missed = [edit for edit, (_, path, words) in EDITS.items()
              if not any(path in each["path"] and words in each["what"] for each in found)]  # fmt: skip
    assert missed == []
    assert any("+# x" in each["diff"] for each in found) and "$6$" not in str(found)
    assert "home: made" in str(findings(lab, "manager"))
    # Looking has changed nothing.
    assert len(findings(lab, "node1")) == len(found)

    lab.run("manager", "mv", "/root/d020", "/home/d020")
    code, said = check(lab, "node1", "--repair", "--reason", "twenty edits")
    assert code == 0, said
    assert findings(lab, "node1") == [] == findings(lab, "manager")
    told = said["jobs"]["node1"]["nodes"][0]["difference"]
    site = next(path for path in told if "/d001." in path)
    assert "# x" in lab.run("node1", "tail", "-n", "1", told["kept in"] + site)
    status = lab.run("client", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: d002.example",
                     "http://10.77.0.11/")  # fmt: skip
    assert status == "200"


def test_drift_is_marked_without_anybody_asking(lab: Lab, accounts: None) -> None:
    settings = "/etc/onehost/worker.toml"
    lab.run("node2", "sed", "-i", "1i check_seconds = 3.0", settings)
    lab.supervisor("node2", "restart", "all")
    lab.wait(lab.is_quiet)
    lab.run("node2", "bash", "-c", f"{SHELL}\necho '# x' >>$(live d030)")
    began = time.monotonic()
    lab.wait(lambda: "drift node2" in causes(lab), 30)
    print(f"a look each 3 s: drift shows in status after {time.monotonic() - began:.1f} s")
    assert "d030" in lab.run("manager", "onehost", "node", "show", "node2")
    assert [event["outcome"] for event in events(lab, "node.drift") if event["node"] == "node2"][:1] == ["found"]
    lab.run("node2", "bash", "-c", f"{SHELL}\nsed -i '$d' $(live d030)")
    lab.wait(lambda: "drift node2" not in causes(lab), 30)
    assert [event["outcome"] for event in events(lab, "node.drift") if event["node"] == "node2"][:2] == [
        "cleared", "found"]  # fmt: skip


def causes(lab: Lab) -> list[str]:
    return [f"{each['kind']} {each['about']}" for each in lab.onehost("status")["reasons"]]


def test_a_configuration_broken_by_hand_blocks_blames_nobody_and_heals(lab: Lab, accounts: None) -> None:
    load = lab.start("client", sys.executable, "tests/lab/load.py", "10.77.0.11", "80", "d040.example", "/", "50", "25")
    try:
        broken(lab)
    finally:
        lab.run("node1", "rm", "-f", FOO)
        done = load.communicate(timeout=60)[0]
    answers = json.loads(done.splitlines()[-1])
    print(f"50 requests a second meanwhile: {answers['answered']} answered, {len(answers['failed'])} failed")
    assert answers["failed"] == [] and answers["answered"] == 1250


def broken(lab: Lab) -> None:
    time.sleep(1)
    lab.run("node1", "bash", "-c", f"printf '\\nNonsense on\\n' >{FOO}")
    began = time.monotonic()
    lab.wait(lambda: "blocked apache node1" in causes(lab), 30)
    print(f"blocked shows after {time.monotonic() - began:.1f} s")
    said = lab.run("manager", "onehost", "status", check=False)
    assert f"apache on node1 is blocked: apache2: {FOO}:2: Invalid command 'Nonsense'" in said
    assert f"{FOO}:2" in lab.run("manager", "onehost", "node", "show", "node1")
    job = lab.python("manager", """
        onehost = Onehost(actor="test")
        receipt = onehost.submit([onehost.wish("account", "late", "create", {"domain": "late.example"})])[0]
        time.sleep(5)
        print(json.dumps(onehost.job(receipt.job_id), default=str))
        """)  # fmt: skip
    states = {node["node"]: node["state"] for node in job["nodes"]}
    assert states["node1"] == "sent" and states["node2"] == "applied", states
    assert lab.onehost("status")["placements_failed"] == 0
    # A suspension needs no reload, so nothing holds it up.
    lab.run("manager", "onehost", "account", "suspend", "d041", "--wait")
    # A person who orders a restart now would take everything down: it is refused with the daemon's words.
    refused = lab.run("manager", "onehost", "daemon", "restart", "node1", "apache", "--wait", check=False)
    assert "Nonsense" in refused
    lab.run("node1", "rm", FOO)
    began = time.monotonic()
    lab.wait(lambda: "blocked apache node1" not in causes(lab), 30)
    print(f"healed shows after {time.monotonic() - began:.1f} s")
    lab.wait(lab.is_quiet, 30)


def test_daemons_are_ordered_about_by_jobs(lab: Lab, accounts: None) -> None:
    def daemon(*words: str, check: bool = True) -> str:
        return lab.run("manager", "onehost", "daemon", *words, check=check)

    print(daemon("list", "node1"))
    for name in ("apache", "php", "ssh"):
        assert "running" in daemon("status", "node1", name)
        daemon("test", "node1", name)
        daemon("restart", "node1", name, "--wait")
        daemon("reload", "node1", name, "--wait")
        assert "running" in daemon("status", "node1", name)
        daemon("log", "node1", name, "-n", "5", check=name != "ssh")
    daemon("stop", "node1", "cron", "--wait")
    daemon("start", "node1", "cron", "--wait")
    daemon("stop", "node1", "apache", "--wait")
    lab.wait(lambda: "stopped apache node1" in causes(lab), 20)
    assert "down apache node1" not in causes(lab)
    # Neither a change nor a new worker starts it again.
    lab.run("manager", "onehost", "account", "set", "d050", "--domain", "d050b.example", "--wait")
    lab.supervisor("node1", "restart", "all")
    lab.wait(lab.is_quiet)
    time.sleep(6)
    assert "stopped" in daemon("status", "node1", "apache", check=False)
    daemon("start", "node1", "apache", "--wait")
    status = lab.run("client", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: d050b.example",
                     "http://10.77.0.11/")  # fmt: skip
    assert status == "200"
    lab.wait(lambda: "stopped apache node1" not in causes(lab), 20)
    kinds = [event["kind"] for event in events(lab, "daemon.*")]
    assert {"daemon.restart", "daemon.stop", "daemon.start", "daemon.reload"} <= set(kinds)


def test_what_another_hand_did_is_taken_over_on_every_node(lab: Lab, accounts: None) -> None:
    keys = "/etc/onehost/ssh/keys/d060"
    lab.run("node3", "bash", "-c", f"echo '{OTHER}' >>{keys}")
    said = lab.run("manager", "onehost", "node", "check", "node3", "--adopt")
    assert "account d060: ssh_keys:" in said and "mine" in said
    lab.wait(lab.is_quiet)
    lab.wait(lambda: OTHER.split()[1] in lab.run("node1", "cat", keys), 20)
    assert findings(lab, "node3") == []


def test_a_change_says_what_another_hand_had_done(lab: Lab, accounts: None) -> None:
    lab.run("node3", "bash", "-c", f"{SHELL}\necho '# by a person' >>$(live d070)")
    lab.run("manager", "onehost", "account", "set", "d070", "--domain", "d070b.example", "--wait")
    event = next(each for each in events(lab, "acknowledgement") if each["node"] == "node3" and each["name"] == "d070")
    words = event["detail"]["difference"]["by hand"]
    assert "is changed; what was there is kept in /var/lib/onehost/kept/" in words
    assert "# by a person" in lab.run(
        "node3", "bash", "-c", f"cat {words.rpartition(' ')[2]}/etc/onehost/apache/trees/*/d070*"
    )
