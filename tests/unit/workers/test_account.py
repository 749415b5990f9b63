"""The account reconciler on a rehearsed machine: differences in words, and nothing to do the second time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onehost.models.errors import Permanent, Temporary
from onehost.workers.entry import Difference, Entry, View
from onehost.workers.host import Host
from onehost.workers.reconcilers import Hurries, reconcilers

ACCOUNT = reconcilers()["account"]
ALL = frozenset({"web", "ssh", "storage"})
SPEC: dict[str, Any] = {
    "uid": 20001, "gid": 20001, "shard": 0, "password_hash": "$6$a$b", "access": "shell", "ssh_keys": [],
    "suspended": False, "domain": "alice.example", "document_root": "web", "php": True,
}  # fmt: skip
ENTRY = Entry(5, "account", "alice", 1, SPEC, roles=ALL)


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


def apply(host: Host, entry: Entry) -> Difference:
    difference = ACCOUNT.compare(entry, host, VIEW)
    ACCOUNT.prepare(entry, host, VIEW)
    ACCOUNT.stage(entry, host, VIEW)
    for daemon in host.daemons:
        if daemon.changed():
            daemon.validate()
            daemon.switch()
            daemon.signal()
    ACCOUNT.finish(entry, host, VIEW)
    ACCOUNT.verify(entry, host, VIEW)
    for daemon in host.daemons:
        daemon.settle()
    assert ACCOUNT.compare(entry, host, VIEW) == {}
    return difference


def after(entry: Entry, **changes: Any) -> Entry:
    spec = {**(entry.spec or {}), **changes}
    return replace(entry, generation=entry.generation + 1, spec=spec, applied_spec=entry.spec)


def test_a_home_of_before_gets_a_place_for_sessions(host: Host) -> None:
    apply(host, ENTRY)
    sessions = host.homes.folder / "alice/tmp/sessions"
    sessions.rmdir()
    assert ACCOUNT.compare(after(ENTRY, suspended=True), host, VIEW) == {"suspended": "no -> yes"}
    for roles in (frozenset({"web"}), frozenset({"storage"})):
        assert apply(host, replace(ENTRY, roles=roles))["sessions"] == "made"
        sessions.rmdir()


def test_made_changed_suspended_removed(host: Host) -> None:
    made = {"home": "made", "user": "made", "access": "none -> shell", "php": "on", "site": "made"}
    assert apply(host, ENTRY) == made
    assert apply(host, after(ENTRY, password_hash="$6$c$d")) == {"password": "changed"}
    assert apply(host, after(ENTRY, access="sftp")) == {"password": "changed", "access": "shell -> sftp"}
    assert apply(host, after(ENTRY, suspended=True)) == {"suspended": "no -> yes"}
    assert host.apache.suspended(5)
    assert apply(host, ENTRY) == {"suspended": "yes -> no"}
    gone = replace(ENTRY, spec=None, generation=9, applied_spec=SPEC)
    assert apply(host, gone) == {"home": "moved to the trash", "user": "removed", "php": "off", "site": "removed"}
    assert host.users.ids() == {} and host.homes.owner("alice") is None
    assert not host.apache.suspended(5)


def test_limits_reach_the_pool_and_the_shell(host: Host) -> None:
    apply(host, ENTRY)
    limited = after(ENTRY, php_processes=3, memory_mib=256, shell=False)
    assert apply(host, limited) == {"php": "changed", "access": "shell -> sftp"}
    (pool,) = host.php.get(5).values()
    assert b"pm.max_children = 3" in pool
    assert b"memory_limit=256M" in host.apache.files(5)["alice.5.memory"]
    back = {"php": "changed", "access": "sftp -> shell"}
    assert apply(host, after(ENTRY, shell=True)) == back


def test_no_secret_in_words(host: Host) -> None:
    assert "$6$" not in str(apply(host, ENTRY)) + str(apply(host, after(ENTRY, password_hash="$6$x$y")))


def test_a_storage_node_has_homes_alone(host: Host) -> None:
    assert apply(host, replace(ENTRY, roles=frozenset({"storage"}))) == {"home": "made"}
    assert host.users.ids() == {} and host.apache.tree.owners() == frozenset()


def test_a_web_node_waits_for_the_home(host: Host) -> None:
    entry = replace(ENTRY, roles=frozenset({"web"}))
    with pytest.raises(Temporary, match="is /home mounted"):
        apply(host, entry)
    host.homes.make("alice", 5, 0, 0, "web")
    assert apply(host, entry) == {"user": "made", "php": "on", "site": "made"}


def test_a_pool_moves_between_shards(host: Host) -> None:
    apply(host, ENTRY)
    assert apply(host, after(ENTRY, shard=3)) == {"php": "changed"}
    assert (host.php.shards(), set(host.php.get(5))) == ([0, 3], {3})


def test_a_name_made_again(host: Host) -> None:
    apply(host, ENTRY)
    new = Entry(9, "account", "alice", 1, {**SPEC, "uid": 20009, "gid": 20009}, roles=ALL)
    with pytest.raises(Permanent, match="id 5, an orphan"):
        ACCOUNT.compare(new, host, VIEW)
    difference = apply(host, replace(new, replaces=5))
    assert difference["replaced"] == "id 5"
    assert host.users.ids() == {"alice": 9} and host.homes.owner("alice") == 9
    assert host.apache.tree.owners() == host.php.tree(0).owners() == {9}
    assert apply(host, replace(ENTRY, spec=None, generation=4)) == {}
    assert host.users.ids() == {"alice": 9}


def test_a_stale_home_is_nobodys_gift(host: Host) -> None:
    host.homes.make("alice", 77, 0, 0, None)
    with pytest.raises(Permanent, match="id 77, an orphan"):
        ACCOUNT.compare(ENTRY, host, VIEW)


def test_what_a_tenant_does_at_home_cannot_stop_a_suspension(host: Host) -> None:
    apply(host, ENTRY)
    web = host.homes.folder / "alice" / "home" / "web"
    (web / "index.html").unlink()
    web.rmdir()
    web.write_text("a file now")
    assert apply(host, after(ENTRY, suspended=True)) == {"suspended": "no -> yes"}
    assert apply(host, after(ENTRY, password_hash="$6$e$f")) == {"password": "changed", "suspended": "yes -> no"}


def test_a_new_document_root_that_is_a_file_fails(host: Host) -> None:
    apply(host, after(ENTRY, domain=None))
    (host.homes.folder / "alice" / "home" / "web").write_text("")
    with pytest.raises(Permanent, match="document root /home/alice/home/web is a file, not a folder"):
        apply(host, replace(ENTRY, applied_spec={**SPEC, "domain": None}))


def test_a_removal_that_fails_half_way_serves_nothing(host: Host) -> None:
    apply(host, ENTRY)
    gone = replace(ENTRY, spec=None, generation=2, applied_spec=SPEC)
    ACCOUNT.prepare(gone, host, VIEW)
    ACCOUNT.stage(gone, host, VIEW)
    for daemon in host.daemons:
        daemon.switch()
    for daemon in host.daemons:
        daemon.restore(5)
        daemon.switch()
    user = host.users.get("alice")
    assert user and user.locked and host.apache.suspended(5)


def test_a_suspension_in_a_hurry_locks_out_and_its_own_round_does_the_rest(host: Host) -> None:
    apply(host, ENTRY)
    entry = after(ENTRY, suspended=True)
    assert isinstance(ACCOUNT, Hurries)
    ACCOUNT.hurry(entry, host)
    user = host.users.of(ENTRY.id)
    assert user and user.locked and user.access == "none" and host.apache.suspended(ENTRY.id)
    assert "suspended" not in ACCOUNT.compare(entry, host, VIEW)
    apply(host, entry)
    assert apply(host, after(entry, suspended=False))["suspended"] == "yes -> no"
    user = host.users.of(ENTRY.id)
    assert user and not user.locked and not host.apache.suspended(ENTRY.id)
