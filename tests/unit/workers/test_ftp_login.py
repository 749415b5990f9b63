"""FTP logins and certificates on a rehearsed machine: differences in words, the account's lock, drift put back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onehost.models import self_signed
from onehost.workers.drift import Drift
from onehost.workers.executor import Executor
from onehost.workers.host import Host
from onehost.workers.ledger import Ledger
from onehost.workers.outgoing import Result
from onehost.workers.reconcilers import reconcilers

from .conftest import letter

ROLES = ["storage", "web", "ftp"]
HASH = "$6$" + "a" * 16 + "$" + "b" * 86
ACCOUNT = {
    "uid": 20005, "gid": 20005, "shard": 0, "password_hash": HASH, "access": "sftp", "ssh_keys": [], "ftp": True,
    "suspended": False, "domain": "alice.example", "document_root": "web", "php": True,
}  # fmt: skip
LOGIN = {
    "account": "alice", "account_id": 5, "uid": 20005, "gid": 20005, "folder": "web/up", "read_only": False,
    "suspended": False, "password_hash": HASH,
}  # fmt: skip


class Node:
    """A ledger and a machine that is a folder."""

    def __init__(self, folder: Path) -> None:
        self.host, self.ledger = Host.rehearsal(folder / "machine"), Ledger(folder / "ledger.db")
        self.host.recover(frozenset(ROLES))
        self.host.start(frozenset(ROLES))
        known = reconcilers()
        self.executor = Executor(self.ledger, self.host, known, threading.Event(), reported=lambda: None,
                                 ready=lambda: None, serve=lambda: None)  # fmt: skip
        self.drift = Drift(self.ledger, self.host, known, self.executor.round, lambda: frozenset(ROLES))
        self.generation = 0

    def round(self, *letters: dict[str, Any]) -> list[Result]:
        self.generation += 1
        self.ledger.store([letter(generation=self.generation, roles=ROLES, **each) for each in letters])
        return self.executor.round(self.ledger.take())

    def want(self, id_: int, noun: str, name: str, spec: dict[str, Any] | None, **more: Any) -> dict[str, str]:
        (result,) = self.round({"entry_id": id_, "noun": noun, "name": name, "spec": spec, **more})
        assert result.outcome == "applied", result
        return dict(result.difference)

    def rows(self) -> dict[str, str]:
        """Login to the marks before its hash."""
        text = self.host.machine.path("/etc/onehost/ftp/users").read_text()
        return {(row := line.split(":"))[0]: row[1].partition("$")[0] for line in text.splitlines()}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    made.want(5, "account", "alice", ACCOUNT)
    yield made
    made.ledger.close()


def test_differences_in_words(node: Node) -> None:
    def want(**changes: Any) -> dict[str, str]:
        return node.want(6, "ftp_login", "alice.up", LOGIN | changes)

    assert want() == {"folder": "made", "login": "made"}
    assert node.host.machine.path("/home/alice/home/web/up").is_dir()
    assert not list(node.host.machine.path("/home/alice/home/web/up").iterdir())
    assert want() == {}
    assert want(read_only=True, folder=None) == {"read_only": "no -> yes", "folder": "web/up -> the whole home"}
    assert want(read_only=True, folder=None, password_hash=HASH[:-1] + "c") == {"password": "changed"}
    assert want(read_only=True, folder=None, suspended=True, password_hash=HASH[:-1] + "c") == {
        "suspended": "no -> yes"
    }
    assert node.want(6, "ftp_login", "alice.up", None) == {"login": "removed"}
    assert node.rows() == {"alice": ""}


def test_it_comes_with_its_account_in_one_round(node: Node) -> None:
    bob = ACCOUNT | {"uid": 20008, "gid": 20008, "domain": "bob.example"}
    its = LOGIN | {"account": "bob", "account_id": 8, "uid": 20008, "gid": 20008}
    results = node.round({"entry_id": 9, "noun": "ftp_login", "name": "bob.up", "spec": its},
                         {"entry_id": 8, "name": "bob", "spec": bob})  # fmt: skip
    assert {result.outcome for result in results} == {"applied"}, results
    assert node.rows() == {"alice": "", "bob": "", "bob.up": ""}


def test_it_waits_for_its_account(node: Node) -> None:
    its = LOGIN | {"account": "carol", "account_id": 50, "folder": None}
    (result,) = node.round({"entry_id": 9, "noun": "ftp_login", "name": "carol.up", "spec": its})
    assert result.outcome == "retrying" and "carol of id 50" in result.reason


def test_the_account_locks_all_of_its_rows_and_gives_them_back(node: Node) -> None:
    node.want(6, "ftp_login", "alice.up", LOGIN | {"suspended": True})
    node.want(7, "ftp_login", "alice.down", LOGIN)
    assert node.want(5, "account", "alice", ACCOUNT | {"suspended": True}) == {"suspended": "no -> yes"}
    node.want(10, "ftp_login", "alice.late", LOGIN)
    assert node.rows() == {"alice": "*", "alice.up": "*!", "alice.down": "*", "alice.late": "*"}
    assert node.want(5, "account", "alice", ACCOUNT) == {"suspended": "yes -> no"}
    assert node.rows() == {"alice": "", "alice.up": "!", "alice.down": "", "alice.late": ""}
    assert node.want(5, "account", "alice", ACCOUNT | {"ftp": False}) == {"ftp": "removed"}
    assert "alice" not in node.rows()


def test_an_account_removed_before_its_logins_leaves_them_locked(node: Node) -> None:
    node.want(6, "ftp_login", "alice.up", LOGIN)
    node.want(5, "account", "alice", None)
    assert node.rows() == {"alice.up": "*"}
    node.want(6, "ftp_login", "alice.up", None)
    assert node.rows() == {} and not node.host.ftp.is_locked(20005)


def test_a_name_made_again_replaces_the_older_id_and_no_other(node: Node) -> None:
    node.want(6, "ftp_login", "alice.up", LOGIN)
    node.generation += 1
    (result,) = node.round({"entry_id": 11, "noun": "ftp_login", "name": "alice.up", "spec": LOGIN, "replaces": 4})
    assert result.outcome == "failed" and "orphan" in result.reason
    assert node.want(12, "ftp_login", "alice.up", LOGIN, replaces=6)["replaced"] == "id 6"
    assert node.host.ftp.holders("alice.up") == {12}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("web/up", "web"),
        lambda text: text.replace("alice.up:", "alice.up:!"),
        lambda text: "".join(line for line in text.splitlines(True) if "alice.up" not in line),
        lambda text: text + "toor:x:0:0::/:/bin/sh\n",
        lambda text: (
            text + text.splitlines()[0].replace("alice:", "mallory:").replace("onehost 5", "onehost 77") + "\n"
        ),
        lambda text: text.replace(HASH, "$6$x$y"),
    ],
)
def test_an_edited_row_is_found_and_put_back(node: Node, change: Any) -> None:
    node.want(6, "ftp_login", "alice.up", LOGIN)
    assert node.drift.find() == []
    place = node.host.machine.path("/etc/onehost/ftp/users")
    before = place.read_text()
    place.write_text(change(before))
    assert node.drift.find() and HASH not in str(node.drift.find())
    node.drift.repair()
    assert place.read_text() == before and node.drift.find() == []


def certificate() -> dict[str, Any]:
    made = self_signed.made("alice.example")
    return {"account": "alice", "account_id": 5, "key": made.key, "certificate": made.certificate}


def test_a_certificate_on_its_node(node: Node) -> None:
    live = node.host.machine.path("/etc/onehost/tls/live/alice.example.5.pem")
    first, second = certificate(), certificate()
    assert node.want(6, "certificate", "alice.example", first) == {"certificate": "made"}
    assert first["key"] in live.read_text() and node.want(6, "certificate", "alice.example", first) == {}
    assert node.want(6, "certificate", "alice.example", second) == {"certificate": "changed"}
    assert node.drift.find() == []
    live.write_text("edited")
    found = node.drift.find()
    assert found and "PRIVATE" not in str(found)
    node.drift.repair()
    assert second["key"] in live.read_text()
    assert node.want(7, "certificate", "alice.example", first, replaces=6)["replaced"] == "id 6"
    assert node.want(7, "certificate", "alice.example", None) == {"certificate": "removed"}
    assert not live.exists()
