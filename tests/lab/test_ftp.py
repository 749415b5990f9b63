"""FTP and FTPS by real clients from outside: what a login may, where it is locked in, and when it is let in no more."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

pytestmark = pytest.mark.lab

OWN, OTHER, READER = "correct-horse-1", "battery-staple-2", "only-looking-3"
HOME = "/home/alice/home"
ADDRESSES = ("10.77.0.11", "10.77.0.12", "10.77.0.13")


@pytest.fixture(scope="module")
def alice(lab: Any) -> Iterator[Any]:
    """The lab with an account, a login locked in a folder of it, and one that only reads there."""
    lab.onehost("account", "create", "alice", "--domain", "alice.example", "--password", "--wait", stdin=f"{OWN}\n")
    create = ("ftp-login", "create")
    lab.onehost(*create, "alice.upload", "alice", "--folder", "web/up", "--password", "--wait", stdin=f"{OTHER}\n")
    lab.onehost(*create, "alice.look", "alice", "--folder", "web/up", "--read-only", "--password", "--wait",
                stdin=f"{READER}\n")  # fmt: skip
    yield lab


def curl(lab: Any, login: str, password: str, path: str, *options: str, address: str = ADDRESSES[0]) -> tuple[int, str]:
    """Exit status of curl (67: login refused, 9: folder refused, 25: upload refused), and what it brought."""
    words = ["curl", "-sk", "-m", "20", "-u", f"{login}:{password}", *options, f"ftp://{address}/{path}"]
    script = 'said=$("$@"); code=$?; printf "%s\\n%s" "$code" "$said"'
    code, _, body = lab.run("client", "bash", "-c", script, "-", *words).partition("\n")
    return int(code), body


def put(lab: Any, login: str, password: str, path: str, content: str, *options: str, **more: str) -> int:
    lab.run("client", "tee", "/root/given", stdin=content)
    return curl(lab, login, password, path, "-T", "/root/given", *options, **more)[0]


def lftp(lab: Any, login: str, password: str, commands: str, settings: str = "") -> str:
    """What lftp says, errors too."""
    script = f"set net:max-retries 1; set net:timeout 10; set cmd:fail-exit yes; {settings}; " \
             f"open -u {login},{password} {ADDRESSES[0]}; {commands}"  # fmt: skip
    return str(lab.run("client", "bash", "-c", 'lftp -c "$1" 2>&1', "-", script, check=False))


@pytest.mark.parametrize(
    "options", [(), ("--ssl-reqd",), ("--ssl-reqd", "--tls-max", "1.2")], ids=["ftp", "ftps", "ftps12"]
)
def test_up_on_one_node_and_down_from_each(alice: Any, options: tuple[str, ...]) -> None:
    for login, password, path in (("alice", OWN, "web/own.txt"), ("alice.upload", OTHER, "up.txt")):
        content = f"{login} {options}"
        assert put(alice, login, password, path, content, *options) == 0
        for address in ADDRESSES:
            assert curl(alice, login, password, path, *options, address=address) == (0, content)
    found = alice.run("node2", "stat", "-c", "%U:%G %a", f"{HOME}/web/own.txt", f"{HOME}/web/up/up.txt")
    assert set(found.split("\n")) == {"alice:www-data 640", ""}
    page = alice.run("client", "curl", "-s", "-H", "Host: alice.example", "http://10.77.0.13/up/up.txt")
    assert page == content


def test_lftp_speaks_tls_on_both_channels(alice: Any) -> None:
    strict = "set ftp:ssl-force true; set ftp:ssl-protect-data true; set ssl:verify-certificate no"
    assert "own.txt" in lftp(alice, "alice", OWN, "cls web", strict)
    assert "up.txt" in lftp(alice, "alice.upload", OTHER, "mkdir d; rmdir d; cls", strict)


def test_locked_in_the_folder(alice: Any) -> None:
    links = "ln -sfn / up/out; ln -sfn .. up/above; echo secret >secret.txt; chown -h alice: up/* secret.txt"
    alice.run("node1", "bash", "-c", f"cd {HOME}/web; {links}")
    for path in ("../secret.txt", "above/secret.txt", "out/etc/passwd", "%2fetc/passwd", "../../../../etc/passwd"):
        code, body = curl(alice, "alice.upload", OTHER, path, "--path-as-is")
        assert code in (9, 78) and "secret" not in body and "root:" not in body, path
    assert "secret.txt" not in lftp(alice, "alice.upload", OTHER, "cd above; cls -a; cd ..; cls -a")


def test_a_folder_that_is_a_link_lets_nobody_in(alice: Any) -> None:
    user = "setpriv --reuid alice --regid alice --init-groups"
    alice.run("node1", "bash", "-c", f"cd {HOME}/web && {user} mv up kept && {user} ln -s / up")
    try:
        code, body = curl(alice, "alice.upload", OTHER, "etc/passwd")
        assert code == 67 and "root:" not in body
    finally:
        alice.run("node1", "bash", "-c", f"cd {HOME}/web && rm up && mv kept up")
    assert curl(alice, "alice.upload", OTHER, "up.txt")[0] == 0


def test_read_only_refuses_all_that_writes(alice: Any) -> None:
    assert curl(alice, "alice.look", READER, "up.txt")[0] == 0
    assert put(alice, "alice.look", READER, "new.txt", "x") == 25
    before = alice.run("node1", "bash", "-c", f"cd {HOME}/web/up; ls -la --time-style=full-iso; cat up.txt")
    for command in ("DELE up.txt", "MKD x", "RNFR up.txt", "SITE CHMOD 777 up.txt", "SITE CHGRP 1 up.txt", "RMD out",
                    "MFMT 20200101000000 up.txt", "MFF Modify=20200101000000; up.txt", "SITE CPFR up.txt",
                    "SITE SYMLINK up.txt l", "SITE UTIME 202001010101 up.txt", "XMKD y"):  # fmt: skip
        assert curl(alice, "alice.look", READER, "", "-Q", command)[0] == 21, command
    assert alice.run("node1", "bash", "-c", f"cd {HOME}/web/up; ls -la --time-style=full-iso; cat up.txt") == before
    alice.onehost("ftp-login", "set", "alice.look", "--no-read-only", "--wait")
    assert put(alice, "alice.look", READER, "new.txt", "x") == 0
    alice.onehost("ftp-login", "set", "alice.look", "--read-only", "--wait")
    assert put(alice, "alice.look", READER, "new.txt", "x") == 25


def test_a_tenant_cannot_loosen_it(alice: Any) -> None:
    loose = "<Limit ALL>\nAllowAll\n</Limit>\n"
    assert put(alice, "alice.upload", OTHER, ".ftpaccess", loose) == 0
    assert put(alice, "alice.look", READER, "new2.txt", "x") == 25


def test_a_new_password_counts_at_once_and_reloads_nothing(alice: Any) -> None:
    before = (
        alice.run("node1", "cat", "/run/proftpd.pid"),
        alice.run("node1", "bash", "-c", "grep -c SIGHUP /var/log/proftpd/proftpd.log || true"),
    )
    alice.onehost("ftp-login", "passwd", "alice.upload", "--password", "--wait", stdin="another-one-4\n")
    for address in ADDRESSES:
        assert curl(alice, "alice.upload", OTHER, "up.txt", address=address)[0] == 67
        assert curl(alice, "alice.upload", "another-one-4", "up.txt", address=address)[0] == 0
    alice.onehost("ftp-login", "passwd", "alice.upload", "--password", "--wait", stdin=f"{OTHER}\n")
    assert (
        alice.run("node1", "cat", "/run/proftpd.pid"),
        alice.run("node1", "bash", "-c", "grep -c SIGHUP /var/log/proftpd/proftpd.log || true"),
    ) == before


def sessions(lab: Any, login: str) -> list[str]:
    """What ProFTPD's processes of a login on node1 do."""
    said = lab.run("node1", "bash", "-c", "ps -C proftpd -o args= || true")
    return [line for line in said.splitlines() if line.startswith(f"proftpd: {login} - ")]


