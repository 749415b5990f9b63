"""Certificates by a real client: what is shown for a name before and after, on each node, and what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lab

ADDRESSES = ("10.77.0.11", "10.77.0.12", "10.77.0.13")
FOLDER = "/root/pki"


def sign(lab: Any, name: str, issuer: str, names: str = "", days: int = 30, kind: str = "ec") -> None:
    """A key and a certificate in the manager's folder, signed by `issuer` or by itself."""
    new = "rsa -pkeyopt rsa_keygen_bits:2048" if kind == "rsa" else "ec -pkeyopt ec_paramgen_curve:P-256"
    san = f"subjectAltName={names}" if names else ""
    by = f"-CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial" if issuer != name else f"-signkey {name}.key"
    script = (
        f"mkdir -p {FOLDER} && cd {FOLDER} && openssl genpkey -quiet -algorithm {new} -out {name}.key 2>/dev/null && "
        f"openssl req -new -key {name}.key -subj /CN={name} -out {name}.csr && "
        f"openssl x509 -req -in {name}.csr {by} -days {days} -out {name}.crt "
        f"-extfile <(printf 'basicConstraints=critical,CA:{'FALSE' if names else 'TRUE'}\\n{san}\\n') 2>/dev/null"
    )
    lab.run("manager", "bash", "-c", script)


@pytest.fixture(scope="module")
def shop(lab: Any) -> Iterator[Any]:
    """The lab with two accounts with a site each, and an authority of two levels."""
    for name in ("alice", "bob"):
        lab.onehost("account", "create", name, "--domain", f"{name}.example", "--wait")
    sign(lab, "root", "root")
    sign(lab, "middle", "root")
    for name, kind in (("first", "ec"), ("second", "rsa")):
        sign(lab, name, "middle", "DNS:alice.example,DNS:*.alice.example", kind=kind)
        lab.run("manager", "bash", "-c", f"cd {FOLDER}; cat {name}.crt middle.crt >{name}.pem")
    lab.run("client", "tee", "/root/ca.crt", stdin=lab.run("manager", "cat", f"{FOLDER}/root.crt"))
    yield lab


def shown(lab: Any, name: str, address: str = ADDRESSES[0]) -> str:
    """The subject of the certificate that is shown for a name, and whether the client's authority vouches for it."""
    script = (
        f"openssl s_client -connect {address}:443 -servername {name} -CAfile /root/ca.crt </dev/null 2>/dev/null "
        "| sed -n 's/^subject=CN *= */ /p; s/^ *Verify return code: \\([0-9]*\\).*/\\1/p'"
    )
    return " ".join(lab.run("client", "bash", "-c", script).split()[:2])


def upload(lab: Any, verb: str, name: str, *more: str) -> Any:
    files = ("--certificate", f"{FOLDER}/{name}.pem", "--key", f"{FOLDER}/{name}.key")
    return lab.onehost("certificate", verb, "alice.example", *more, *files, "--wait")


def test_self_signed_uploaded_replaced_removed(shop: Any) -> None:
    before = shown(shop, "alice.example")
    assert before not in ("alice.example 18", "first 0")
    shop.onehost("certificate", "create", "alice.example", "alice", "--wait")
    assert {shown(shop, "alice.example", each) for each in ADDRESSES} == {"alice.example 18"}
    for name in ("first", "second"):
        upload(shop, "upload", name)
        for each in ADDRESSES:
            assert (shown(shop, "alice.example", each), shown(shop, "www.alice.example", each)) == (f"{name} 0",) * 2
        assert shown(shop, "bob.example") == before
    page = shop.run("client", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{ssl_verify_result}", "--cacert",
                    "/root/ca.crt", "--resolve", "alice.example:443:10.77.0.12", "https://alice.example/")  # fmt: skip
    assert page == "200 0"
    found = shop.onehost("certificate", "show", "alice.example")["spec"]
    assert found["names"] == ["alice.example", "*.alice.example"] and found["issuer"] == "CN=middle"
    shop.onehost("certificate", "self-sign", "alice.example", "--wait")
    assert shown(shop, "alice.example") == "alice.example 18"
    shop.onehost("certificate", "delete", "alice.example", "--yes", "alice.example", "--wait")
    assert {shown(shop, "alice.example", each) for each in ADDRESSES} == {before}
    assert shop.run("node1", "ls", "/etc/onehost/tls/live") == ""


def said(lab: Any, *words: str) -> str:
    enter = ("exec", "--name", lab.name, "manager", "--", "onehost", "certificate", *words)
    command = [Path(__file__).resolve().parents[2] / "ops" / "lab", *enter]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (2, 3), done
    return done.stderr


def test_what_does_not_serve_is_refused_and_nothing_changes(shop: Any) -> None:
    sign(shop, "late", "middle", "DNS:alice.example", days=1)
    create = ("create", "alice.example", "alice")
    file = {name: f"{FOLDER}/{name}" for name in ("first.pem", "first.key", "second.key", "middle.crt", "middle.key")}
    before = shop.onehost("job", "list")
    for words, why in (
        ((*create, "--certificate", file["first.pem"], "--key", file["second.key"]), "does not belong"),
        ((*create, "--certificate", file["middle.crt"], "--key", file["middle.key"]), "not for alice.example"),
        ((*create, "--certificate", file["first.pem"]), "key"),
        ((*create, "--certificate", file["first.key"], "--key", file["first.key"]), "not a certificate"),
        (("create", "bob.example", "alice"), "no domain of account alice"),
        (("create", "nobody.example", "alice"), "no domain of account alice"),
    ):
        assert why in said(shop, *words), words
    assert shop.onehost("job", "list") == before


def test_the_key_is_nowhere_but_in_its_file(shop: Any) -> None:
    upload(shop, "create", "first", "alice")
    line = shop.run("manager", "sed", "-n", "2p", f"{FOLDER}/first.key").strip()
    assert len(line) > 40
    for machine, places in (("manager", "/var/log /run"), ("node1", "/var/log /run")):
        assert shop.run(machine, "bash", "-c", f"grep -rlF '{line}' {places} 2>/dev/null || true") == ""
    for words in (
        ("audit", "list"),
        ("job", "list"),
        ("certificate", "show", "alice.example"),
        ("certificate", "list"),
    ):
        assert line not in json.dumps(shop.onehost(*words))
    held = shop.run(
        "node1", "bash", "-c", f"grep -rlF '{line}' /etc 2>/dev/null; stat -c '%a %U' /etc/onehost/tls/live/*"
    )
    assert held.split() == [shop.run("node1", "bash", "-c", "echo /etc/onehost/tls/live/*").strip(), "600", "root"]


def test_one_that_ends_soon_shows_in_the_status(shop: Any) -> None:
    sign(shop, "late", "middle", "DNS:alice.example", days=3)
    shop.run("manager", "bash", "-c", f"cd {FOLDER}; cat late.crt middle.crt >late.pem")
    upload(shop, "upload", "late")
    assert "certificate alice.example expires in" in json.dumps(shop.onehost("status"))
    assert shown(shop, "alice.example") == "late 0"


def test_the_account_takes_its_certificates_along(shop: Any) -> None:
    shop.onehost("account", "delete", "alice", "--yes", "alice", "--wait")
    shop.wait(shop.is_quiet)
    for node in shop.nodes:
        assert shop.run(node, "ls", "/etc/onehost/tls/live") == ""
