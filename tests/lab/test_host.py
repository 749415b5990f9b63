"""The reconcilers and the host on real machines of a lab: real daemons, real logins from the client machine."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lab

CHECKOUT = Path(__file__).parents[2]
LAB = f"host{os.getpid()}"
ENVIRONMENT = {**os.environ, "ONEHOST_LAB": LAB}
DRIVER = [sys.executable, "tests/lab/host_driver.py"]
NODE = ["web", "ssh", "storage"]
ADDRESS = {"node1": "10.77.0.11", "node2": "10.77.0.12", "node3": "10.77.0.13"}
PASSWORD, OTHER = "correct-horse-1", "battery-staple-2"


def lab(*words: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["ops/lab", *words], cwd=CHECKOUT, env=ENVIRONMENT, input=stdin, capture_output=True, text=True, timeout=120
    )
    if check and done.returncode:
        pytest.fail(f"ops/lab {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def inside(machine: str, script: str, check: bool = True) -> str:
    done = lab("exec", machine, "--", "bash", "-c", script, check=check)
    return (done.stdout + done.stderr).strip()


def client(script: str) -> str:
    return inside("client", script, check=False)


def hashed(password: str) -> str:
    command = ["openssl", "passwd", "-6", "-stdin"]
    return subprocess.run(command, input=password, capture_output=True, text=True, check=True).stdout.strip()


HASH = {PASSWORD: hashed(PASSWORD), OTHER: hashed(OTHER)}


class Driver:
    """A process in a machine that holds a Host, as a worker would."""

    def __init__(self, machine: str, roles: list[str]) -> None:
        self.machine, self.roles = machine, roles
        self.process: subprocess.Popen[str] | None = None
        self.restart()

    def restart(self, start: bool = True) -> None:
        self.close()
        command = ["ops/lab", "exec", self.machine, "--", *DRIVER]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=CHECKOUT, env=ENVIRONMENT, stdin=pipe, stdout=pipe, text=True)
        if start:
            assert self.do("start", roles=self.roles) == {}

    def do(self, what: str, **given: Any) -> Any:
        assert self.process and self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"do": what, **given}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"died": self.process.wait(10)}
        if isinstance(answer, dict) and "raised" in answer:
            pytest.fail(f"{self.machine}: {what}: {answer['raised']}")
        return answer

    def apply(self, *entries: dict[str, Any]) -> dict[int, dict[str, Any]]:
        answer = self.do("apply", entries=list(entries))
        return {int(id_): outcome for id_, outcome in answer["entries"].items()}

    def applied(self, *entries: dict[str, Any]) -> dict[str, str]:
        """Applies and demands success and that nothing differs afterwards; gives the difference of the last entry."""
        outcomes = self.apply(*entries)
        assert {o["outcome"] for o in outcomes.values()} == {"applied"}, outcomes
        assert self.do("compare", entries=list(entries)) == {str(e["id"]): {} for e in entries}
        difference: dict[str, str] = outcomes[entries[-1]["id"]]["difference"]
        return difference

    def call(self, path: str, *given: Any) -> Any:
        return self.do("call", path=path, given=list(given))

    def close(self) -> None:
        if self.process:
            self.process.kill()
            for pipe in (self.process.stdin, self.process.stdout):
                with suppress(BrokenPipeError):
                    pipe.close()  # type: ignore[union-attr]
            self.process.wait(10)
            self.process = None


def account(id_: int, name: str, generation: int = 1, roles: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    spec = {
        "uid": 20000 + id_, "gid": 20000 + id_, "shard": 0, "password_hash": HASH[PASSWORD], "access": "shell",
        "ssh_keys": [], "suspended": False, "domain": f"{name}.example", "document_root": "web", "php": True,
    }  # fmt: skip
    entry = {"id": id_, "noun": "account", "name": name, "generation": generation, "roles": roles or NODE}
    entry |= {key: changes.pop(key) for key in ("replaces", "applied_spec", "started_seconds") if key in changes}
    return {**entry, "spec": {**spec, **changes}}


def removed(entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "generation": entry["generation"] + 1, "spec": None, "applied_spec": entry["spec"]}


def changed(entry: dict[str, Any], **changes: Any) -> dict[str, Any]:
    new = {**entry, "generation": entry["generation"] + 1, "applied_spec": entry["spec"]}
    return {**new, "spec": {**entry["spec"], **changes}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    if os.geteuid() or lab("check", check=False).returncode:
        pytest.fail("a lab cannot be made here: see ops/lab check") if os.environ.get("CI") else pytest.skip(
            "no lab here"
        )
    lab("up", "3", "--bare")
    yield
    lab("down")


@pytest.fixture(scope="module")
def node(cluster: None) -> Iterator[Driver]:
    driver = Driver("node1", NODE)
    yield driver
    driver.close()


def page(name: str, path: str = "/", address: str = "10.77.0.11") -> tuple[int, str]:
    said = client(f"curl -s -m 10 -w '\\n%{{http_code}}' -H 'Host: {name}.example' 'http://{address}{path}'")
    body, _, status = said.rpartition("\n")
    return int(status), body


SSH = "-o LogLevel=ERROR -o PreferredAuthentications=password -o NumberOfPasswordPrompts=1"
#: The client machine's further addresses.
SOURCES = itertools.cycle(range(20, 61))


def came_from() -> str:
    """Each login comes from another address: OpenSSH 10 refuses one that has failed, for some seconds."""
    return f"-b 198.51.100.{next(SOURCES)}"


def shell(name: str, command: str, password: str = PASSWORD) -> str:
    return client(f"sshpass -p {password} ssh {SSH} {came_from()} {name}@10.77.0.11 '{command}'")


def sftp(name: str, commands: str, password: str = PASSWORD) -> str:
    options = f"-o BatchMode=no {SSH} -o BindAddress={came_from()[3:]}"
    return client(f"echo '{commands}' | sshpass -p {password} sftp {options} -b - {name}@10.77.0.11")


def write(name: str, path: str, content: str) -> None:
    """As the account itself would, on the node."""
    user = f"setpriv --reuid {name} --regid {name} --init-groups"
    lab("exec", "node1", "--", "bash", "-c", f"{user} bash -c 'cat >/home/{name}/home/{path}'", stdin=content)


WHO = "<?php echo posix_getuid(), ' ', $_SERVER['REMOTE_ADDR'];"


def test_create_serves_and_lets_in(node: Driver) -> None:
    difference = node.applied(account(1, "alice"))
    assert difference == {"home": "made", "user": "made", "access": "none -> shell", "php": "on", "site": "made"}
    status, body = page("alice")
    assert status == 200 and "This site is ready" in body
    assert shell("alice", "id -un; pwd").split() == ["alice", "/home/alice/home"]
    assert "denied" in shell("alice", "id", OTHER)
    write("alice", "web/who.php", WHO)
    assert page("alice", "/who.php") == (200, "20001 198.51.100.2")
    assert client("curl -s -o /dev/null -w %{http_code} -H 'Host: stranger.example' http://10.77.0.11/") == "421"


def test_htaccess_is_honoured(node: Driver) -> None:
    write(
        "alice",
        "web/.htaccess",
        "RewriteEngine On\nRewriteRule ^pretty/(\\d+)$ item.php?n=$1 [L]\nHeader set X-Own yes\n",
    )
    write("alice", "web/item.php", "<?php echo 'item ', $_GET['n'];")
    assert page("alice", "/pretty/42") == (200, "item 42")
    write("alice", "web/.htaccess", "")


def test_password_change_reloads_nothing(node: Driver) -> None:
    before = inside("node1", "ps -C apache2,php-fpm8.2,php-fpm8.4 -o pid= | sort")
    entry = changed(account(1, "alice"), password_hash=HASH[OTHER])
    assert node.applied(entry) == {"password": "changed"}
    assert shell("alice", "id -un", OTHER) == "alice"
    assert "denied" in shell("alice", "id", PASSWORD)
    assert inside("node1", "ps -C apache2,php-fpm8.2,php-fpm8.4 -o pid= | sort") == before
    node.applied(account(1, "alice", 3))


def test_access_follows_at_the_next_login(node: Driver) -> None:
    entry = account(1, "alice")
    now = changed(entry, access="sftp")
    assert node.applied(now) == {"access": "shell -> sftp"}
    assert "sftp connections only" in shell("alice", "id")
    assert "Remote working directory: /home" in sftp("alice", "pwd")
    assert "cannot" not in sftp("alice", "put /etc/hostname web/up.txt").lower()
    assert page("alice", "/up.txt") == (200, "client\n")
    last = changed(now, access="none")
    assert node.applied(last) == {"access": "sftp -> none"}
    assert "denied" in sftp("alice", "pwd").lower() + shell("alice", "id").lower()
    assert node.applied(changed(last, access="shell")) == {"access": "none -> shell"}
    assert shell("alice", "id -un") == "alice"


def test_lost_access_ends_running_sessions(node: Driver) -> None:
    entry = account(1, "alice")
    held = background("alice", "sleep 300")
    node.applied(changed(entry, access="none"))
    assert held.wait(10) != 0
    node.applied(entry)


def test_keys(node: Driver) -> None:
    inside("client", "test -f /tmp/k || ssh-keygen -q -t ed25519 -N '' -f /tmp/k")
    key = inside("client", "cat /tmp/k.pub")
    entry = account(1, "alice", ssh_keys=[key], password_hash=None)
    assert node.applied(entry) == {"password": "changed", "ssh keys": "made"}
    login = f"ssh {came_from()} -i /tmp/k -o BatchMode=yes -o LogLevel=ERROR alice@10.77.0.11 id -un"
    assert client(login) == "alice"
    assert "denied" in shell("alice", "id")
    assert node.applied(account(1, "alice")) == {"password": "changed", "ssh keys": "removed"}
    assert "denied" in client(login)


def background(name: str, command: str) -> subprocess.Popen[bytes]:
    words = ["ops/lab", "exec", "client", "--", "sshpass", "-p", PASSWORD, "ssh", *SSH.split(), *came_from().split()]
    null = subprocess.DEVNULL
    held = subprocess.Popen([*words, f"{name}@10.77.0.11", command], cwd=CHECKOUT, env=ENVIRONMENT,
                            stdin=null, stdout=null, stderr=null)  # fmt: skip
    deadline = time.monotonic() + 10
    while f"{command}" not in inside("node1", f"ps -u {name} -o args= || true"):
        assert time.monotonic() < deadline and held.poll() is None
        time.sleep(0.05)
    return held


def fingerprint() -> str:
    """Hashes of everything that onehost wrote, without what counts up."""
    script = (
        "cd /; for f in var/lib/extrausers/* etc/onehost/{apache,php/shard*}/live/*.*.conf etc/onehost/ssh/keys/*; "
    )
    return inside("node1", script + 'do [ -f "$f" ] && sha256sum "$f"; done; ls etc/onehost/apache/suspended')


def test_suspend_and_unsuspend(node: Driver) -> None:
    entry = account(1, "alice")
    node.applied(entry)
    write("alice", "web/slow.php", "<?php sleep(60);")
    before = fingerprint()
    held = background("alice", "sleep 300")
    slow = subprocess.Popen(["ops/lab", "exec", "client", "--", "curl", "-s", "-H", "Host: alice.example",
                             "http://10.77.0.11/slow.php"], cwd=CHECKOUT, env=ENVIRONMENT,
                            stdout=subprocess.DEVNULL)  # fmt: skip
    time.sleep(0.5)
    assert node.applied(changed(entry, suspended=True)) == {"suspended": "no -> yes"}
    status, body = page("alice")
    assert status == 503 and "not available" in body
    assert page("alice", "/who.php")[0] == 503
    assert held.wait(10) != 0
    slow.wait(10)
    assert "denied" in shell("alice", "id")
    # At most idle children that FPM put in the place of those that were ended.
    left = inside("node1", "ps -u 20001 -o args= || true").splitlines()
    assert set(left) <= {"php-fpm: pool alice"}
    assert node.applied(changed(entry, suspended=False)) == {"suspended": "yes -> no"}
    assert fingerprint() == before
    assert page("alice", "/who.php")[0] == 200
    assert shell("alice", "id -un") == "alice"


def test_site_changes_are_told_and_proved(node: Driver) -> None:
    entry = account(2, "bob", access="none")
    node.applied(entry)
    assert node.applied(changed(entry, domain="other.example")) == {"site": "bob.example -> other.example"}
    assert page("bob")[0] == 421 and page("other")[0] == 200
    assert node.applied(changed(entry, php=False)) == {"php": "off", "site": "other.example -> bob.example"}
    write("bob", "web/x.php", WHO)
    assert page("bob", "/x.php")[0] == 403
    assert node.applied(changed(entry, document_root="sites/new")) == {
        "document root": "made",
        "php": "on",
        "site": "changed",
    }
    assert "This site is ready" in page("bob")[1]
    # The pool stays: further domains of the account may need it.
    assert node.applied(changed(entry, domain=None)) == {"site": "removed"}
    assert page("bob")[0] == 421
    node.applied(removed(entry))


def test_delete_leaves_nothing_and_a_new_one_inherits_nothing(node: Driver) -> None:
    entry = account(3, "carol")
    node.applied(entry)
    write("carol", "web/secret.txt", "of the first carol")
    held = background("carol", "sleep 300")
    difference = node.applied(removed(entry))
    assert difference == {"home": "moved to the trash", "user": "removed", "php": "off", "site": "removed"}
    assert held.wait(10) != 0
    assert page("carol")[0] == 421
    left = (
        "getent passwd carol; getent group carol; ls -d /home/carol /run/onehost/php/carol.sock; ps -u 20003 -o args="
    )
    assert inside("node1", f"({left}) 2>/dev/null || true") == ""
    assert "carol.3." in inside("node1", "grep -rl . /home/.trash | head -3; ls /home/.trash")
    node.applied(account(4, "carol", replaces=3))
    assert page("carol", "/secret.txt")[0] == 404
    assert shell("carol", "id -u") == "20004"
    node.applied(removed(account(4, "carol")))


def test_a_name_made_again_replaces_what_was_never_removed_here(node: Driver) -> None:
    entry = account(
        5, "dave", ssh_keys=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0000000000000000000000000000000000000000000"]
    )
    node.applied(entry)
    write("dave", "web/old.txt", "old")
    held = background("dave", "sleep 300")
    refused = node.apply(account(7, "dave", replaces=4))[7]
    assert refused["outcome"] == "Permanent" and "id 5" in refused["reason"] and "orphan" in refused["reason"]
    assert held.poll() is None and page("dave", "/old.txt")[0] == 200
    difference = node.applied(account(7, "dave", replaces=5))
    assert difference["replaced"] == "id 5"
    assert held.wait(10) != 0
    assert page("dave", "/old.txt")[0] == 404
    assert shell("dave", "id -u") == "20007"
    assert inside("node1", "ls /etc/onehost/ssh/keys; ls /etc/onehost/apache/live | grep dave") == "dave.7.conf"
    # The first one's removal, late: it acts on its own id alone.
    assert node.applied(removed(entry)) == {}
    assert page("dave")[0] == 200
    node.applied(removed(account(7, "dave")))


def test_document_root_that_is_a_file_fails_alone(node: Driver) -> None:
    bad, good = account(10, "frank", domain=None), account(11, "grace")
    node.applied(bad)
    write("frank", "web", "I am a file")
    bad = changed(bad, domain="frank.example")
    outcomes = node.apply(bad, good)
    assert outcomes[10]["outcome"] == "Permanent"
    assert outcomes[10]["reason"] == "document root /home/frank/home/web is a file, not a folder"
    assert outcomes[11]["outcome"] == "applied"
    assert page("frank")[0] == 421 and page("grace")[0] == 200
    inside("node1", "rm /home/frank/home/web")
    node.applied(bad)
    node.applied(removed(bad), removed(good))


def test_links_lead_nowhere(node: Driver) -> None:
    victim, thief = account(12, "heidi"), account(13, "ivan")
    node.applied(victim, thief)
    write("heidi", "web/private.html", "heidi's own")
    inside("node1", "chmod 644 /home/heidi/home/web/private.html")
    user = "setpriv --reuid ivan --regid ivan --init-groups"
    inside("node1", f"{user} bash -c 'cd ~ivan; mv web old; ln -s /home/heidi/home/web web'")
    assert page("ivan", "/private.html")[0] == 403
    # A document root below a link is not made there.
    outcome = node.apply(changed(thief, document_root="web/made"))[13]
    assert outcome["reason"] == "document root /home/ivan/home/web/made lies behind a link"
    assert "made" not in inside("node1", "ls /home/heidi/home/web")
    # Nor is one of his own followed: who looks first and opens a moment later can be raced.
    inside("node1", f"{user} bash -c 'cd ~ivan; rm web; ln -s old web'")
    assert page("ivan")[0] == 403
    inside("node1", f"{user} bash -c 'cd ~ivan; rm web; mv old web'")
    assert page("ivan")[0] == 200
    node.applied(removed(victim), removed(thief))


ATTACKS = {
    "handler to the other's socket": '<FilesMatch "\\.php$">\nSetHandler "{socket}"\n</FilesMatch>',
    "proxy to the other's socket": 'RewriteEngine On\nRewriteRule ^evil.php$ "{file}" [P]',
    "forced handler": "RewriteEngine On\nRewriteRule ^evil.php$ - [H={socket}]",
    "forced type": "RewriteEngine On\nRewriteRule ^evil.php$ - [T={socket}]",
    "type as handler": 'AddType "{socket}" .php\nRemoveHandler .php',
    "options": "Options +ExecCGI +Includes +FollowSymLinks\nAddHandler cgi-script .php",
    "loopback": "RewriteEngine On\nRewriteRule ^evil.php$ http://127.0.0.1:80/ [P]",
    "status": "SetHandler server-status",
}


@pytest.fixture(scope="module")
def neighbours(node: Driver) -> Iterator[None]:
    victim, thief = account(14, "judy"), account(15, "mallory")
    node.applied(victim, thief)
    write("judy", "web/config.php", "<?php $secret = 'TOP SECRET';")
    inside("node1", "chmod 600 /home/judy/home/web/config.php")
    read = "<?php echo posix_getuid(), ini_get('open_basedir'), @file_get_contents('/home/judy/home/web/config.php');"
    write("mallory", "web/evil.php", read)
    inside("node1", "chmod 755 /home/mallory/home /home/mallory/home/web; chmod 644 /home/mallory/home/web/evil.php")
    yield
    node.applied(removed(victim), removed(thief))


@pytest.mark.parametrize("attack", ATTACKS)
def test_htaccess_cannot_leave_the_account(node: Driver, neighbours: None, attack: str) -> None:
    socket = "proxy:unix:/run/onehost/php/judy.sock|fcgi://localhost"
    file = "unix:/run/onehost/php/judy.sock|fcgi://localhost/home/mallory/home/web/evil.php"
    write("mallory", "web/.htaccess", ATTACKS[attack].format(socket=socket, file=file))
    status, body = page("mallory", "/evil.php")
    assert "SECRET" not in body and "20014" not in body, body
    assert status in (403, 500) or body.startswith("20015/home/mallory/"), (status, body)


@pytest.mark.parametrize("name", ["PHP_ADMIN_VALUE", "PHP_VALUE"])
def test_htaccess_cannot_loosen_the_pool(node: Driver, neighbours: None, name: str) -> None:
    rules = f'SetEnv {name} "open_basedir=/"\nRewriteEngine On\nRewriteRule ^ - [E={name}:open_basedir=/]'
    write("mallory", "web/.htaccess", rules)
    status, body = page("mallory", "/evil.php")
    assert (status, body.startswith("20015/home/mallory/:")) == (200, True), (status, body)


@pytest.mark.parametrize("daemon", ["apache", "php"])
def test_a_file_the_daemon_refuses_is_blamed_on_its_owner_alone(node: Driver, daemon: str) -> None:
    node.do("spoil", owner=21, name="bad", daemon=daemon, text="\nNonsense = yes\n")
    good, bad, more = account(20, "kim"), account(21, "lee"), account(22, "max")
    outcomes = node.apply(good, bad, more)
    assert outcomes[20]["outcome"] == outcomes[22]["outcome"] == "applied", outcomes
    assert outcomes[21]["outcome"] == "Permanent" and "lee.21.conf" in outcomes[21]["reason"], outcomes
    assert page("kim")[0] == page("max")[0] == 200 and page("lee")[0] == 421
    assert inside("node1", "getent passwd lee || true") == ""
    node.restart()
    assert node.apply(removed(good), removed(bad), removed(more))[21]["outcome"] == "applied"


def test_another_hand_in_the_live_configuration_blocks_and_blames_nobody(node: Driver) -> None:
    inside("node1", "echo Nonsense >/etc/apache2/conf-enabled/zzz-by-hand.conf")
    try:
        outcome = node.apply(account(23, "nina"))[23]
        assert outcome["outcome"] == "Blocked"
        assert "/etc/apache2/conf-enabled/zzz-by-hand.conf:1:" in outcome["reason"]
        assert page("alice")[0] == 200
        # A worker that starts now says the same and touches nothing.
        node.restart()
        assert node.apply(account(23, "nina"))[23]["outcome"] == "Blocked"
    finally:
        inside("node1", "rm /etc/apache2/conf-enabled/zzz-by-hand.conf")
    node.applied(account(23, "nina"))
    node.applied(removed(account(23, "nina")))


@pytest.mark.parametrize("daemon", ["php", "apache"])
def test_a_kill_between_switch_and_signal_is_finished_at_the_next_start(node: Driver, daemon: str) -> None:
    entry = account(24, "olga")
    died = node.do("apply", entries=[entry], die=daemon)
    assert died["died"] in (-9, 137)
    node.restart()
    if daemon == "apache":
        assert page("olga")[0] == 200
        assert node.apply(entry)[24]["difference"] == {}
    node.applied(entry)
    write("olga", "web/who.php", WHO)
    assert page("olga", "/who.php")[0] == 200
    node.applied(removed(entry))


def test_a_worker_without_memory_finds_all_as_it_is(node: Driver) -> None:
    node.applied(account(1, "alice"))
    pids = inside("node1", "ps -C apache2,php-fpm8.2,php-fpm8.4 -o pid= | sort")
    before = fingerprint()
    node.restart()
    assert node.applied(account(1, "alice")) == {}
    assert (fingerprint(), inside("node1", "ps -C apache2,php-fpm8.2,php-fpm8.4 -o pid= | sort")) == (before, pids)
    assert node.call("users.ids")["alice"] == 1


def test_php_masters_change_without_a_lost_request(node: Driver) -> None:
    load = subprocess.Popen(
        ["ops/lab", "exec", "client", "--", sys.executable, "tests/lab/load.py", "10.77.0.11", "80", "alice.example",
         "/who.php", "100", "6"], cwd=CHECKOUT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)  # fmt: skip
    time.sleep(0.5)
    for number in range(30, 35):
        node.applied(account(number, f"load{number}"))
    for number in range(30, 35):
        node.applied(removed(account(number, f"load{number}")))
    said = json.loads(load.communicate(timeout=60)[0])
    assert said["failed"] == [] and said["answered"] > 300, said
    masters = inside("node1", "ps -eo args= | grep -c '[m]aster process (/etc/onehost/php/shard0/live.conf)'")
    assert masters == "1"


SLOW = """
import socket, sys, time
clients = []
for _ in range(40):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("10.77.0.11", 80))
    client.sendall(b"GET /big HTTP/1.1\\r\\nHost: alice.example\\r\\n\\r\\n")
    clients.append(client)
