"""ProFTPD's file of logins: what is written is read back, and whoever is locked has no hash that fits."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onehost.models.errors import Permanent
from onehost.workers.host import ftp_rows
from onehost.workers.host.ftp import Ftp
from onehost.workers.host.ftp_rows import FtpLogin
from onehost.workers.host.machine import rehearsal
from onehost.workers.host.sessions import Sessions

HASH = "$6$salt$" + "a" * 86
ALICE = FtpLogin(5, "alice", "alice", 20005, 20005, HASH)
UPLOAD = FtpLogin(6, "alice.upload", "alice", 20005, 20005, HASH, "web/up", read_only=True)
BOB = FtpLogin(7, "bob", "bob", 20007, 20007, HASH)
TEXT = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
    ["a:b", "a\nroot:x:0:0::/:/bin/sh", "..", "a/../b", "\u202ea", "a\0", "a\u2028b", "/etc", "~", "%u", "a\r", "$(x)"]
)


@pytest.fixture
def ftp(tmp_path: Path) -> Ftp:
    machine = rehearsal(tmp_path)
    made = Ftp(machine, Sessions(machine))
    made.recover()
    return made


def apply(ftp: Ftp, *wanted: FtpLogin) -> None:
    for login in wanted:
        ftp.put(login)
    ftp.validate()
    ftp.switch()
    ftp.settle()


def lines(ftp: Ftp) -> list[str]:
    return ftp.machine.path("/etc/onehost/ftp/users").read_text().splitlines()


def test_rows(ftp: Ftp) -> None:
    apply(ftp, UPLOAD, ALICE)
    assert lines(ftp) == [
        f"alice:{HASH}:20005:20005:onehost 5 20005:/home/alice/home:/bin/false",
        f"alice.upload:{HASH}:20005:19997:onehost 6 20005:/home/alice/home/web/up:/bin/false",
    ]
    assert ftp.machine.path("/etc/onehost/ftp/users").stat().st_mode & 0o777 == 0o640


def roots(ftp: Ftp) -> dict[str, str]:
    folder = ftp.machine.path("/etc/onehost/ftp/roots")
    assert folder.stat().st_mode & 0o777 == 0o700
    return {each.name: os.readlink(each) for each in folder.iterdir()}


def test_each_login_is_led_to_its_folder_by_a_link_of_roots_own(ftp: Ftp) -> None:
    apply(ftp, UPLOAD, ALICE)
    assert roots(ftp) == {"alice": "/home/alice/home", "alice.upload": "/home/alice/home/web/up"}
    apply(ftp, replace(UPLOAD, folder="web/other"))
    ftp.drop(5)
    ftp.switch()
    assert roots(ftp) == {"alice.upload": "/home/alice/home/web/other"}


def test_another_hand_at_a_link_is_found_and_put_back(ftp: Ftp) -> None:
    apply(ftp, UPLOAD, ALICE)
    both = frozenset({5, 6})
    assert ftp.check(both, frozenset()) == []
    folder = ftp.machine.path("/etc/onehost/ftp/roots")
    (folder / "alice").unlink()
    (folder / "alice").symlink_to("/")
    (folder / "mallory").symlink_to("/")
    folder.chmod(0o755)
    assert {each.path.rpartition("/")[2] for each in ftp.check(both, frozenset())} == {"alice", "mallory", "roots"}
    ftp.recover()
    assert ftp.check(both, frozenset()) == []


def test_what_is_written_is_read_back_by_another_process(ftp: Ftp) -> None:
    apply(ftp, ALICE, UPLOAD, replace(BOB, suspended=True))
    again = Ftp(ftp.machine, Sessions(ftp.machine))
    assert [again.of(owner) for owner in (5, 6, 7, 8)] == [ALICE, UPLOAD, replace(BOB, suspended=True), None]
    again.put(ALICE)
    assert again.changed() == frozenset()


def test_a_lock_holds_every_row_of_the_uid_also_later_ones_and_goes_without_a_trace(ftp: Ftp) -> None:
    apply(ftp, ALICE, BOB)
    before = lines(ftp)
    ftp.lock(20005)
    apply(ftp, UPLOAD)
    assert [line.split(":")[1][0] for line in lines(ftp)] == ["*", "*", "$"]
    assert ftp.of(5) == ALICE
    Ftp(ftp.machine, Sessions(ftp.machine)).recover()
    assert [line.split(":")[1][0] for line in lines(ftp)] == ["*", "*", "$"]
    ftp.drop(6)
    ftp.switch()
    ftp.unlock(20005)
    assert lines(ftp) == before


def test_a_lock_does_not_undo_the_suspension_of_a_login(ftp: Ftp) -> None:
    apply(ftp, replace(UPLOAD, suspended=True))
    ftp.lock(20005)
    ftp.unlock(20005)
    assert lines(ftp)[0].split(":")[1] == f"!{HASH}"


def test_the_lock_of_a_removed_account_stays_while_a_login_is_left(ftp: Ftp) -> None:
    apply(ftp, UPLOAD)
    ftp.lock(20005)
    ftp.forget_lock(20005)
    assert ftp.is_locked(20005)
    ftp.drop(6)
    ftp.switch()
    ftp.forget_lock(20005)
    assert not ftp.is_locked(20005)


@pytest.mark.parametrize("wanted", [None, replace(UPLOAD, suspended=True)])
def test_what_fails_later_lets_nobody_in_again(ftp: Ftp, wanted: FtpLogin | None) -> None:
    apply(ftp, UPLOAD)
    if wanted:
        ftp.put(wanted)
    else:
        ftp.drop(6)
    ftp.switch()
    ftp.restore(6)
    ftp.switch()
    assert ftp.of(6) == wanted


def test_other_changes_are_put_back(ftp: Ftp) -> None:
    apply(ftp, UPLOAD)
    ftp.put(replace(UPLOAD, read_only=False))
    ftp.switch()
    ftp.restore(6)
    ftp.switch()
    assert ftp.of(6) == UPLOAD


def test_a_login_has_one_owner(ftp: Ftp) -> None:
    apply(ftp, UPLOAD)
    ftp.put(replace(UPLOAD, owner=9))
    with pytest.raises(Permanent, match=r"alice\.upload belongs to id 6") as raised:
        ftp.validate()
    assert raised.value.culprit == "9"
    ftp.drop(6)
    ftp.validate()


@given(login=TEXT, account=TEXT, folder=TEXT, password=TEXT, read_only=st.booleans(), suspended=st.booleans())
def test_a_row_is_read_back_equal_or_refused(login: str, account: str, folder: str, password: str, read_only: bool,
                                             suspended: bool) -> None:  # fmt: skip
    for wanted in (
        FtpLogin(6, login, account, 20005, 20006, password, folder, read_only, suspended),
        replace(UPLOAD, login=login), replace(UPLOAD, account=account), replace(UPLOAD, folder=folder),
        replace(UPLOAD, password=password),
    ):  # fmt: skip
        try:
            text = ftp_rows.render([wanted, BOB], frozenset({20005}))
        except Permanent:
            continue
        assert ftp_rows.parse(text) == {6: wanted, 7: BOB}
        assert len(text.split("\n")) == 3 and all(line.count(":") == 6 for line in text.splitlines())
        assert ".." not in wanted.home and wanted.home.startswith("/home/")
