"""A client that knows one line of known_hosts is never warned, whichever node it meets; keys come and go alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.lab

VIP = "198.51.100.10"
ADDRESSES = ("10.77.0.11", "10.77.0.12", "10.77.0.13")
ALGORITHMS = {"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp256", "rsa": "rsa-sha2-512"}
KNOWN = "/root/known_hosts"


@pytest.fixture(scope="module")
def alice(lab: Any) -> Iterator[Any]:
    """The lab with an account that has a shell and, so far, no key; the client has two keys."""
    for name in ("one", "two"):
        lab.run("client", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"/root/{name}")
    lab.onehost("account", "create", "alice", "--domain", "alice.example", "--access", "shell", "--wait")
    lab.onehost("virtual-service", "create", "ssh", VIP, "22", "--role", "ssh", "--wait")
    know(lab)
    yield lab


def know(lab: Any, kind: str = "") -> None:
    """Gives the client's file anew: one line a kind, for every address."""
    lines = lab.onehost("identity", "known-hosts", "*")
    assert len(lines) == 3
    lab.run("client", "tee", KNOWN, stdin="\n".join(line for line in lines if kind in line) + "\n")


def public(lab: Any, name: str) -> str:
    return str(lab.run("client", "cat", f"/root/{name}.pub")).strip()


def ssh(lab: Any, address: str, command: str = "hostname", key: str = "one", *options: str) -> str:
    """What comes of a login by key, or what ssh says instead."""
    given = ["StrictHostKeyChecking=yes", f"UserKnownHostsFile={KNOWN}", "GlobalKnownHostsFile=/dev/null",
             "BatchMode=yes", "IdentitiesOnly=yes", "LogLevel=ERROR", *options]  # fmt: skip
    words = " ".join(f"-o {each}" for each in given)
    script = f"ssh {words} -i /root/{key} alice@{address} '{command}' 2>&1 </dev/null"
    return str(lab.run("client", "bash", "-c", script, check=False)).strip()


def test_every_node_shows_the_same_keys_and_lets_the_key_in(alice: Any) -> None:
    alice.onehost("ssh-key", "create", "alice.one", "alice", public(alice, "one"), "--wait")
    found = {address: ssh(alice, address) for address in ADDRESSES}
    assert found == dict(zip(ADDRESSES, ("node1", "node2", "node3"), strict=True))
    for algorithm in ALGORITHMS.values():
        for address in ADDRESSES:
            said = ssh(alice, address, "hostname", "one", f"HostKeyAlgorithms={algorithm}")
            assert said.startswith("node"), (algorithm, address, said)


def test_moved_from_node_to_node_at_one_address_without_a_word(alice: Any) -> None:
    know(alice, "ssh-ed25519")
    seen = set()
    for node in ("node1", "node2", "node3"):
        others = [each for each in alice.nodes if each != node]
        for other in others:
            alice.onehost("node", "cordon", other, "--wait")
        # A persistent client would stay where it was: each login is another client's.
        said = ssh(alice, VIP, "hostname", "one", f"BindAddress=198.51.100.{20 + int(node[4:])}")
        seen.add(said)
        for other in others:
            alice.onehost("node", "uncordon", other, "--wait")
    assert seen == {"node1", "node2", "node3"}
    know(alice)


