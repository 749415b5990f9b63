"""The three files of extrausers: whole, complete, and losing a row only by its own removal or replacement."""

from __future__ import annotations

from pathlib import Path

import pytest

from onehost.models.errors import Permanent
from onehost.workers.host.book import User
from onehost.workers.host.machine import rehearsal
from onehost.workers.host.users import Users, with_extrausers

ALICE = User(5, "alice", 20005, 20005, "$6$hash", "shell")
BOB = User(6, "bob", 20006, 20006, "$6$other", "sftp")


@pytest.fixture
def users(tmp_path: Path) -> Users:
    users = Users(rehearsal(tmp_path))
    users.recover()
    return users


def text(users: Users, name: str) -> str:
    return (users.machine.path("/var/lib/extrausers") / name).read_text()


def apply(users: Users, *wanted: User) -> None:
    for user in wanted:
        users.put(user)
    users.validate()
    users.switch()
    users.settle()


def test_rows(users: Users) -> None:
    apply(users, ALICE, BOB)
    assert text(users, "passwd") == (
        "alice:x:20005:20005:onehost 5:/home/alice/home:/bin/bash\n"
        "bob:x:20006:20006:onehost 6:/home/bob/home:/usr/sbin/nologin\n"
    )
    assert text(users, "shadow") == "alice:$6$hash:::::::\nbob:$6$other:::::::\n"
    assert text(users, "group") == "oh-shell:x:19998:alice\noh-sftp:x:19999:bob\nalice:x:20005:\nbob:x:20006:\n"


def test_what_is_written_is_read_back(users: Users) -> None:
    apply(users, ALICE, BOB)
    again = Users(users.machine)
    assert (again.get("alice"), again.of(6), again.ids()) == (ALICE, BOB, {"alice": 5, "bob": 6})
    again.put(ALICE)
    assert again.changed() == frozenset()


def test_a_locked_account_has_no_way_in_and_comes_back_byte_for_byte(users: Users) -> None:
    apply(users, ALICE)
    before = [text(users, name) for name in ("passwd", "shadow", "group")]
    users.put(User(5, "alice", 20005, 20005, "$6$hash", "shell", locked=True))
    users.switch()
    users.settle()
    assert text(users, "shadow") == "alice:!$6$hash::::::1:\n"
    assert "oh-shell:x:19998:\n" in text(users, "group") and "nologin" in text(users, "passwd")
    read = Users(users.machine).get("alice")
    assert read and read.locked and read.password == "$6$hash"
    apply(users, ALICE)
    assert [text(users, name) for name in ("passwd", "shadow", "group")] == before


def test_a_lock_is_never_put_back(users: Users) -> None:
    apply(users, ALICE)
    users.lock(5)
    users.switch()
    users.restore(5)
    users.switch()
    locked = users.get("alice")
    assert locked and locked.locked


def test_removal_locks_first_and_drops_when_the_round_settles(users: Users) -> None:
    apply(users, ALICE, BOB)
    users.lock(5)
    users.switch()
    users.retire(5)
    assert users.get("alice")
    users.settle()
    assert users.ids() == {"bob": 6}
    assert "alice" not in text(users, "shadow") + text(users, "group")


def test_restore_puts_a_change_back_and_takes_a_new_one_away(users: Users) -> None:
    apply(users, ALICE)
    users.put(User(5, "alice", 20005, 20005, "$6$new", "none"))
    users.put(BOB)
    users.switch()
    users.restore(5)
    users.restore(6)
    assert users.changed() == {5, 6}
    users.switch()
    users.settle()
    assert users.book().users == {"alice": ALICE}


def test_a_replacement_takes_the_row(users: Users) -> None:
    apply(users, ALICE)
    apply(users, User(9, "alice", 20009, 20009))
    assert users.ids() == {"alice": 9}
    users.retire(5)
    users.settle()
    assert users.ids() == {"alice": 9}


def test_rows_of_others_stay(users: Users) -> None:
    folder = users.machine.path("/var/lib/extrausers")
    (folder / "passwd").write_text("ldapish:x:70000:70000:someone else:/home/l:/bin/sh\n")
    (folder / "shadow").write_text("ldapish:*:::::::\n")
    (folder / "group").write_text("ldapish:x:70000:\nstaff2:x:70001:ldapish\n")
    apply(users, ALICE)
    apply(users, BOB)
    assert text(users, "passwd").startswith("ldapish:x:70000:70000:someone else:/home/l:/bin/sh\nalice:")
    assert text(users, "shadow").startswith("ldapish:*:::::::\nalice:")
    assert "staff2:x:70001:ldapish\n" in text(users, "group")


def test_a_row_cut_short_by_a_crash_never_opens_a_door(users: Users) -> None:
    apply(users, ALICE)
    folder = users.machine.path("/var/lib/extrausers")
    (folder / "shadow").write_text("")
    (folder / "group").write_text("orphan:x:20099:\n")
    apply(users, BOB)
    assert "alice:*:::::::\n" in text(users, "shadow")
    assert "orphan" not in text(users, "group")
    users.put(ALICE)
    assert users.changed() == {5}


@pytest.mark.parametrize("row", ["alice:x:1000:1000::/home/a:/bin/sh", "other:x:20005:20005::/home/o:/bin/sh"])
def test_the_machines_own_users_are_not_shadowed(users: Users, row: str) -> None:
    users.machine.path("/etc").mkdir(exist_ok=True)
    users.machine.path("/etc/passwd").write_text(row + "\n")
    users.put(ALICE)
    with pytest.raises(Permanent, match="of its own") as caught:
        users.validate()
    assert caught.value.culprit == "5"


def test_two_owners_never_share_a_uid(users: Users) -> None:
    apply(users, ALICE)
    users.put(User(7, "eve", 20005, 20005))
    with pytest.raises(Permanent, match="belongs to onehost's id 5"):
        users.validate()


def test_lock_now(users: Users) -> None:
    apply(users, ALICE, BOB)
    users.lock_now(5)
    assert "alice:!$6$hash" in text(users, "shadow") and "bob:$6$other" in text(users, "shadow")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("passwd:         files systemd", "passwd:         files extrausers systemd"),
        ("group: compat", "group: compat extrausers"),
        ("shadow:\tfiles", "shadow:\tfiles extrausers"),
        ("passwd: files extrausers systemd", "passwd: files extrausers systemd"),
        ("gshadow: files systemd", "gshadow: files systemd"),
        ("hosts: files dns", "hosts: files dns"),
        ("# passwd: files", "# passwd: files"),
    ],
)
def test_nsswitch(line: str, expected: str) -> None:
    assert with_extrausers(line + "\n") == expected + "\n"
