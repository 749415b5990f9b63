"""An account is the same on every node: its files by every way in, and who is logged in to its application."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .conftest import CHECKOUT, Lab

pytestmark = pytest.mark.lab

NODE1, NODE2, NODE3 = "10.77.0.11", "10.77.0.12", "10.77.0.13"
PASSWORD = "battery-staple-2"
SITE = "/home/alice/home/site"


@pytest.fixture(scope="module")
def alice(lab: Lab) -> Iterator[Lab]:
    """The lab with an account that has a site with the example's application, a login for FTP and a key."""
    lab.run("client", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/key")
    lab.onehost("account", "create", "alice", "--access", "shell", "--wait")
    lab.onehost("domain", "create", "alice.example", "alice", "--document-root", "site", "--wait")
    lab.onehost("ftp-login", "create", "alice.up", "alice", "--folder", "site", "--password", "--wait",
                stdin=f"{PASSWORD}\n")  # fmt: skip
    lab.onehost("ssh-key", "create", "alice.key", "alice", lab.run("client", "cat", "/root/key.pub").strip(), "--wait")
    sftp(lab, NODE1, f"put {CHECKOUT}/examples/notes.php {SITE}/notes.php")
    yield lab


def sftp(lab: Lab, address: str, *commands: str) -> None:
    options = ("-q", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i", "/root/key", "-b", "-")
    lab.run("client", "sftp", *options, f"alice@{address}", stdin="\n".join(commands) + "\n")


def curl(lab: Lab, address: str, path: str, *options: str) -> str:
    """What the site answers at an address; empty if it is no 200."""
    where = ("--resolve", f"alice.example:80:{address}", f"http://alice.example/{path}")
    return lab.run("client", "curl", "-sf", "-m", "10", *options, *where, check=False)


def application(lab: Lab, address: str, *options: str, jar: str = "/root/jar") -> dict[str, object]:
    answer: dict[str, object] = json.loads(curl(lab, address, "notes.php", "-b", jar, "-c", jar, *options))
    return answer


def test_a_file_is_the_same_by_every_way_in_of_every_node_at_once(alice: Lab) -> None:
    for turn in range(5):
        alice.run("client", "tee", "/root/first", stdin=f"first {turn}\n")
        alice.run("client", "tee", "/root/second", stdin=f"second {turn}\n")
        alice.run("client", "curl", "-sS", "-m", "10", "-u", f"alice.up:{PASSWORD}", "-T", "/root/first",
                  f"ftp://{NODE1}/page.txt")  # fmt: skip
        assert curl(alice, NODE3, "page.txt") == f"first {turn}\n"
        sftp(alice, NODE2, f"put /root/second {SITE}/page.txt")
        assert curl(alice, NODE1, "page.txt") == f"second {turn}\n"
    assert alice.run("node3", "stat", "-c", "%U", f"{SITE}/page.txt") == "alice\n"


def test_sessions_are_the_accounts_alone_and_php_clears_them_out(alice: Lab) -> None:
    application(alice, NODE2, "-d", "user=here", jar="/root/other")
    said = alice.run("node3", "bash", "-c", "stat -c '%U %a' /home/alice/tmp/sessions /home/alice/tmp/sessions/sess_*")
    assert set(said.splitlines()) == {"alice 700", "alice 600"}
    alice.run(
        "client",
        "tee",
        "/root/ini.php",
        stdin="""<?php session_start();
        foreach (["save_handler", "save_path", "gc_probability"] as $each) echo ini_get("session.$each"), " ";""",
    )
    sftp(alice, NODE1, f"put /root/ini.php {SITE}/ini.php")
    for address in (NODE1, NODE2, NODE3):
        assert curl(alice, address, "ini.php") == "files /home/alice/tmp/sessions 1 "


def test_logged_in_on_a_node_that_dies_and_still_logged_in_on_the_next(alice: Lab) -> None:
    begun = application(alice, NODE1, "-d", "user=alice")
    assert (begun["node"], begun["user"]) == ("node1", "alice")
    application(alice, NODE1, "-d", "note=from the first")
    alice.ops("kill", "node1")
    assert curl(alice, NODE1, "notes.php", "-m", "2") == ""
    found = application(alice, NODE2)
    assert (found["node"], found["user"]) == ("node2", "alice")
    found = application(alice, NODE2, "-d", "note=from the second")
    assert found["notes"] == ["alice: from the first", "alice: from the second"]
    assert json.loads(curl(alice, NODE2, "notes.php"))["user"] is None