@contextmanager
def held(lab: Any, login: str, password: str) -> Iterator[None]:
    """A download that takes minutes, under way. Its end is seen at the node: a client has much in its buffers."""
    lab.run("node1", "bash", "-c", f"cd {HOME}/web/up; test -f big || truncate -s 40M big; chown alice: big")
    path = "web/up/big" if login == "alice" else "big"
    running = lab.start("client", "curl", "-s", "--limit-rate", "20k", "-o", "/dev/null", "-u",
                        f"{login}:{password}", f"ftp://{ADDRESSES[0]}/{path}")  # fmt: skip
    until = time.monotonic() + 20
    while not any("RETR" in each for each in sessions(lab, login)):
        assert time.monotonic() < until and running.poll() is None
        time.sleep(0.05)
    try:
        yield
    finally:
        running.kill()
        running.communicate()


def rows(lab: Any) -> str:
    return str(lab.run("node1", "sha256sum", "/etc/onehost/ftp/users"))


def test_suspend_of_the_account_refuses_and_ends_all(alice: Any) -> None:
    before = rows(alice)
    with held(alice, "alice", OWN), held(alice, "alice.upload", OTHER):
        alice.onehost("account", "suspend", "alice", "--wait")
        assert sessions(alice, "alice") + sessions(alice, "alice.upload") == []
    for address in ADDRESSES:
        for login, password in (("alice", OWN), ("alice.upload", OTHER), ("alice.look", READER)):
            assert curl(alice, login, password, "", address=address)[0] == 67
    # One that is made meanwhile does not get in either.
    alice.onehost("ftp-login", "create", "alice.late", "alice", "--password", "--wait", stdin=f"{OTHER}\n")
    assert curl(alice, "alice.late", OTHER, "")[0] == 67
    alice.onehost("ftp-login", "delete", "alice.late", "--yes", "alice.late", "--wait")
    alice.onehost("account", "unsuspend", "alice", "--wait")
    assert rows(alice) == before
    assert curl(alice, "alice.upload", OTHER, "up.txt")[0] == 0


