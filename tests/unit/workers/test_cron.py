"""Cron entries on a rehearsed machine: files, what is due, and who gets the claim."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from onehost.models import names
from onehost.models.errors import Permanent, Temporary
from onehost.workers.cron import claim, minute, said
from onehost.workers.cron import entry as entries
from onehost.workers.cron.entry import CronEntry
from onehost.workers.entry import Difference, Entry
from onehost.workers.host import Host
from onehost.workers.host.book import User
from onehost.workers.host.cron import locks_stay_here
from onehost.workers.reconcilers import reconcilers

CRON = reconcilers()["cron"]
WEB = frozenset({"web", "ssh"})
SPEC: dict[str, Any] = {
    "account": "alice", "account_id": 5, "uid": 20001, "gid": 20001, "schedule": "*/5 * * * *", "command": "true",
    "enabled": True, "limit_seconds": 60,
}  # fmt: skip
ENTRY = Entry(9, "cron", "alice.backup", 1, SPEC, roles=WEB)
MINUTE = int(datetime(2026, 11, 26, 20, 5, tzinfo=UTC).timestamp()) // 60


class Known:
    def __init__(self, *accounts: Entry) -> None:
        self.accounts = list(accounts)

    def all(self, noun: str) -> list[Entry]:
        return self.accounts


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host.rehearsal(tmp_path)
    host.recover(WEB)
    host.users.put(User(5, "alice", 20001, 20001))
    host.users.switch()
    host.users.settle()
    return host


def apply(host: Host, entry: Entry, view: Known | None = None) -> Difference:
    seen = view or Known()
    difference = CRON.compare(entry, host, seen)
    CRON.prepare(entry, host, seen)
    CRON.stage(entry, host, seen)
    if host.cron.changed():
        host.cron.validate()
        host.cron.switch()
        host.cron.signal()
    CRON.verify(entry, host, seen)
    host.cron.settle()
    assert CRON.compare(entry, host, seen) == {}
    return difference


def after(entry: Entry, **changes: Any) -> Entry:
    return replace(entry, generation=entry.generation + 1, spec={**(entry.spec or {}), **changes})


def due(host: Host, at: int = MINUTE) -> list[int]:
    return [each.owner for each in minute.due(host.machine.root, at)]


def test_made_changed_removed(host: Host) -> None:
    assert apply(host, ENTRY) == {"entry": "made"}
    assert apply(host, after(ENTRY, schedule="@daily")) == {"schedule": "*/5 * * * * -> @daily"}
    assert apply(host, replace(ENTRY, spec=None, generation=3)) == {"entry": "removed"}
    assert host.machine.path(entries.PRIVATE).stat().st_mode & 0o777 == 0o700


def test_a_name_made_again_replaces_the_old_id_and_no_other(host: Host) -> None:
    apply(host, ENTRY)
    with pytest.raises(Permanent, match="an orphan"):
        CRON.compare(replace(ENTRY, id=12), host, Known())
    assert apply(host, replace(ENTRY, id=12, replaces=9)) == {"entry": "made"}
    assert due(host) == [12]


def test_it_waits_for_its_account_and_for_no_namesake(host: Host) -> None:
    with pytest.raises(Temporary, match="of id 7 is not on this node yet"):
        apply(host, after(ENTRY, account_id=7), Known(Entry(7, "account", "alice", 1, {})))
    apply(host, after(ENTRY, account="bob", account_id=7), Known(Entry(7, "account", "bob", 1, {})))
    assert due(host) == [], "bob is not on the machine yet"


@pytest.mark.parametrize(
    ("change", "user", "expected"),
    [
        ({}, {}, [9]),
        ({"schedule": "6 * * * *"}, {}, []),
        ({"enabled": False}, {}, []),
        ({}, {"locked": True}, []),
        ({}, {"owner": 6}, []),
    ],
)
def test_due(host: Host, change: dict[str, Any], user: dict[str, Any], expected: list[int]) -> None:
    apply(host, after(ENTRY, **change))
    host.users.put(replace(User(5, "alice", 20001, 20001), **user))
    host.users.switch()
    assert due(host) == expected


def test_an_entry_that_cannot_be_read_stops_no_other(host: Host) -> None:
    apply(host, ENTRY)
    (host.cron.tree.live / "alice.broken.10.json").write_bytes(b'{"owner": 10}')
    assert due(host) == [9]


def test_nothing_is_started_before_the_node_may_serve(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(host, ENTRY)
    monkeypatch.setattr(minute, "_start", lambda root, each, at, node: each.owner)
    root = host.machine.root
    assert minute.run(root, MINUTE * 60.0) == []
    host.cron.start()
    assert minute.run(root, MINUTE * 60.0 + 59) == [9]


@pytest.mark.parametrize(
    ("mount", "why"),
    [
        ("s1:/home /home nfs4 rw,vers=4.2,local_lock=none 0 0", ""),
        ("s1:/home /home nfs rw,vers=3,nolock,local_lock=all 0 0", "/home is mounted with"),
        ("s1:/home /home nfs4 rw,vers=4.0,local_lock=flock 0 0", "with local_lock=flock"),
        ("/dev/sdb /home ext4 rw 0 0", ""),
    ],
)
def test_storage_on_which_nodes_cannot_agree_is_told(mount: str, why: str) -> None:
    found = locks_stay_here(f"/dev/sda / ext4 rw 0 0\n{mount}\ntmpfs /home2 tmpfs rw 0 0\n")
    assert bool(found) == bool(why) and why in found


def test_nodes_begin_with_different_entries() -> None:
    waiting = [minute.Due(n, "", "alice", 1, 1, ()) for n in range(20)]
    orders = {tuple(each.owner for each in minute.in_order(waiting, node)) for node in ("n1", "n2", "n3")}
    assert len(orders) == 3 and all(sorted(order) == list(range(20)) for order in orders)


# ---- the claim


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".cron").mkdir()
    (tmp_path / "log").mkdir()
    return tmp_path


def test_a_minute_is_given_once(home: Path) -> None:
    first = claim.claim(home, 9, MINUTE, "node1")
    assert first is not None
    assert claim.claim(home, 9, MINUTE + 1, "node2") is None, "the lock is held"
    assert claim.claim(home, 8, MINUTE, "node2") is not None, "another entry has another lock"
    os.close(first)
    assert claim.claim(home, 9, MINUTE, "node2") is None, "a node that is late"
    assert claim.claim(home, 9, MINUTE - 1, "node2") is None, "a node whose clock is behind"
    second = claim.claim(home, 9, MINUTE + 1, "node2")
    assert second is not None
    assert (home / ".cron/9").read_text().split() == [f"{MINUTE + 1:012d}", "node2"]


def test_of_many_at_once_one_wins_each_minute(home: Path) -> None:
    wins: list[tuple[int, int]] = []

    def node(number: int) -> None:
        for at in range(MINUTE, MINUTE + 20):
            barrier.wait()
            handle = claim.claim(home, 9, at, f"node{number}")
            if handle is not None:
                wins.append((at, number))
                os.close(handle)

    barrier = threading.Barrier(6)
    threads = [threading.Thread(target=node, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(at for at, _ in wins) == list(range(MINUTE, MINUTE + 20))


def test_a_clock_that_is_far_ahead_stops_the_others_for_one_minute(home: Path) -> None:
    os.close(claim.claim(home, 9, MINUTE + 500_000, "mad") or 0)
    assert claim.claim(home, 9, MINUTE, "node1") is None
    assert claim.claim(home, 9, MINUTE + 1, "node1") is not None


@pytest.mark.parametrize("content", [b"x", b"000000000001 node1", b"\0" * 5000])
def test_a_record_that_cannot_be_read_costs_its_minute(home: Path, content: bytes) -> None:
    (home / ".cron/9").write_bytes(content)
    assert claim.claim(home, 9, MINUTE, "node1") is None
    assert claim.claim(home, 9, MINUTE, "node2") is None
    assert claim.claim(home, 9, MINUTE + 1, "node2") is not None


def test_no_link_is_followed_and_no_pipe_waited_for(home: Path) -> None:
    canary = home / "canary"
    canary.write_text("000000000001 node1\n")
    (home / ".cron/9").symlink_to(canary)
    with pytest.raises(OSError):
        claim.claim(home, 9, MINUTE, "node1")
    os.mkfifo(home / ".cron/8")
    assert claim.claim(home, 8, MINUTE, "node1") is None
    assert canary.read_text() == "000000000001 node1\n"
    (home / "log/cron.log").symlink_to(canary)
    with pytest.raises(OSError):
        said.keep(home, MINUTE, "x", b"")
    (home / ".cron").rename(home / "real")
    (home / ".cron").symlink_to(home / "real")
    with pytest.raises(OSError):
        claim.claim(home, 7, MINUTE, "node1")


def test_old_records_of_strangers_go(home: Path) -> None:
    for name, days in (("1", 40), ("2", 40), ("3", 1), ("notes", 40)):
        (home / ".cron" / name).touch()
        then = os.stat(home / ".cron" / name).st_mtime - days * 86400
        os.utime(home / ".cron" / name, (then, then))
    claim.sweep(home, [2])
    assert sorted(os.listdir(home / ".cron")) == ["2", "3", "notes"]


def test_what_is_said_is_kept_small(home: Path) -> None:
    said.keep(home, MINUTE, "node1 alice.backup: exit 0 in 0.1 s", b"one\ntwo\n")
    assert (home / "log/cron.log").read_text() == (
        "2026-11-26T20:05Z node1 alice.backup: exit 0 in 0.1 s\n  one\n  two\n"
    )
    for _ in range(40):
        said.keep(home, MINUTE, "node1 x", b"y" * (said.KEPT_BYTES + 1))
    sizes = [path.stat().st_size for path in (home / "log").iterdir()]
    assert len(sizes) <= 2 and max(sizes) < said.LOG_BYTES + said.KEPT_BYTES + 200
    assert "more was said than is kept" in (home / "log/cron.log.1").read_text()


# ---- the renderer


@given(st.text(), st.text(), st.integers(1, 86400))
def test_an_entry_is_read_back_as_it_was(command: str, name: str, limit: int) -> None:
    made = CronEntry(9, name, "alice", 5, "@daily", command, limit)
    rendered = made.render()
    assert entries.parse(rendered) == made
    assert rendered.count(b"\n") == 1 and rendered.isascii()


@given(st.text())
def test_a_command_is_one_printable_line_or_refused(text: str) -> None:
    try:
        kept = names.command(text)
    except ValidationError:
        return
    assert kept == text and kept.isprintable() and len(kept.encode()) <= 1000


@pytest.mark.parametrize(
    "text", ["", "  ", "a\nb", "a\rb", "a\0b", "a\x1b[2Jb", "a\u202eb", "a\u2066b", "a\u2028b", "x" * 1001]
)
def test_bad_commands_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        names.command(text)


@given(st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text()))
def test_a_foreign_file_is_no_entry(given_: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        entries.parse(json.dumps(given_).encode())