def test_the_nodes_own_keys_are_shown_no_more(alice: Any) -> None:
    own = {alice.run(node, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()[1] for node in alice.nodes}
    shown = {alice.run("client", "bash", "-c", f"ssh-keyscan -t ed25519 {a} 2>/dev/null").split()[2] for a in ADDRESSES}
    spec = alice.onehost("identity", "show", "cluster")["spec"]
    assert shown == {spec["ssh_ed25519_public"].split()[1]} and not shown & own


def certificates(lab: Any) -> set[str]:
    """Fingerprints of what Apache and ProFTPD of all nodes show whom they know no name of."""
    found = set()
    for address in ADDRESSES:
        for port in ("443", "21 -starttls ftp"):
            asked = f"openssl s_client -connect {address}:{port} </dev/null 2>/dev/null"
            said = lab.run("client", "bash", "-c", f"{asked} | openssl x509 -noout -fingerprint -sha256")
            found.add(said.strip().rpartition("=")[2].replace(":", "").lower())
    return found


def test_unknown_names_are_served_with_one_certificate(alice: Any) -> None:
    assert certificates(alice) == {alice.onehost("identity", "show", "cluster")["spec"]["tls_fingerprint"]}


def test_keys_come_and_go_without_each_other(alice: Any) -> None:
    assert "Permission denied" in ssh(alice, VIP, "id", "two")
    alice.onehost("ssh-key", "create", "alice.two", "alice", public(alice, "two"), "--wait")
    assert ssh(alice, VIP, "id -un", "two") == "alice"
    alice.onehost("ssh-key", "set", "alice.two", "--from-networks", "192.0.2.0/24", "--wait")
    assert "Permission denied" in ssh(alice, VIP, "id", "two")
    alice.onehost("ssh-key", "set", "alice.two", "--from-networks", "198.51.100.0/24", "--sftp-only", "--wait")
    assert "sftp connections only" in ssh(alice, VIP, "id", "two")
    sftp = (
        f"echo pwd | sftp -q -b - -o StrictHostKeyChecking=yes -o UserKnownHostsFile={KNOWN} -i /root/two alice@{VIP}"
    )
    assert "/home/alice/home" in alice.run("client", "bash", "-c", sftp)
    # The account's own list comes last, so that it cannot lift a key's limits.
    alice.run("manager", "onehost", "account", "set", "alice", "--ssh-keys", "-", "--wait", stdin=public(alice, "two"))
    assert "sftp connections only" in ssh(alice, VIP, "id", "two")
    alice.onehost("ssh-key", "delete", "alice.two", "--yes", "alice.two", "--wait")
    assert ssh(alice, VIP, "id -un", "two") == "alice"
    alice.run("manager", "onehost", "account", "set", "alice", "--ssh-keys", "/dev/null", "--wait")
    assert "Permission denied" in ssh(alice, VIP, "id", "two")
    assert ssh(alice, VIP, "id -un", "one") == "alice"
    files = {node: alice.run(node, "cat", "/etc/onehost/ssh/keys/alice") for node in alice.nodes}
    assert len(set(files.values())) == 1


def test_keys_are_made_anew_while_a_session_runs(alice: Any) -> None:
    before = alice.onehost("identity", "show", "cluster")["spec"]
    options = f"-o StrictHostKeyChecking=yes -o UserKnownHostsFile={KNOWN} -o BatchMode=yes -i /root/one"
    session = alice.start(
        "client", "bash", "-c", f"ssh {options} alice@{ADDRESSES[0]} 'echo in; sleep 8; echo still in'"
    )
    assert session.stdout.readline() == "in\n"
    pid = alice.run("node1", "cat", "/run/sshd.pid").strip()
    alice.onehost("identity", "renew", "cluster", "--yes", "cluster", "--wait", "--reason", "seen by somebody")
    assert alice.run("node1", "cat", "/run/sshd.pid").strip() == pid, "sshd was restarted, not reloaded"
    assert "Host key verification failed" in ssh(alice, ADDRESSES[0])
    know(alice)
    assert {ssh(alice, address) for address in ADDRESSES} == {"node1", "node2", "node3"}
    assert session.communicate(timeout=20)[0] == "still in\n" and session.returncode == 0
    after = alice.onehost("identity", "show", "cluster")["spec"]
    assert before["ssh_rsa_public"] != after["ssh_rsa_public"]
    assert alice.onehost("identity", "set", "cluster", "--host-name", "cp.example.com", "--wait")
    named = alice.onehost("identity", "show", "cluster")["spec"]
    assert certificates(alice) == {named["tls_fingerprint"]}
    assert named["ssh_rsa_public"] == after["ssh_rsa_public"] and named["tls_fingerprint"] != after["tls_fingerprint"]
    assert alice.onehost("identity", "sshfp")[0].startswith("cp.example.com. IN SSHFP 4 2 ")


def test_no_private_key_in_records_or_logs_and_none_readable(alice: Any) -> None:
    said = [alice.onehost("audit", "list"), alice.onehost("job", "list"), alice.onehost("identity", "show", "cluster"),
            alice.onehost("get", "identity")]  # fmt: skip
    assert "PRIVATE" not in json.dumps(said)
    for machine in ("manager", *alice.nodes):
        assert alice.run(machine, "bash", "-c", "grep -rl PRIVATE /var/log || true").split() == []
    modes = alice.run(
        "node1", "bash", "-c", "stat -c %a /etc/onehost/ssh/host_*_key /etc/onehost/tls/default.pem"
    ).split()
    assert modes == ["600"] * 4
    assert "Permission denied" in ssh(alice, ADDRESSES[0], "cat /etc/onehost/ssh/host_rsa_key")


def test_a_wiped_node_shows_the_same_keys(alice: Any) -> None:
    alice.ops("kill", "node3")
    alice.ops("boot", "node3", "--wipe")
    said: list[str] = []

    def is_in() -> bool:
        said.append(ssh(alice, ADDRESSES[2]))
        return said[-1] == "node3"

    alice.wait(is_in, 90, "the wiped node did not come back")
    # Not even in its first moments did it show another key.
    assert not [each for each in said if "verification failed" in each], said