def test_suspend_of_one_login_ends_it_alone(alice: Any) -> None:
    with held(alice, "alice", OWN), held(alice, "alice.upload", OTHER):
        alice.onehost("ftp-login", "suspend", "alice.upload", "--wait")
        assert not sessions(alice, "alice.upload") and curl(alice, "alice.upload", OTHER, "")[0] == 67
        assert sessions(alice, "alice") and curl(alice, "alice.look", READER, "up.txt")[0] == 0
    # The account's suspension comes and goes: the login's own stays.
    alice.onehost("account", "suspend", "alice", "--wait")
    alice.onehost("account", "unsuspend", "alice", "--wait")
    assert curl(alice, "alice.upload", OTHER, "")[0] == 67
    alice.onehost("ftp-login", "unsuspend", "alice.upload", "--wait")
    assert curl(alice, "alice.upload", OTHER, "up.txt")[0] == 0


def test_the_account_itself_without_ftp(alice: Any) -> None:
    with held(alice, "alice", OWN):
        alice.onehost("account", "set", "alice", "--no-ftp", "--wait")
        assert not sessions(alice, "alice") and curl(alice, "alice", OWN, "")[0] == 67
    assert curl(alice, "alice.upload", OTHER, "up.txt")[0] == 0
    alice.onehost("account", "set", "alice", "--ftp", "--wait")
    assert curl(alice, "alice", OWN, "")[0] == 0


def test_a_restarted_worker_changes_nothing(alice: Any) -> None:
    before = rows(alice), alice.run("node1", "cat", "/run/proftpd.pid")
    alice.supervisor("node1", "restart", "worker")
    alice.wait(alice.is_quiet)
    assert (rows(alice), alice.run("node1", "cat", "/run/proftpd.pid")) == before
    assert curl(alice, "alice", OWN, "")[0] == 0


