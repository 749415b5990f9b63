"""Bad changes among a hundred good ones: the good ones land, each bad one fails alone and says why."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import CHECKOUT, Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

ACCOUNTS, GOOD = 20, 100
TYPO = "typo.example.net"
HOSTILE, DISGUISED = (f'{name}.example.net">\nInclude /etc/shadow\n<Location "/' for name in ("hostile", "disguised"))
#: Homes with room for nothing more: by account what tmpfs is given, and how the last of its room is used up.
FULL = {
    "fullbytes": ("size=16k", "cat /dev/zero >$home/much"),
    "fullfiles": ("nr_inodes=20", "for n in $(seq 20); do touch $home/$n; done"),
}
#: The edge believes everything; what the nodes do with it is asked.
BLIND = """
from onehost.models import names
from onehost.models.nouns.domain import DomainNoun
DomainNoun.check_name = lambda self, name: name
names.parents = lambda domain: []
"""
SUBMIT = """
onehost = Onehost(actor="test")
documents = json.load(open("/root/mix.json"))
wishes = [onehost.wish(each["noun"], each["name"], "apply", each["spec"]) for each in documents]
began = time.monotonic()
jobs = [onehost.wait(receipt, seconds=120) for receipt in onehost.submit(wishes)]
ended = time.monotonic() - began
kept = [[job["name"], job["state"], [[node["node"], node["state"], node["reason"]] for node in job["nodes"]]]
        for job in jobs]
print(json.dumps([ended, kept]))
"""


def site(name: str, account: str, **more: Any) -> dict[str, Any]:
    return {"noun": "domain", "name": name, "spec": {"account": account, "php": False, **more}}


def mix() -> list[dict[str, Any]]:
    """Bad ones stand first, in the middle and last."""
    good = [site(f"good{n:03}.example.net", f"mix{n % ACCOUNTS:02}") for n in range(GOOD)]
    typo = site(TYPO, "mix01", override=["Header always set X-Fine yes", "Hedaer set X-Typo yes"])
    full = [site(f"{account}.example.net", account) for account in FULL]
    hostile = [site(HOSTILE, "mix02"), site(DISGUISED, "mix03", document_root="plain")]
    return [typo, *good[:30], *hostile, *good[30:60], full[0], *good[60:], full[1]]


@pytest.fixture(scope="module")
def accounts(lab: Lab) -> None:
    names = [f"mix{n:02}" for n in range(ACCOUNTS)] + list(FULL)
    made = lab.python("manager", f"""
        onehost = Onehost(actor="test")
        wishes = [onehost.wish("account", name, "create", {{"domain": f"{{name}}.example.com"}}) for name in {names}]
        print(json.dumps(sorted({{onehost.wait(receipt)["state"] for receipt in onehost.submit(wishes)}})))
        """)  # fmt: skip
    assert made == ["applied"]
    for name, (room, use_up) in FULL.items():
        said = lab.run("manager", "bash", "-c", f"""home=/home/{name}/home
            mount -t tmpfs -o {room},uid=$(stat -c %u $home),gid=$(stat -c %g $home),mode=710 full $home
            ({use_up}) 2>&1; true""")  # fmt: skip
        assert "No space left on device" in said
    lab.wait(lab.is_quiet)


def served(lab: Lab, names: list[str]) -> dict[str, set[str]]:
    """By node the names that it serves, asked from the client."""
    script = "for name; do echo $name $(curl -s -o /dev/null -w '%{http_code}' -H \"Host: $name\" http://$0/); done"
    found = {}
    for number, node in enumerate(lab.nodes, 1):
        lines = lab.run("client", "bash", "-c", script, f"10.77.0.1{number}", *names).splitlines()
        found[node] = {line.split()[0] for line in lines if line.endswith(" 200")}
    return found


def test_a_hostile_name_is_refused_before_anything_is_changed(lab: Lab, accounts: None) -> None:
    usual = [each for each in mix() if each["name"] not in (HOSTILE, DISGUISED)]
    for name in (HOSTILE, "../../etc/passwd", "$(reboot).example.net", "a b.example.net", "\u202eten.elpmaxe"):
        documents = [*usual[:50], site(name, "mix02"), *usual[50:]]
        said = lab.run("manager", "bash", "-c", "cat >/root/refused.json; onehost apply -f /root/refused.json 2>&1; "
                       "echo status $?", stdin=json.dumps(documents))  # fmt: skip
        print(said.strip())
        assert said.endswith("status 2\n") and "domain" in said and "is not valid" in said
    assert lab.onehost("domain", "list") == []


def test_bad_ones_fail_alone(lab: Lab, accounts: None) -> None:
    lab.run("manager", "sh", "-c", "cat >/root/mix.json", stdin=json.dumps(mix()))
    load = lab.start("client", "python3", str(CHECKOUT / "tests/lab/load.py"), "10.77.0.11", "80", "mix00.example.com",
                     "/", "50", "20")  # fmt: skip
    seconds, jobs = lab.python("manager", BLIND + SUBMIT)
    asked = json.loads(load.communicate(timeout=60)[0])
    landed = [name for name, state, _ in jobs if state == "applied"]
    print(f"{GOOD} good and {len(jobs) - GOOD} bad changes in {seconds:.1f} s: {len(landed)} applied; 50 requests a "
          f"second meanwhile: {asked['answered']} answered, {len(asked['failed'])} failed")  # fmt: skip
    failed = {name: {node: reason for node, state, reason in nodes if state == "failed"}
              for name, state, nodes in jobs if state != "applied"}  # fmt: skip
    for name, nodes in failed.items():
        print(f"  {name!r}:")
        for node, reason in nodes.items():
            print(f"    {node}: {reason}")
    assert sorted(landed) == [f"good{n:03}.example.net" for n in range(GOOD)]
    assert set(failed) == {TYPO, HOSTILE, DISGUISED, *(f"{account}.example.net" for account in FULL)}
    assert set(failed[TYPO]) == set(lab.nodes)
    assert all(".override:2: Invalid command 'Hedaer'" in reason for reason in failed[TYPO].values())
    assert [*failed[HOSTILE]] == ["manager"] and "must be a path below the home" in failed[HOSTILE]["manager"]
    assert set(failed[DISGUISED]) == set(lab.nodes)
    assert all(reason.endswith("cannot stand in a configuration") for reason in failed[DISGUISED].values())
    for account in FULL:
        reason = failed[f"{account}.example.net"]["manager"]
        assert reason == f"/home/{account}/home/{account}.example.net cannot be made: No space left on device"
    assert asked["failed"] == []
    names = [each["name"] for each in mix() if each["name"] not in (HOSTILE, DISGUISED)]
    assert served(lab, names) == {node: set(landed) for node in lab.nodes}
    for node in lab.nodes:
        assert lab.run(node, "bash", "-c", "grep -rlc shadow /etc/onehost || true") == ""


def test_each_is_mended_for_itself(lab: Lab, accounts: None) -> None:
    for account in FULL:
        lab.run("manager", "bash", "-c", f"umount /home/{account}/home")
        job = lab.onehost("job", "list", "--resource", f"domain/{account}.example.net")[0]["id"]
        retried = lab.onehost("job", "retry", "--wait", str(job))
        assert retried["job"]["state"] == "applied", retried
    lab.run("manager", "bash", "-c", "echo 'Header always set X-Fine yes' >/root/override; "
            f"onehost domain set {TYPO} --override /root/override --wait")  # fmt: skip
    mended = {TYPO, *(f"{account}.example.net" for account in FULL)}
    assert served(lab, sorted(mended)) == dict.fromkeys(lab.nodes, mended)
