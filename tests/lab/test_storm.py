"""Processes are killed at random while accounts are made, changed, suspended, deleted and made again.

Afterwards, with nobody's help, every node equals the store, every job is final, every change happened once.
"""

from __future__ import annotations

import os
import random
import textwrap
import time
from typing import Any

import pytest

from .conftest import PREAMBLE, Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

ACCOUNTS = 100
ROUNDS = 20
SEED = int(os.environ.get("ONEHOST_SEED", time.time()))

WISHES = """
    import random
    seed, accounts = int(sys.argv[1]), int(sys.argv[2])
    dice = random.Random(seed)
    onehost = Onehost(actor="storm")
    plan = []
    for number in range(accounts):
        name = f"s{number:03}"
        steps = ["create", "set", "suspend", "unsuspend", "delete", "create"][: dice.randint(1, 6)]
        plan += [(dice.random() + at, name, step) for at, step in enumerate(steps)]
    for _, name, step in sorted(plan):
        if step == "create":
            onehost.account_create(name, domain=f"{name}.example.com", password="storm-password", access="sftp")
        elif step == "set":
            onehost.account_set(name, document_root=f"web{dice.randint(1, 9)}")
        else:
            getattr(onehost, f"account_{step}")(name)
        time.sleep(dice.random() * 0.15)
    print(json.dumps(len(plan)))
"""


def kill(lab: Lab, dice: random.Random) -> str:
    victim = dice.choice(["worker", "relay", "audit", "broker"])
    if victim == "worker":
        machine = dice.choice([*lab.nodes, "manager"])
        lab.run(machine, "pkill", "-9", "-f", "onehost.workers", check=False)
        return f"worker of {machine}"
    if victim == "broker":
        lab.run("manager", "pkill", "-9", "beam", check=False)
        lab.run("manager", "systemctl", "start", "rabbitmq-server")  # as a machine's init would
        return "broker"
    lab.run("manager", "pkill", "-9", "-f", f"onehost.producer {victim}", check=False)
    return victim


def test_everything_converges_after_a_storm_of_kills(lab: Lab) -> None:
    print(f"seed {SEED}")
    dice = random.Random(SEED)

    from .conftest import CHECKOUT

    (CHECKOUT / ".lab").mkdir(exist_ok=True)
    script = PREAMBLE + textwrap.dedent(WISHES)
    lab.run("manager", "tee", "/root/wishes.py", stdin=script)
    wishes = lab.start("manager", ".venv/bin/python", "/root/wishes.py", str(SEED), str(ACCOUNTS))
    killed: dict[str, int] = {}
    for _ in range(ROUNDS):
        time.sleep(dice.uniform(0.1, 1.5))
        who = kill(lab, dice)
        killed[who] = killed.get(who, 0) + 1
    said, _ = wishes.communicate(timeout=300)
    assert wishes.returncode == 0, said
    lab.wait(lab.is_quiet, 120, f"not converged after {killed}")
    check_equal(lab)
    check_once(lab)
    check_nothing_inherited(lab)
    print(f"killed {killed}; {said.splitlines()[-1]} wishes")


def wanted(lab: Lab) -> dict[str, Any]:
    return {account["name"]: account for account in lab.onehost("account", "list")}


def check_equal(lab: Lab) -> None:
    store = wanted(lab)
    ids = {name: account["id"] for name, account in store.items()}
    for node in lab.nodes:
        has = lab.holds(node)
        assert has["users"] == ids, node
        assert has["sites"] == ids, node
        assert has["pools"] == ids, node
    jobs = lab.python("manager", """
        from collections import Counter
        onehost = Onehost(actor="test")
        print(json.dumps(Counter(job["state"] for job in onehost.jobs(limit=5000))))
        """)  # fmt: skip
    assert set(jobs) <= {"applied", "superseded", "partial"}, jobs
    verdict = lab.run("manager", "onehost", "audit", "verify")
    assert "audit chain ok" in verdict
    for node, address in (("node1", "10.77.0.11"), ("node2", "10.77.0.12"), ("node3", "10.77.0.13")):
        for name in list(store)[:10]:
            status = lab.run("client", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H",
                             f"Host: {name}.example.com", f"http://{address}/", check=False)  # fmt: skip
            assert status == ("503" if store[name]["spec"]["suspended"] else "200"), (node, name, status)


def check_once(lab: Lab) -> None:
    """No generation shows a second difference on a node."""
    twice = lab.python("manager", """
        from collections import Counter
        onehost = Onehost(actor="test")
        seen = Counter(
            (event["node"], event["resource_id"], event["detail"]["generation"])
            for event in onehost.events(EventFilter(kind="acknowledgement"), None)
            if event["outcome"] == "applied" and event["detail"]["difference"]
        )
        print(json.dumps([list(key) for key, count in seen.items() if count > 1]))
        """)  # fmt: skip
    assert twice == []


def check_nothing_inherited(lab: Lab) -> None:
    """Every home belongs to the uid of the account that has the name now, and holds nothing of another."""
    uids = {name: account["spec"]["uid"] for name, account in wanted(lab).items()}
    homes = lab.python("manager", """
        import pathlib
        found = {}
        for home in pathlib.Path("/home").iterdir():
            if not home.name.startswith("."):
                found[home.name] = sorted({path.lstat().st_uid for path in home.rglob("*")} - {0})
        print(json.dumps(found))
        """)  # fmt: skip
    assert {name: [uid] for name, uid in uids.items()} == homes
    assert len(set(uids.values())) == len(uids)