def test_a_file_broken_by_hand_is_named_blames_nobody_and_heals(alice: Any) -> None:
    alice.run("node2", "tee", "/etc/proftpd/conf.d/zz-own.conf", stdin="Bogus yes\n")
    alice.supervisor("node2", "restart", "worker")
    alice.onehost("ftp-login", "create", "alice.more", "alice", "--password", stdin=f"{OTHER}\n")
    alice.wait(lambda: "/etc/proftpd/conf.d/zz-own.conf:1: unknown" in str(alice.onehost("status")))
    found = alice.onehost("ftp-login", "show", "alice.more")
    assert {each["node"] for each in found["nodes"] if each["state"] == "applied"} >= {"node1", "node3"}
    # Who could log in before still can.
    assert curl(alice, "alice", OWN, "", address=ADDRESSES[1])[0] == 0
    alice.run("node2", "rm", "/etc/proftpd/conf.d/zz-own.conf")
    alice.wait(alice.is_quiet)
    assert curl(alice, "alice.more", OTHER, "", address=ADDRESSES[1])[0] == 0


@pytest.mark.parametrize("options", [(), ("--ssl-reqd",), ("--disable-epsv",)], ids=["epsv", "ftps", "pasv"])
def test_passive_at_the_virtual_address(alice: Any, options: tuple[str, ...]) -> None:
    vip = "198.51.100.10"
    with suppress(AssertionError):  # it is there already
        alice.onehost("virtual-service", "create", "ftp", vip, "21", "--role", "ftp", "--wait")
    served = set()
    alice.wait(lambda: curl(alice, "alice", OWN, "web/own.txt", address=vip)[0] == 0)
    for number in range(20, 26):
        more = ("--interface", f"198.51.100.{number}", *options)
        assert put(alice, "alice", OWN, f"web/{number}.txt", "x", *more, address=vip) == 0
        assert curl(alice, "alice", OWN, f"web/{number}.txt", *more, address=vip) == (0, "x")
        for node in alice.nodes:
            if f"198.51.100.{number}" in alice.run(node, "cat", "/var/log/proftpd/xferlog"):
                served.add(node)
    assert len(served) > 1


LEFT_BEHIND = """
import ftplib, sys
ftp = ftplib.FTP(sys.argv[1], timeout=20)
ftp.login(*sys.argv[2:])
ftp.cwd("/moved")
print("there", flush=True)
while "moved" in [each.rpartition("/")[2] for each in ftp.nlst("/")]:
    pass
for ask in ("LIST ..", "NLST ..", "NLST ../..", "LIST -a ../../../../..", "NLST", "MLSD ..", "RETR ../secret.txt",
            "RETR ../../../../../etc/passwd", "LIST -R ..", "CWD ..", "NLST", "NLST .."):
    said = []
    try:
        done = ftp.sendcmd(ask) if ask.startswith("CWD") else ftp.retrlines(ask, said.append)
        print(done[:3], said)
    except ftplib.all_errors as error:
        print(str(error)[:3])
"""


def test_a_folder_moved_away_under_a_session_takes_it_nowhere(alice: Any) -> None:
    """The kernel knows no end for `..` in a folder outside of the root: nothing may be asked for in that way."""
    alice.run(
        "node1", "bash", "-c", f"cd {HOME}/web && mkdir -p up/moved && echo secret >secret.txt && chown alice: up/moved"
    )
    session = alice.start("client", "python3", "-c", LEFT_BEHIND, ADDRESSES[0], "alice.upload", OTHER)
    assert session.stdout.readline() == "there\n"
    alice.run("node1", "bash", "-c", f"cd {HOME}/web && mv up/moved out")
    said = session.communicate(timeout=60)[0]
    alice.run("node1", "bash", "-c", f"rmdir {HOME}/web/out")
    assert len(said.splitlines()) == 12 and not re.search("secret|own.txt|root|etc|usr", said), said


