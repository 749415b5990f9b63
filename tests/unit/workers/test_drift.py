"""Drift on a rehearsed machine: each edit of another hand is found, named, kept, put back; nothing is done unasked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onehost.workers.drift import Drift, StillDiffers
from onehost.workers.executor import Executor
from onehost.workers.host import Host
from onehost.workers.host.owned import Finding, mask
from onehost.workers.ledger import Ledger
from onehost.workers.reconcilers import reconcilers

from .conftest import letter

ROLES = ["storage", "web", "ssh"]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
HASH = "$6$" + "a" * 16 + "$" + "b" * 86


def spec(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "uid": 20000 + number, "gid": 20000 + number, "shard": 0, "password_hash": HASH, "access": "shell",
        "ssh_keys": [f"{KEY} me"], "suspended": False, "domain": f"user{number}.example", "document_root": "web",
        "php": True, **changes,
    }  # fmt: skip


class Node:
    """A ledger and a machine that is a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "machine"
        self.host = Host.rehearsal(self.folder)
        self.ledger = Ledger(folder / "ledger.db")
        self.host.recover(frozenset(ROLES))
        self.host.start(frozenset(ROLES))
        self.executor = Executor(self.ledger, self.host, reconcilers(), threading.Event(), reported=lambda: None,
                                 ready=lambda: None, serve=lambda: None)  # fmt: skip
        self.drift = Drift(self.ledger, self.host, reconcilers(), self.executor.round, lambda: frozenset(ROLES))

    def want(self, number: int, generation: int = 1, **changes: Any) -> None:
        wanted = None if changes.get("gone") else spec(number, **changes)
        self.ledger.store([letter(number, generation, spec=wanted, roles=ROLES)])
        results = self.executor.round(self.ledger.take())
        assert [result.outcome for result in results] == ["applied"], results

    def path(self, absolute: str) -> Path:
        return self.folder / absolute.lstrip("/")

    def live(self, daemon: str, name: str) -> Path:
        return (self.path(f"/etc/onehost/{daemon}/live").resolve()) / name

    def edit(self, absolute: str, change: Callable[[str], str]) -> None:
        place = self.path(absolute)
        place.write_text(change(place.read_text()))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    for number in (5, 6, 7):
        made.want(number, suspended=number == 7)
    yield made
    made.ledger.close()


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path.relative_to(folder)): (path.lstat().st_mode, path.read_bytes())
            for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()}  # fmt: skip


def rename_row(text: str) -> str:
    return text.replace("user5:x:20005:20005", "user5:x:20005:33")


EDITS: dict[str, tuple[Callable[[Node], Any], str, str]] = {
    "site changed": (lambda n: n.live("apache", "user5.5.conf").write_text("Listen 81\n"), "user5.5.conf", "changed"),
    "site removed": (lambda n: n.live("apache", "user5.5.conf").unlink(), "user5.5.conf", "is missing"),
    "site added": (lambda n: n.live("apache", "evil.99.conf").write_text("x"), "evil.99.conf", "not onehost's"),
    "odd file added": (lambda n: n.live("apache", "foo").write_text("x"), "/foo", "not onehost's"),
    "mode": (lambda n: n.live("apache", "user5.5.conf").chmod(0o666), "user5.5.conf", "mode 0666 instead of 0644"),
    "link": (
        lambda n: (place := n.live("apache", "user5.5.conf")).unlink() or place.symlink_to("/etc/passwd"),
        "user5.5.conf", "is a link to /etc/passwd",
    ),
    "pool": (lambda n: n.live("php/shard0", "user5.5.conf").write_text("[x]\n"), "shard0", "is changed"),
    "shard": (lambda n: n.path("/etc/onehost/php/shard0/live.conf").write_text("x"), "live.conf", "is changed"),
    "row changed": (lambda n: n.edit("/var/lib/extrausers/passwd", rename_row), "passwd", "changed row of user5"),
    "row removed": (
        lambda n: n.edit("/var/lib/extrausers/passwd", lambda t: "".join(t.splitlines(keepends=True)[1:])),
        "passwd", "no row of user5",
    ),
    "row added": (
        lambda n: n.edit("/var/lib/extrausers/passwd", lambda t: t + "root2:x:0:0:onehost 99:/:/bin/sh\n"),
        "passwd", "row of root2",
    ),
    "password": (lambda n: n.edit("/var/lib/extrausers/shadow", lambda t: t.replace("b" * 86, "c" * 86, 1)),
                 "shadow", "changed row of user5"),
    "group": (lambda n: n.edit("/var/lib/extrausers/group", lambda t: t.replace(":user5,", ":")),
              "group", "changed row of oh-shell"),
    "key": (lambda n: n.edit("/etc/onehost/ssh/keys/user5", lambda t: t + f"{KEY} evil\n"), "keys/user5", "is changed"),
    "keys added": (lambda n: n.path("/etc/onehost/ssh/keys/root").write_text(KEY), "keys/root", "not onehost's"),
    "flag removed": (lambda n: n.path("/etc/onehost/apache/suspended/7").unlink(), "", "no -> yes"),
    "flag added": (lambda n: n.path("/etc/onehost/apache/suspended/5").touch(), "", "yes -> no"),
    "flag of nobody": (lambda n: n.path("/etc/onehost/apache/suspended/99").touch(), "suspended/99", "not onehost's"),
    "home": (lambda n: n.path("/home/user5").rename(n.path("/root-moved")), "", "home: made"),
    "server": (lambda n: n.path("/etc/apache2/conf-enabled/zz-onehost.conf").write_text("TraceEnable On\n"),
               "zz-onehost.conf", "is changed"),
    "guard": (lambda n: n.path("/etc/onehost/apache/guard.lua").unlink(), "guard.lua", "is missing"),
    "sshd": (lambda n: n.path("/etc/ssh/sshd_config.d/onehost.conf").write_text("PermitRootLogin yes\n"),
             "sshd_config.d/onehost.conf", "is changed"),
}  # fmt: skip


