"""What root does below a tenant's home, while the tenant exchanges folders and files there for links all the time.

Nothing outside of the home may be read for the tenant, written, given away, opened or removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Lab

pytestmark = pytest.mark.lab

#: How many exchanges there are at least, while root is at work.
SWAPS = int(os.environ.get("ONEHOST_TEST_SWAPS", "5000"))
SECRETS = {"/etc/canary/secret": "only root reads this", "/home/bob/home/web/secret.txt": "only bob reads this"}
TOOLS = Path(__file__).parent


@pytest.fixture(scope="module")
def victims(lab: Lab) -> Iterator[Lab]:
    """Two accounts, and canaries of root and of bob that alice would like to reach."""
    for name in ("alice", "bob"):
        lab.onehost("account", "create", name, "--domain", f"{name}.example", "--wait")
    lab.run("node1", "mkdir", "/etc/canary")
    for path, text in SECRETS.items():
        lab.run("node1", "tee", path, stdin=text)
    lab.run("node1", "sh", "-c", "chmod 600 /etc/canary/secret; echo open >/etc/canary/open; mkdir /etc/canary/folder")
    lab.run("node1", "sh", "-c", "cd /home/bob/home/web; chown bob:www-data secret.txt; chmod 640 secret.txt")
    yield lab


def canaries(lab: Lab) -> str:
    """All of them, with content, mode, owner, inode and times: a change of anything but of being read shows."""
    where = "/etc/canary /etc/passwd /etc/shadow /home/bob/home"
    seen = f"find {where} -printf '%p %y %i %m %U:%G %n %s %T@ %C@\\n' | sort"
    return lab.run("node1", "sh", "-c", f"{seen}; find {where} -type f | sort | xargs sha256sum")


def test_nobody_is_led_astray(victims: Lab) -> None:
    lab, user = victims, ("setpriv", "--reuid", "alice", "--regid", "alice", "--init-groups")
    before = canaries(lab)
    lab.run("node1", "touch", "/run/racing")
    lab.run("node1", "install", "-d", "-o", "alice", "/run/swaps")
    racer = (TOOLS / "racer.py").read_text()
    racers = [lab.start("node1", *user, "python3", "-c", racer, name) for name in ("alice", "eve")]
    try:
        root = lab.start("node1", ".venv/bin/python", "tests/lab/raced_driver.py", str(SWAPS))
        asked = wishes(lab, root)
        said = root.communicate(timeout=60)[0]
        assert root.returncode == 0, said
    finally:
        lab.run("node1", "rm", "/run/racing")
        ended = [each.communicate(timeout=30)[0] for each in racers]
    done = json.loads(said.splitlines()[-1])
    print("\nswaps:", *map(str.strip, ended), "\nroot:", done, "\nwishes:", asked)
    assert canaries(lab) == before
    for each in ended:
        assert sum(json.loads(each).values()) >= SWAPS // 10
    assert all(each["done"] for each in done.values())
    own_things_only(lab)


def wishes(lab: Lab, root: object) -> dict[str, int]:
    """Has the worker itself be at work in the home, by the command line, until `root` is done."""
    asked = {"check": 0, "domain": 0}
    while root.poll() is None:  # type: ignore[attr-defined]
        number = asked["domain"]
        name, folder = f"d{number}.example", f"web/made/{number}/deep"
        # Where a folder is a link at that moment, the job may say so and fail.
        lab.run(
            "manager", "onehost", "domain", "create", name, "alice", "--document-root", folder, "--wait", check=False
        )
        lab.run("manager", "onehost", "-o", "json", "node", "check", "node1", check=False)
        lab.onehost("domain", "delete", name, "--yes", name, "--wait")
        asked = {"check": asked["check"] + 1, "domain": number + 1}
    return asked


def own_things_only(lab: Lab) -> None:
    """In what alice has there is no other's file, no file of root's making and no other's words."""
    trash = "/home/.trash"
    strange = f"find /home/alice -mindepth 2 ! -user alice; find {trash} -mindepth 3 ! -user alice 2>/dev/null || true"
    assert lab.run("node1", "sh", "-c", strange) == ""
    for text in SECRETS.values():
        found = lab.run("node1", "grep", "-rlIF", text, "/home/alice", check=False)
        assert found == "", found
    for path in SECRETS:
        lab.run("node1", "sh", "-c", f"! setpriv --reuid alice --regid alice --init-groups cat {path}")


def test_apache_serves_nothing_through_a_link(victims: Lab) -> None:
    """It may read what all accounts show, so it must not be led from one home to another."""
    lab, user = victims, ("setpriv", "--reuid", "carol", "--regid", "carol", "--init-groups")
    lab.onehost("account", "create", "carol", "--domain", "carol.example", "--wait")
    for account in ("carol", "bob"):
        lab.run("node1", "sh", "-c", f"echo {account} >/home/{account}/home/web/shown.txt")
    lab.run("node1", "touch", "/run/racing")
    racer = lab.start("node1", *user, "python3", "-c", WEB_RACER)
    try:
        assert racer.stdout and racer.stdout.readline() == "racing\n"
        asked = f"http://carol.example/shown.txt?[1-{max(2000, SWAPS // 20)}]"
        body = lab.run("client", "curl", "-s", "--resolve", "carol.example:80:10.77.0.11", asked)
    finally:
        lab.run("node1", "rm", "/run/racing")
        swaps = racer.communicate(timeout=30)[0]
    seen = {each: body.count(f"{each}\n") for each in ("carol", "bob")}
    print(f"\nserved: {seen}, {body.count('403 Forbidden</title>')} refused, {swaps.strip()} swaps")
    assert seen["carol"] and not seen["bob"]


WEB_RACER = """
import ctypes, os
os.chdir("/home/carol/home/web")
os.symlink("/home/bob/home/web/shown.txt", "link")
libc, swaps = ctypes.CDLL(None), 0
print("racing", flush=True)
while os.path.exists("/run/racing"):
    for _ in range(1000):
        libc.renameat2(-100, b"shown.txt", -100, b"link", 2)
    swaps += 1000
print(swaps)
"""