RACER = """
import ctypes, os, sys
os.chdir("/home/alice/home/web")
os.makedirs("raced/in", exist_ok=True)
os.makedirs("trap", exist_ok=True)
for name in ("raced/inside.txt", "raced/in/inside.txt"):
    open(name, "w").close()
for name, target in (("link", sys.argv[1]), ("trap/in", "/etc")):
    if os.path.islink(name):
        os.unlink(name)
    os.symlink(target, name)
libc, swaps = ctypes.CDLL(None), 0
print("racing", flush=True)
while os.path.exists("race"):
    for _ in range(1000):
        libc.renameat2(-100, b"raced", -100, b"link", 2)
    swaps += 1000
print(swaps)
"""
#: How often each login comes while its folder is exchanged.
LOGINS = int(os.environ.get("ONEHOST_TEST_LOGINS", "30"))


@pytest.fixture(scope="module")
def raced(alice: Any) -> Iterator[Any]:
    """Two logins, for a folder and for one below it. Of both `raced` is what the tenant exchanges."""
    alice.run("node1", "mkdir", "-p", f"{HOME}/web/raced/in")
    alice.run("node1", "chown", "-R", "alice:", f"{HOME}/web/raced")
    for login, folder in (("alice.raced", "web/raced"), ("alice.deeper", "web/raced/in")):
        alice.onehost("ftp-login", "create", login, "alice", "--folder", folder, "--password", "--wait",
                      stdin=f"{OTHER}\n")  # fmt: skip
    yield alice


@pytest.mark.parametrize(("login", "target"), [("alice.raced", "/"), ("alice.raced", ".."), ("alice.deeper", "trap")])
def test_a_folder_exchanged_all_the_time_for_a_link_moves_no_lock(raced: Any, login: str, target: str) -> None:
    user = ("setpriv", "--reuid", "alice", "--regid", "alice", "--init-groups")
    raced.run("node1", *user, "mkdir", f"{HOME}/web/race")
    racer = raced.start("node1", *user, "python3", "-c", RACER, target)
    try:
        assert racer.stdout.readline() == "racing\n"
        came = f"said=$(curl -s -m 9 -u {login}:{OTHER} ftp://{ADDRESSES[0]}/)"
        came += " && echo in $(awk '{print $NF}' <<<\"$said\")"
        seen = Counter(
            raced.run("client", "bash", "-c", f"for i in $(seq {LOGINS}); do {came} || echo out; done").splitlines()
        )
    finally:
        raced.run("node1", "rmdir", f"{HOME}/web/race")
        swaps = racer.communicate(timeout=30)[0]
        raced.run(
            "node1",
            "bash",
            "-c",
            f"cd {HOME}/web && if test -L raced; then mv -T raced x && mv -T link raced && mv x link; fi",
        )
    print(f"{login} -> {target}: {dict(seen)}, {swaps.strip()} swaps")
    own = "in inside.txt" if login == "alice.deeper" else "in in inside.txt"
    assert set(seen) == {own, "out"} and sum(seen.values()) == LOGINS


def test_the_kernel_holds_the_lock(alice: Any) -> None:
    """It holds because of how ProFTPD was started and what a login may not see, not because of luck."""
    mounts = alice.run("node1", "bash", "-c", "grep ' /home ' /proc/$(cat /run/proftpd.pid)/mountinfo")
    assert "nosymfollow" in mounts.splitlines()[-1]
    assert alice.run("node1", "stat", "-c", "%U %a", "/etc/onehost/ftp/roots") == "root 700\n"


def test_removal(alice: Any) -> None:
    with held(alice, "alice.upload", OTHER):
        alice.onehost("ftp-login", "delete", "alice.upload", "--yes", "alice.upload", "--wait")
        assert not sessions(alice, "alice.upload") and curl(alice, "alice.upload", OTHER, "")[0] == 67
    alice.onehost("account", "delete", "alice", "--yes", "alice", "--wait")
    alice.wait(alice.is_quiet)
    for node in alice.nodes:
        assert alice.run(node, "cat", "/etc/onehost/ftp/users") == ""
        assert alice.run(node, "ls", "/etc/onehost/ftp/locked") == ""
