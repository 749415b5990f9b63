"""Each account finds the log of its sites in its home, from every node, and sees what they have sent."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from .conftest import Lab

pytestmark = pytest.mark.lab

ADDRESSES = {"node1": "10.77.0.11", "node2": "10.77.0.12"}
LOG = "/home/{0}/log/{0}.example.{1}.log"


@pytest.fixture(scope="module")
def sites(lab: Lab) -> Iterator[Lab]:
    """Two accounts with a site each, and nodes that split their logs every second."""
    for name in ("alice", "bob"):
        lab.onehost("account", "create", name, "--domain", f"{name}.example", "--wait")
        lab.run("node3", "sh", "-c", f"head -c 3000000 /dev/zero >/home/{name}/home/web/large")
    for node in ADDRESSES:
        lab.run(node, "sed", "-i", "1i log_seconds = 1", "/etc/onehost/worker.toml")
        lab.supervisor(node, "restart", "worker")
    lab.wait(lab.is_quiet)
    yield lab


def ask(lab: Lab, node: str, name: str, path: str) -> None:
    where = ("--resolve", f"{name}.example:80:{ADDRESSES[node]}", f"http://{name}.example/{path}")
    lab.run("client", "curl", "-sf", "-m", "10", "-o", "/dev/null", *where)


def lines(lab: Lab, node: str, name: str) -> list[str]:
    """The requests in a site's log, as another node shows the file."""
    said = lab.run("node3", "cat", LOG.format(name, node), check=False)
    return [line.split('"')[1].split()[1] for line in said.splitlines()]


def asked(lab: Lab, node: str, name: str) -> list[str]:
    """Without what a worker asks itself."""
    return [path for path in lines(lab, node, name) if not path.startswith("/.well-known")]


def test_requests_to_two_nodes_are_in_the_homes(sites: Lab) -> None:
    wanted = [f"/?{number}" for number in range(20)]
    for number in range(20):
        for node in ADDRESSES:
            for name in ("alice", "bob"):
                ask(sites, node, name, f"?{number}")
    for node in ADDRESSES:
        for name in ("alice", "bob"):
            sites.wait(lambda node=node, name=name: len(asked(sites, node, name)) >= 20, 30, "not all is split")
            assert asked(sites, node, name) == wanted
            said = sites.run("node3", "stat", "-c", "%U %G %a", LOG.format(name, node))
            assert said == f"{name} {name} 640\n"


def test_what_was_sent_is_shown_for_all_nodes_together(sites: Lab) -> None:
    for node in ADDRESSES:
        ask(sites, node, "alice", "large")

    def used(name: str) -> int:
        return int(sites.onehost("account", "usage", name)["bytes_out"] or 0)

    sites.wait(lambda: used("alice") > 6_000_000, 30, "not all is counted")
    assert 0 < used("bob") < 1_000_000 and used("alice") < 7_000_000
    assert sites.onehost("account", "usage", "alice")["limits"]["bandwidth_mib"]["used"] in (6, 7)


def test_a_link_in_place_of_a_log_harms_nobody_else(sites: Lab) -> None:
    before = lines(sites, "node1", "bob")
    own, other = LOG.format("alice", "node1"), LOG.format("bob", "node1")
    sites.run("node3", "sh", "-c", f"rm {own}; ln -s {other} {own}; chown -h alice: {own}")
    ask(sites, "node1", "alice", "?trap")
    ask(sites, "node1", "bob", "?after")
    sites.wait(lambda: "/?after" in lines(sites, "node1", "bob"), 30, "nothing is split any more")
    found = lines(sites, "node1", "bob")
    assert "/?trap" not in found and found[: len(before)] == before
    sites.run("node3", "rm", own)
    ask(sites, "node1", "alice", "?again")
    sites.wait(lambda: asked(sites, "node1", "alice")[-1:] == ["/?again"], 30, "the log did not come back")


def test_a_slow_download_keeps_its_line(sites: Lab) -> None:
    """Its child writes it into a log that was set aside long ago."""
    where = ("--resolve", f"bob.example:80:{ADDRESSES['node2']}", "http://bob.example/large?slow")
    slow = sites.start("client", "curl", "-sf", "--limit-rate", "500k", "-o", "/dev/null", *where)
    for number in range(12):
        ask(sites, "node2", "bob", f"?beside{number}")
    slow.communicate(timeout=60)
    assert slow.returncode == 0
    wanted = sorted([*(f"/?beside{number}" for number in range(12)), "/large?slow"])

    def found() -> list[str]:
        return sorted(path for path in lines(sites, "node2", "bob") if "beside" in path or "slow" in path)

    sites.wait(lambda: len(found()) >= len(wanted), 60, "a line is lost")
    assert found() == wanted


def test_a_worker_killed_at_any_moment_loses_doubles_and_counts_nothing_twice(sites: Lab) -> None:
    """Each second the log is split, so some of these kills are in the middle of it."""
    wanted = []
    for kill in range(12):
        for number in range(6):
            wanted.append(f"/?kill{kill}-{number}")
            ask(sites, "node1", "bob", wanted[-1][1:])
        time.sleep(0.13 * kill)
        sites.supervisor("node1", "signal", "KILL", "worker")

    def found() -> list[str]:
        return [path for path in lines(sites, "node1", "bob") if "kill" in path]

    sites.wait(lambda: len(found()) >= len(wanted), 60, "a line is lost")
    assert found() == wanted
    sites.wait(lambda: told(sites, "bob") == counted(sites, "bob"), 30, "what is counted is not what was sent")


def told(lab: Lab, name: str) -> int:
    return int(lab.onehost("account", "usage", name)["bytes_out"])


def counted(lab: Lab, name: str) -> int:
    """What the lines in an account's logs say was sent."""
    text = "".join(lab.run("node3", "cat", LOG.format(name, node)) for node in ADDRESSES)
    return sum(int(line.split('" ')[1].split()[1]) for line in text.splitlines())
