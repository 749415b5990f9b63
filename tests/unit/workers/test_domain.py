"""The domain reconciler on a rehearsed machine: differences in words, and nothing to do the second time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from onehost.models.errors import Permanent, Temporary
from onehost.workers.entry import Difference, Entry, View
from onehost.workers.host import Host
from onehost.workers.reconcilers import reconcilers

KNOWN = reconcilers()
ALL = frozenset({"web", "ssh", "storage"})
ACCOUNT = Entry(5, "account", "alice", 1, {
    "uid": 20001, "gid": 20001, "shard": 0, "password_hash": "$6$a$b", "access": "none", "ssh_keys": [],
    "suspended": False, "domain": None, "document_root": "web", "php": True,
}, roles=ALL)  # fmt: skip
SPEC: dict[str, Any] = {
    "account": "alice", "account_id": 5, "uid": 20001, "gid": 20001, "document_root": None, "aliases": [],
    "redirect": None, "redirect_status": 301, "php": True, "php_settings": [], "protected_paths": [],
    "protected_users": [], "override": [], "consent_of": None, "suspended": False,
}  # fmt: skip
ENTRY = Entry(9, "domain", "shop.example", 1, SPEC, roles=ALL)


class Nothing:
    def all(self, noun: str) -> list[Entry]:
        return []


VIEW: View = Nothing()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host.rehearsal(tmp_path)
    host.recover(ALL)
    host.start(ALL)
    return host


def apply(host: Host, *entries: Entry) -> Difference:
    """A round; the difference of the last entry."""
    difference = [KNOWN[entry.noun].compare(entry, host, VIEW) for entry in entries][-1]
    for step in ("prepare", "stage"):
        for entry in entries:
            getattr(KNOWN[entry.noun], step)(entry, host, VIEW)
    for daemon in host.daemons:
        if daemon.changed():
            daemon.validate()
            daemon.switch()
            daemon.signal()
    for step in ("finish", "verify"):
        for entry in entries:
            getattr(KNOWN[entry.noun], step)(entry, host, VIEW)
    for daemon in host.daemons:
        daemon.settle()
    assert [KNOWN[entry.noun].compare(entry, host, VIEW) for entry in entries] == [{}] * len(entries)
    return difference


def after(entry: Entry, **changes: Any) -> Entry:
    spec = {**(entry.spec or {}), **changes}
    return replace(entry, generation=entry.generation + 1, spec=spec, applied_spec=entry.spec)


def gone(entry: Entry) -> Entry:
    return replace(entry, generation=entry.generation + 1, spec=None, applied_spec=entry.spec)


def test_made_changed_suspended_removed(host: Host) -> None:
    apply(host, ACCOUNT)
    assert apply(host, ENTRY) == {"document root": "made", "site": "made"}
    assert (host.homes.folder / "alice/home/shop.example/index.html").exists()
    assert apply(host, after(ENTRY, override=["# mine"])) == {"override": "made", "site": "changed"}
    users = {"protected_paths": ["/a"], "protected_users": ["ann:$6$x"]}
    assert apply(host, after(ENTRY, **users)) == {
        "override": "removed", "site": "changed", "protected users": "made",
    }  # fmt: skip
    assert apply(host, ENTRY) == {"site": "changed", "protected users": "removed"}
    assert apply(host, after(ENTRY, suspended=True)) == {"suspended": "no -> yes"}
    assert host.apache.suspended(9)
    assert apply(host, ENTRY) == {"suspended": "yes -> no"}
    assert apply(host, gone(ENTRY)) == {"site": "removed"}
    assert host.apache.tree.owners() == frozenset() and not host.apache.suspended(9)
    assert (host.homes.folder / "alice/home/shop.example").is_dir()


def test_it_comes_with_its_account_in_one_round_and_waits_without(host: Host) -> None:
    with pytest.raises(Temporary, match="/home/alice of id 5 is not here"):
        apply(host, ENTRY)
    assert apply(host, ACCOUNT, ENTRY)["site"] == "made"
    assert apply(host, gone(ENTRY), gone(ACCOUNT))["user"] == "removed"


def test_a_web_node_waits_for_the_user(host: Host) -> None:
    host.homes.make("alice", 5, 0, 0, None)
    entry = replace(ENTRY, roles=frozenset({"web"}))
    with pytest.raises(Temporary, match="account alice of id 5 is not on this node yet"):
        apply(host, entry)
    # Another one of that name is another account.
    host.homes.trash("alice", 5, datetime.now(UTC))
    host.homes.make("alice", 6, 0, 0, None)
    with pytest.raises(Temporary, match="/home/alice of id 5 is not here"):
        apply(host, entry)


def test_a_storage_node_has_folders_alone(host: Host) -> None:
    storage = frozenset({"storage"})
    apply(host, replace(ACCOUNT, roles=storage))
    assert apply(host, replace(ENTRY, roles=storage)) == {"document root": "made"}
    assert host.apache.tree.owners() == frozenset()


def test_an_account_has_its_pool_and_its_flag_without_a_site(host: Host) -> None:
    assert apply(host, ACCOUNT)["php"] == "on"
    assert apply(host, after(ACCOUNT, suspended=True)) == {"suspended": "no -> yes"}
    assert host.apache.suspended(5)
    apply(host, gone(ACCOUNT))
    assert not host.apache.suspended(5)


def test_a_redirect_needs_no_folder_and_a_file_in_its_place_fails(host: Host) -> None:
    apply(host, ACCOUNT)
    (host.homes.folder / "alice/home/shop.example").write_text("")
    moved = after(ENTRY, redirect="https://b.example")
    assert apply(host, moved) == {"site": "made"}
    with pytest.raises(Permanent, match=r"shop\.example is a file, not a folder"):
        apply(host, after(moved, redirect=None))


def test_what_a_tenant_does_at_home_cannot_stop_a_suspension(host: Host) -> None:
    apply(host, ACCOUNT, ENTRY)
    root = host.homes.folder / "alice/home/shop.example"
    (root / "index.html").unlink()
    root.rmdir()
    root.write_text("a file now")
    assert apply(host, after(ENTRY, suspended=True)) == {"suspended": "no -> yes"}


def test_a_name_made_again(host: Host) -> None:
    apply(host, ACCOUNT, ENTRY)
    new = replace(ENTRY, id=12)
    with pytest.raises(Permanent, match="id 9, an orphan"):
        apply(host, new)
    assert apply(host, replace(new, replaces=9)) == {"replaced": "id 9", "site": "made"}
    assert apply(host, gone(ENTRY)) == {}
    assert host.apache.tree.owners() == {12}


def test_a_removal_that_fails_half_way_serves_nothing(host: Host) -> None:
    apply(host, ACCOUNT, ENTRY)
    KNOWN["domain"].prepare(gone(ENTRY), host, VIEW)
    assert host.apache.suspended(9)


def test_folders_of_one_round_are_made_in_one_go_and_fail_alone(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(host, ACCOUNT)
    home = host.homes.folder / "alice/home"
    starts = []
    real = host.machine.runner.as_user
    monkeypatch.setattr(host.machine.runner, "as_user", lambda *words: (starts.append(1), real(*words)))
    several = [replace(ENTRY, id=20 + each, name=f"d{each}.example") for each in range(5)]
    apply(host, *several)
    assert len(starts) == 1 and all((home / f"d{each}.example/index.html").exists() for each in range(5))
    one, bad, two = (replace(ENTRY, id=30 + each, name=f"e{each}.example") for each in range(3))
    for entry in (one, bad, two):
        KNOWN["domain"].prepare(entry, host, VIEW)
    (home / "e1.example").write_text("came in between")
    KNOWN["domain"].stage(one, host, VIEW)
    with pytest.raises(Permanent, match=r"home/e1\.example cannot be made: Not a directory"):
        KNOWN["domain"].stage(bad, host, VIEW)
    KNOWN["domain"].stage(two, host, VIEW)
    assert (home / "e2.example/index.html").exists()


@pytest.mark.parametrize("name", ["..", "../../bert/home/x.example", "evil.example\n", 'a".example', "\u202egro.live"])
def test_a_name_that_is_no_folder_fails_before_anything_is_made(host: Host, name: str) -> None:
    apply(host, ACCOUNT)
    before = sorted(host.homes.folder.rglob("*"))
    with pytest.raises(Permanent, match="document root of domain"):
        apply(host, replace(ENTRY, name=name))
    assert sorted(host.homes.folder.rglob("*")) == before


def test_what_cannot_stand_in_a_configuration_fails(host: Host) -> None:
    apply(host, ACCOUNT)
    with pytest.raises(Permanent, match=r"redirect .* cannot stand in a configuration"):
        apply(host, after(ENTRY, redirect='https://a.example/"\nX'))
