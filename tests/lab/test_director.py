"""One address before three nodes, on a lab: HAProxy's real weights, drains under load, persistence, reloads."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from .test_host import ADDRESS, CHECKOUT, ENVIRONMENT, Driver, account, changed, client, cluster, inside, lab

pytestmark = pytest.mark.lab

__all__ = ["cluster"]

VIP = "198.51.100.10"
NAMES = ["node1", "node2", "node3"]
IDS = {"node1": 101, "node2": 102, "node3": 103}


def real_server(name: str, traffic: str = "active", generation: int = 1, **more: Any) -> dict[str, Any]:
    spec = {"address": ADDRESS[name], "roles": ["web", "ssh"], "weight": 100, "traffic": traffic, "drain_seconds": 600}
    entry = {
        "id": IDS[name],
        "noun": "node",
        "name": name,
        "generation": generation,
        "roles": ["director"],
        "spec": spec,
    }
    return {**entry, **more}


def service(id_: int, name: str, port: int, check: str, persistence: int = 0) -> dict[str, Any]:
    spec = {
        "address": VIP, "port": port, "role": "web", "persistence_seconds": persistence, "scheduler": "wrr",
        "check": check,
    }  # fmt: skip
    return {"id": id_, "noun": "virtual_service", "name": name, "generation": 1, "roles": ["director"], "spec": spec}


WEB, SSH_SERVICE = service(201, "web", 80, "http"), service(202, "ssh", 22, "ssh", persistence=300)
HOSTNAME = "<?php echo gethostname(), ' ', $_SERVER['REMOTE_ADDR'];"


@pytest.fixture(scope="module")
def director(cluster: None) -> Iterator[Driver]:
    """HAProxy on the manager, before three nodes that serve alice."""
    nodes = [
        Driver("node1", ["web", "ssh", "storage"]),
        Driver("node2", ["web", "ssh"]),
        Driver("node3", ["web", "ssh"]),
    ]
    for driver in nodes:
        driver.applied(account(1, "alice", roles=driver.roles))
    user = "setpriv --reuid alice --regid alice --init-groups"
    lab("exec", "node1", "--", "bash", "-c", f"{user} bash -c 'cat >~alice/web/index.php'", stdin=HOSTNAME)
    driver = Driver("manager", ["director"])
    driver.applied(*(real_server(name) for name in NAMES), WEB, SSH_SERVICE)
    yield driver
    for one in [*nodes, driver]:
        one.close()


def ask(source: str = "198.51.100.2") -> str:
    return client(f"curl -s -m 5 --interface {source} -H 'Host: alice.example' http://{VIP}/").partition(" ")[0]


def wait_for(what: set[str], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while {ask() for _ in range(6)} != what:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def workers() -> str:
    return inside("manager", "ps -C haproxy -o pid= | sort")


def test_all_nodes_serve_and_see_the_client(director: Driver) -> None:
    wait_for(set(NAMES))
    said = client(f"curl -s -H 'Host: alice.example' http://{VIP}/")
    assert said.endswith(" 198.51.100.2")


def test_ten_clients_are_spread_and_each_stays(director: Driver) -> None:
    script = (
        f"for i in $(seq 20 29); do curl -s -m 5 --interface 198.51.100.$i telnet://{VIP}:22 </dev/null | head -1; done"
    )
    assert client(script).count("SSH-2.0") == 10
    counts = {name: director.call("director.say", f"show table ssh.202 data.server_id eq {number(director, name)}").count("key=")
              for name in NAMES}  # fmt: skip
    assert sum(counts.values()) >= 10 and min(counts.values()) >= 3, counts


def number(director: Driver, name: str) -> int:
    rows = director.call("director.say", "show servers state ssh.202").splitlines()
    return next(int(row.split()[2]) for row in rows if f" {name} " in row)


def test_drain_and_uncordon_each_node_under_load_lose_nothing(director: Driver) -> None:
    before = workers()
    command = ["ops/lab", "exec", "client", "--", sys.executable, "tests/lab/load.py"]
    load = subprocess.Popen([*command, VIP, "80", "alice.example", "/", "100", "9"], cwd=CHECKOUT, env=ENVIRONMENT,
                            stdout=subprocess.PIPE, text=True)  # fmt: skip
    time.sleep(1)
    for name in NAMES:
        drain(director, name)
        rest = {ask() for _ in range(6)}
        assert name not in rest and len(rest) == 2
        assert director.applied(real_server(name)) == {"traffic": "drained -> active"}
        time.sleep(0.5)
    said = json.loads(load.communicate(timeout=60)[0])
    assert said["failed"] == [] and said["answered"] == 900, said
    assert workers() == before


def drain(director: Driver, name: str) -> dict[str, str]:
    """Applies until the node's connections are over, as the executor does with Pending."""
    entry = real_server(name, "drained", 2)
    first = director.apply(entry)[entry["id"]]
    deadline = time.monotonic() + 10
    outcome = first
    while outcome["outcome"] == "Pending" and time.monotonic() < deadline:
        time.sleep(0.1)
        director.call("director.tree.settle")
        outcome = director.apply(entry)[entry["id"]]
    assert outcome["outcome"] == "applied", outcome
    difference: dict[str, str] = first["difference"]
    return difference


