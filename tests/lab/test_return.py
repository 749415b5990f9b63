"""A node that was away, a lost ledger, a wiped node, a wiped broker: each is back with nobody's help."""

from __future__ import annotations

import json
import time

import pytest

from .conftest import CHECKOUT, Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SITES = 50


@pytest.fixture(scope="module")
def sites(lab: Lab) -> list[str]:
    """Fifty accounts, applied everywhere."""
    lab.python("manager", f"""
        onehost = Onehost(actor="test")
        names = [f"r{{n:02}}" for n in range({SITES})]
        wishes = [onehost.wish("account", name, "create", {{"domain": f"{{name}}.example.com"}}) for name in names]
        receipts = onehost.submit(wishes)
        print(json.dumps([onehost.wait(receipt, seconds=120)["state"] for receipt in receipts].count("applied")))
        """)  # fmt: skip
    lab.wait(lab.is_quiet)
    return [f"r{n:02}" for n in range(SITES)]


def equal(lab: Lab, node: str) -> bool:
    ids = {account["name"]: account["id"] for account in lab.onehost("account", "list")}
    has = lab.holds(node)
    return has["users"] == ids and has["sites"] == ids and has["pools"] == ids


def test_a_returning_node_serves_nothing_that_was_removed_or_suspended(lab: Lab, sites: list[str]) -> None:
    lab.ops("reboot", "node2", "--bare")  # every process of it is gone
    lab.python("manager", """
        onehost = Onehost(actor="test")
        for n in range(50):
            onehost.account_set("r00", document_root=f"web{n}")
        onehost.account_suspend("r01")
        onehost.account_delete("r02")
        print(0)
        """)  # fmt: skip
    time.sleep(1)
    before = {node: applies(lab, node) for node in lab.nodes}
    probe = lab.start("client", "python3", str(CHECKOUT / "tests/lab/first_answers.py"), "10.77.0.12", "20",
                      "r01.example.com", "r02.example.com", "r03.example.com")  # fmt: skip
    began = time.monotonic()
    lab.ops("reboot", "node2")
    lab.wait(lab.is_quiet)
    print(f"caught up {time.monotonic() - began:.1f} s after its boot began")
    answers = json.loads(probe.communicate(timeout=60)[0].splitlines()[-1])
    print(answers)
    assert answers["r03.example.com"][0] == "200", "it serves what is wanted"
    assert set(answers["r01.example.com"]) == {"503"}, "suspended from its first answer on"
    assert not {"200", "503"} & set(answers["r02.example.com"]), "removed from its first answer on"
    assert applies(lab, "node2") - before["node2"] == 3, "one apply each, however many changes"
    assert equal(lab, "node2")


def applies(lab: Lab, node: str) -> int:
    """Acknowledgements of a node that changed something."""
    return int(lab.python("manager", f"""
        onehost = Onehost(actor="test")
        events = onehost.events(EventFilter(kind="acknowledgement", node="{node}"), None)
        print(sum(bool(event["detail"]["difference"]) and event["outcome"] == "applied" for event in events))
        """))  # fmt: skip


def test_a_lost_ledger_empties_no_live_node(lab: Lab, sites: list[str]) -> None:
    serving = [name for name in sites if name not in ("r01", "r02")]  # the test above suspends one and deletes one
    hosts = ",".join(f"{name}.example.com" for name in serving)
    probe = lab.start(
        "client", "python3", str(CHECKOUT / "tests/lab/load.py"), "10.77.0.13", "80", hosts, "/", "50", "8"
    )
    lab.supervisor("node3", "stop", "worker")
    lab.run("node3", "sh", "-c", "rm -f /var/lib/onehost/ledger.db*")
    lab.supervisor("node3", "start", "worker")
    time.sleep(1)
    lab.wait(lab.is_quiet)
    said = json.loads(probe.communicate(timeout=60)[0].splitlines()[-1])
    assert said["failed"] == [] and said["answered"] == 400, said
    assert equal(lab, "node3")


def test_a_wiped_node_is_filled_again(lab: Lab, sites: list[str]) -> None:
    lab.supervisor("node1", "stop", "worker")
    lab.run("node1", "sh", "-c", "rm -rf /var/lib/onehost/ledger.db* /etc/onehost/apache /etc/onehost/php "
            "/etc/onehost/ssh /var/lib/extrausers/*")  # fmt: skip
    lab.supervisor("node1", "start", "worker")
    time.sleep(1)
    lab.wait(lab.is_quiet)
    lab.wait(lambda: equal(lab, "node1"), 60, "node1 differs from the store")


def test_a_wiped_broker_under_load(lab: Lab, sites: list[str]) -> None:
    wishes = lab.start("manager", ".venv/bin/python", "-c", (
        "import time\nfrom onehost.producer import Onehost\no = Onehost(actor='test')\n"
        "for n in range(40):\n    o.account_create(f'w{n:02}', domain=f'w{n:02}.example.com')\n    time.sleep(0.1)\n"
    ))  # fmt: skip
    time.sleep(1.5)
    lab.run("manager", "pkill", "-9", "beam", check=False)
    lab.run("manager", "sh", "-c", "while pgrep beam >/dev/null; do sleep 0.1; done; rm -rf /var/lib/rabbitmq/mnesia")
    lab.run("manager", "systemctl", "start", "rabbitmq-server")
    said, _ = wishes.communicate(timeout=60)
    assert wishes.returncode == 0, said
    lab.wait(lab.is_quiet, 120)
    assert len(lab.onehost("account", "list")) == SITES - 1 + 40
    assert all(equal(lab, node) for node in lab.nodes)


def test_a_new_node_is_filled_and_serves(lab: Lab, sites: list[str]) -> None:
    lab.ops("boot", "node4")
    lab.wait(lambda: len(lab.onehost("node", "list")) == 5 and lab.is_quiet(), 90, "node4 is not filled")
    assert equal(lab, "node4")
    status = lab.run("client", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: r11.example.com",
                     "http://10.77.0.14/")  # fmt: skip
    assert status == "200"