for _ in range(40):
    alive = [bool(client.recv(200)) for client in clients]
    time.sleep(0.1)
print(alive.count(True))
"""


def test_slow_downloads_outlive_reloads_and_hold_nobody_up(node: Driver) -> None:
    inside("node1", "head -c 50000000 /dev/zero >/home/alice/home/web/big; chmod 644 /home/alice/home/web/big")
    words = ["ops/lab", "exec", "client", "--", sys.executable]
    slow, load = (
        subprocess.Popen([*words, *more], cwd=CHECKOUT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        for more in (["-c", SLOW], ["tests/lab/load.py", "10.77.0.11", "80", "alice.example", "/who.php", "50", "4"])
    )
    time.sleep(0.5)
    for number in range(50, 53):
        node.applied(account(number, f"during{number}"))
    assert slow.communicate(timeout=60)[0].strip() == "40"
    said = json.loads(load.communicate(timeout=60)[0])
    assert (said["failed"], said["answered"]) == ([], 200), said
    node.applied(*(removed(account(number, f"during{number}")) for number in range(50, 53)))


def test_all_sockets_and_masters_are_made_again_after_a_reboot(node: Driver) -> None:
    node.close()
    lab("reboot", "node1", "--bare")
    inside("node1", "rm -rf /run/onehost")
    node.restart()
    assert page("alice", "/who.php") == (200, "20001 198.51.100.2")
    assert node.applied(account(1, "alice")) == {}


def test_the_time_of_a_create(node: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    sums: dict[str, list[float]] = {}
    for number in range(40, 48):
        time.sleep(0.4)
        answer = node.do("apply", entries=[account(number, f"quick{number}")])
        for phase, seconds in answer["seconds"].items():
            sums.setdefault(phase, []).append(seconds)
    node.applied(*(removed(account(n, f"quick{n}")) for n in range(40, 48)))
    medians = {phase: sorted(values)[len(values) // 2] for phase, values in sums.items()}
    with capsys.disabled():
        print("\n" + "  ".join(f"{phase} {1000 * value:.1f} ms" for phase, value in medians.items() if value >= 0.0005))
    bare = []
    for _ in range(5):
        began = time.monotonic()
        inside("node1", ". /etc/apache2/envvars && apache2 -t")
        bare.append(time.monotonic() - began)
    assert medians["all"] < 8 * sorted(bare)[2], "it costs more than eight times what Apache takes to read its files"