def about(found: list[Finding]) -> str:
    return "\n".join(f"{each.path} {each.what} {each.resource}" for each in found)


def test_nothing_differs_after_rounds(node: Node) -> None:
    assert node.drift.find() == []
    node.want(6, 2, gone=True)
    assert node.drift.find() == []


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_found_kept_as_it_is_and_put_back_when_asked(node: Node, edit: str) -> None:
    before = tree(node.folder)
    act, path, words = EDITS[edit]
    act(node)
    edited = tree(node.folder)
    found = node.drift.find()
    assert any(path in each.path and words in each.what for each in found), about(found)
    assert len(found) == (2 if edit == "group" else 1), about(found)
    assert tree(node.folder) == edited, "looking changes nothing"
    assert not any(daemon.changed() for daemon in node.host.daemons), "and leaves nothing staged"
    assert "$6$" not in str(found)
    node.drift.repair()
    assert node.drift.find() == []
    after = tree(node.folder)
    kept = [name for name in after if name.startswith("var/lib/onehost/kept/")]
    for name, (mode, content) in before.items():
        if "/trees/" not in name and "signalled" not in name and not name.startswith("home/"):
            assert after[name] == (mode, content), name
    if edited.keys() >= before.keys() and any(edited[name][1] != content for name, (_, content) in before.items()):
        assert any(after[name][1] in {c for _, c in edited.values()} - {c for _, c in before.values()} for name in kept)


def test_what_is_overwritten_is_named_and_can_be_read_by_root_alone(node: Node) -> None:
    node.live("apache", "user5.5.conf").write_text("Listen 81\n")
    did = node.drift.repair()
    path = next(path for path in did if "user5.5.conf" in path)
    assert did[path] == "is changed: put back, what was there is kept"
    place = node.path(did["kept in"] + path)
    assert place.read_text() == "Listen 81\n" and place.stat().st_mode & 0o77 == 0


def test_a_diff_is_short_and_shows_no_secret(node: Node) -> None:
    node.edit("/etc/onehost/ssh/keys/user5", lambda text: text + f"password={HASH}\n" * 100)
    found = node.drift.find()[0]
    assert f"+{KEY}" not in found.diff and HASH not in found.diff and "password=***" in found.diff
    assert len(found.diff.splitlines()) <= 21 and "lines more" in found.diff


def test_a_change_says_what_another_hand_had_done(node: Node) -> None:
    node.live("apache", "user5.5.conf").write_text("Listen 81\n")
    node.want(5, 2, access="sftp")
    ack = node.ledger.outgoing.unpublished()[-1]["body"]
    assert b"by hand" in ack and b"user5.5.conf is changed; what was there is kept in" in ack
    node.want(5, 3, access="shell")
    assert b"by hand" not in node.ledger.outgoing.unpublished()[-1]["body"]


def test_one_file_taken_away_holds_nobody_else_up(node: Node) -> None:
    node.live("apache", "user6.6.conf").unlink()
    node.want(5, 2, domain="other.example")
    assert "user6.6.conf" in about(node.drift.find())


def test_what_a_noun_can_say_is_adopted_and_the_rest_says_why_not(node: Node) -> None:
    node.edit("/etc/onehost/ssh/keys/user5", lambda text: text + f"{KEY} mine\n")
    node.edit("/var/lib/extrausers/shadow", lambda text: text.replace("b" * 86, "c" * 86, 1))
    node.live("apache", "foo").write_text("x")
    told = {each["name"]: each for each in node.drift.adoptable()}
    assert told["user5"]["fields"] == {"ssh_keys": [f"{KEY} me", f"{KEY} mine"]}
    assert "account passwd" in told["user5"]["why_not"] and told[""]["why_not"]
    assert "ccc" not in str(told)


def test_what_cannot_be_put_back_is_said(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.live("apache", "user5.5.conf").write_text("Listen 81\n")
    monkeypatch.setattr(node.drift, "_round", lambda entries: [])
    with pytest.raises(StillDiffers, match="1 of 1") as caught:
        node.drift.repair()
    assert "kept in" in caught.value.did


@pytest.mark.parametrize("text", [
    "hash $6$abcdefgh$" + "x" * 86, "Authorization: Basic dXNlcjpwYXNz", "password = hunter22", '{"token": "abcdef"}',
    "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----",
])  # fmt: skip
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    said = mask(text)
    assert "***" in said
    assert not any(secret in said for secret in ("xxxx", "dXNl", "hunter22", 'abcdef"', "MIIE"))


def test_a_start_keeps_what_stands_in_place_of_its_own_files(node: Node) -> None:
    places = ["/etc/apache2/conf-enabled/zz-onehost.conf", "/etc/onehost/php/shard0/live.conf"]
    for place in places:
        node.path(place).write_text("TraceEnable On\n")
    Host.rehearsal(node.folder).recover(frozenset(ROLES))
    kept = [path for path in node.path("/var/lib/onehost/kept").rglob("*") if path.is_file()]
    assert [path.read_text() for path in kept] == ["TraceEnable On\n"] * 2
    assert node.drift.find() == []