def test_a_persistent_client_stays_until_its_node_is_drained(director: Driver) -> None:
    def home(source: str) -> str:
        client(f"curl -s -m 5 --interface {source} telnet://{VIP}:22 </dev/null")
        table = director.call("director.say", "show table ssh.202")
        ids = {str(number(director, name)): name for name in NAMES}
        row = next(line for line in table.splitlines() if f"key={source} " in line)
        return ids[row.rpartition("server_id=")[2].split()[0]]

    source = "198.51.100.33"
    first = home(source)
    assert {home(source) for _ in range(5)} == {first}
    cordoned = real_server(first, "cordoned", 2)
    director.applied(cordoned)
    assert home(source) == first
    director.applied(real_server(first, generation=3))
    drain(director, first)
    second = home(source)
    assert second != first
    director.applied(real_server(first))
    assert home(source) == second


def test_a_drain_waits_for_connections_and_cuts_none(director: Driver) -> None:
    held = subprocess.Popen(
        ["ops/lab", "exec", "client", "--", sys.executable, "-c", HOLD, VIP], cwd=CHECKOUT, env=ENVIRONMENT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert held.stdout and held.stdin
    assert held.stdout.readline().startswith("SSH-2.0")
    busy = next(name for name in NAMES if director.call("director.connections", name))
    entry = real_server(busy, "drained", 2)
    outcome = director.apply(entry)[entry["id"]]
    assert (outcome["outcome"], outcome["reason"]) == ("Pending", "1 connection left")
    # A reload in between: the connection is in an old worker now and still counts.
    extra = service(203, "extra", 8080, "tcp")
    director.applied(extra)
    assert director.call("director.connections", busy) == 1
    late = {**entry, "started_seconds": 601.0}
    assert director.apply(late)[entry["id"]]["outcome"] == "applied"
    held.stdin.write("still there\n")
    held.stdin.flush()
    assert held.stdout.readline().strip() == "alive"
    held.stdin.close()
    held.stdout.close()
    held.wait(10)
    director.applied(real_server(busy))
    outcome = director.apply({**extra, "generation": 2, "spec": None})[203]
    assert outcome == {"difference": {"service": "removed"}, "outcome": "applied"}
    assert not inside("manager", "ss -ltnH sport = :8080")


HOLD = """
import socket, sys
s = socket.create_connection((sys.argv[1], 22)); s.settimeout(5)
print(s.recv(100).decode().split()[0], flush=True)
sys.stdin.readline()
s.sendall(b"SSH-2.0-probe\\r\\n")
print("alive" if s.recv(10) else "cut", flush=True)
"""


def test_a_dead_node_gets_nothing(director: Driver) -> None:
    inside("node2", "kill -STOP $(cat /run/apache2/apache2.pid) $(pgrep -P $(cat /run/apache2/apache2.pid))")
    try:
        wait_for({"node1", "node3"})
    finally:
        inside("node2", "kill -CONT $(cat /run/apache2/apache2.pid) $(pgrep -P $(cat /run/apache2/apache2.pid))")
    wait_for(set(NAMES))


def test_a_bad_document_fails_alone(director: Driver) -> None:
    bad = service(204, "bad", 8081, "tcp")
    bad["spec"]["address"] = "not-an-address:"
    outcomes = director.apply(bad, changed(real_server("node1"), weight=50))
    assert outcomes[204]["outcome"] == "Permanent", outcomes
    assert outcomes[101]["outcome"] == "applied", outcomes
    director.applied(real_server("node1"))
    assert ask() in NAMES


def test_a_director_that_restarts_serves_what_is_on_disk(director: Driver) -> None:
    director.applied(real_server("node3", "drained"))
    director.restart()
    assert director.applied(real_server("node3", "drained"), WEB) == {}
    director.close()
    inside("manager", "systemctl restart haproxy")
    director.restart()
    wait_for({"node1", "node2"})
    director.applied(real_server("node3"))
    wait_for(set(NAMES))
