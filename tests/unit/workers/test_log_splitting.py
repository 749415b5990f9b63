"""Apache's log by site: each line once in the home it belongs to, wherever the process dies, whatever a tenant does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from onehost.models.errors import Temporary
from onehost.workers import log_splitting
from onehost.workers.host import Host, site_log
from onehost.workers.host.access_log import LOG
from onehost.workers.host.homes import HOME
from onehost.workers.ledger import Ledger
from onehost.workers.log_lines import take_apart
from onehost.workers.log_splitting import LogSplitting

from .conftest import letter

MONTH = 202611
STEPS = ("begin", "settle", "written", "end")


class Died(BaseException):
    """The process ends here."""


def line(site: str, number: int, size: int = 100, user: str = "-", at: str = "26/Nov/2026:21:00:00 +0000") -> str:
    return f'{site} 10.0.0.1 - {user} [{at}] "GET /{number} HTTP/1.1" 200 {size} "-" "curl/8" 1234\n'


@pytest.fixture
def host(tmp_path: Path, ledger: Ledger) -> Host:
    """A machine in a folder with three accounts, of which two have sites; bob is suspended."""
    made = Host.rehearsal(tmp_path / "machine")
    made.access_log.make()
    for owner, name, domain in ((5, "alice", "alice.example"), (6, "bob", "bob.example"), (7, "carol", None)):
        spec = {"domain": domain, "uid": 20000, "gid": 20000, "suspended": name == "bob"}
        ledger.store([letter(owner, name=name, spec=spec)])
        (made.machine.path(f"{HOME}/{name}") / "log").mkdir(parents=True)
        made.machine.path(f"{HOME}/{name}/.onehost-id").write_text(f"{owner}\n")
    shop = {"account": "alice", "account_id": 5, "uid": 20000, "gid": 20000, "aliases": ["laden.example"]}
    ledger.store([letter(8, noun="domain", name="shop.example", spec=shop)])
    return made


@pytest.fixture
def told() -> list[dict[str, Any]]:
    return []


def splitting(host: Host, ledger: Ledger, told: list[dict[str, Any]] | None = None) -> LogSplitting:
    def tell(bodies: Sequence[dict[str, Any]]) -> None:
        if told is not None:
            told[:] = bodies

    return LogSplitting(ledger, host, "web1", 3600.0, lambda act: act(), tell)


def wrote(host: Host, *lines: str) -> None:
    """What Apache has logged."""
    with host.machine.path(LOG).open("a") as file:
        file.writelines(lines)


def logged(host: Host, account: str, site: str, more: str = "") -> list[str]:
    path = host.machine.path(f"{HOME}/{account}/log/{site}.web1.log{more}")
    return path.read_text().splitlines() if path.exists() else []


def split(host: Host, ledger: Ledger) -> None:
    splitting(host, ledger).split(threading.Event())


def mixed(first: int = 0, last: int = 60) -> list[str]:
    """Lines of three sites, one of which nobody has."""
    sites = ("alice.example", "shop.example", "bob.example", "stranger.example")
    return [line(sites[number % 4], number) for number in range(first, last)]


def expected(lines: Sequence[str], site: str) -> list[str]:
    return [each.partition(" ")[2].rstrip("\n") for each in lines if each.startswith(f"{site} ")]


def test_each_line_is_where_it_belongs_and_what_was_sent_is_counted(host: Host, ledger: Ledger,
                                                                     told: list[dict[str, Any]]) -> None:  # fmt: skip
    work, lines = splitting(host, ledger, told), mixed()
    wrote(host, *lines[:30])
    work.split(threading.Event())
    wrote(host, *lines[30:], line("www.laden.example", 99, 7), line("ALICE.example", 98, 7).rstrip("\n"))
    host.access_log.set_aside(datetime.now(UTC) + timedelta(seconds=5))
    work.split(threading.Event())
    assert logged(host, "alice", "alice.example")[:-1] == expected(lines, "alice.example")
    assert logged(host, "alice", "shop.example")[:-1] == expected(lines, "shop.example")
    assert logged(host, "bob", "bob.example") == expected(lines, "bob.example")
    assert os.listdir(host.machine.path(f"{HOME}/carol/log")) == []
    work.tell()
    assert told[0]["sent"] == [[5, MONTH, 3014], [6, MONTH, 1500]]
    assert host.machine.path(f"{HOME}/alice/log/alice.example.web1.log").stat().st_mode & 0o777 == 0o640


def test_what_was_split_goes_after_a_day(host: Host, ledger: Ledger) -> None:
    wrote(host, *mixed())
    split(host, ledger)
    folder, now = host.machine.path(LOG).parent, datetime.now(UTC)
    assert [name[-6:] for name in os.listdir(folder)] == [".split"]
    host.access_log.sweep(now + timedelta(hours=23))
    assert len(os.listdir(folder)) == 1
    host.access_log.sweep(now + timedelta(hours=25))
    assert os.listdir(folder) == []


def dies(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, time: int, before: bool) -> Callable[[], None]:
    """Has the process die before or after the n-th call of a method; gives how to live on."""
    real, count = getattr(owner, name), [0]

    def call(*given: Any) -> Any:
        count[0] += 1
        if before and count[0] == time:
            raise Died
        found = real(*given)
        if count[0] == time:
            raise Died
        return found

    patch = pytest.MonkeyPatch()
    patch.setattr(owner, name, call)
    return patch.undo


def deaths() -> Iterator[tuple[str, int, bool]]:
    for name in (*STEPS, "append", "_append", "places", "put_away"):
        for time in (1, 2, 3):
            for before in (True, False):
                yield name, time, before


@pytest.mark.parametrize(("name", "time", "before"), list(deaths()))
def test_a_death_between_any_two_steps_loses_and_doubles_nothing(
    host: Host, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, name: str, time: int, before: bool
) -> None:
    monkeypatch.setattr(log_splitting, "PART_BYTES", 2000)
    lines = mixed()
    wrote(host, *lines)
    owners = {"append": site_log.SiteLogs, "_append": site_log, "places": site_log.SiteLogs,
              "put_away": type(host.access_log)}  # fmt: skip
    revive = dies(monkeypatch, owners.get(name, type(ledger.log_progress)), name, time, before)
    try:
        split(host, ledger)
    except Died:
        pass
    else:
        assert name == "put_away" and time > 1
    revive()
    monkeypatch.setattr(log_splitting, "PART_BYTES", 3000)  # a new version of the worker takes other parts
    wrote(host, *mixed(60, 80))  # Apache goes on meanwhile
    split(host, ledger)
    host.access_log.set_aside(datetime.now(UTC) + timedelta(seconds=5))
    split(host, ledger)
    for account, site in (("alice", "alice.example"), ("alice", "shop.example"), ("bob", "bob.example")):
        assert logged(host, account, site) == expected([*lines, *mixed(60, 80)], site)
    assert ledger.log_progress.sent(0) == [[5, MONTH, 4000], [6, MONTH, 2000]]


def test_half_a_write_is_cut_back_and_written_again(host: Host, ledger: Ledger,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    real = os.write

    def torn(handle: int, data: Any) -> int:
        if b"GET /" in bytes(data):
            real(handle, bytes(data)[:70])
            raise Died
        return real(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", torn)
        wrote(host, *mixed())
        with pytest.raises(Died):
            split(host, ledger)
    assert len(logged(host, "alice", "alice.example")) == 1
    split(host, ledger)
    assert logged(host, "alice", "alice.example") == expected(mixed(), "alice.example")


@pytest.mark.parametrize("trap", ["link", "folder", "pipe", "no folder"])
def test_what_a_tenant_puts_there_hurts_that_tenant_alone(
    host: Host, ledger: Ledger, tmp_path: Path, trap: str
) -> None:
    victim, place = tmp_path / "victim", host.machine.path(f"{HOME}/alice/log/alice.example.web1.log")
    victim.write_text("kept")
    if trap == "link":
        place.symlink_to(victim)
    elif trap == "folder":
        place.mkdir()
    elif trap == "pipe":
        os.mkfifo(place)
    else:
        place.parent.rmdir()
        place.parent.symlink_to(tmp_path)
    wrote(host, *mixed())
    split(host, ledger)
    assert victim.read_text() == "kept" and not list(tmp_path.glob("*.web1.log"))
    assert logged(host, "bob", "bob.example") == expected(mixed(), "bob.example")
    assert logged(host, "alice", "shop.example") == ([] if trap == "no folder" else expected(mixed(), "shop.example"))
    assert ledger.log_progress.sent(0)[0] == [5, MONTH, 3000] and host.access_log.waiting() == []


def test_nothing_is_lost_while_the_storage_is_away(host: Host, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    wrote(host, *mixed())
    with monkeypatch.context() as patch, pytest.raises(Temporary):
        patch.setattr(site_log, "_within", lambda *given: (_ for _ in ()).throw(OSError(116, "Stale file handle")))
        split(host, ledger)
    home, away = host.machine.path(HOME), host.machine.path("/away")
    home.rename(away)
    with pytest.raises(Temporary, match="mounted"):
        split(host, ledger)
    away.rename(home)
    split(host, ledger)
    assert logged(host, "alice", "alice.example") == expected(mixed(), "alice.example")


def test_who_kills_what_writes_holds_nobody_up(host: Host, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    real = site_log.SiteLogs.append

    def append(self: Any, account: str, *given: Any) -> Any:
        if account == "alice":
            raise Temporary("work with the rights of uid 20000 did not end")
        return real(self, account, *given)

    monkeypatch.setattr(site_log.SiteLogs, "append", append)
    wrote(host, *mixed())
    work = splitting(host, ledger)
    for _ in range(2):
        with pytest.raises(Temporary, match="1 accounts must wait"):
            work.split(threading.Event())
    work.split(threading.Event())
    assert host.access_log.waiting() == [] and logged(host, "alice", "alice.example") == []
    assert logged(host, "bob", "bob.example") == expected(mixed(), "bob.example")


def test_a_large_log_is_set_aside_and_five_are_kept(
    host: Host, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_log, "LARGEST", 10)
    for number in range(8):
        wrote(host, line("bob.example", number))
        host.access_log.set_aside(datetime.now(UTC) + timedelta(seconds=number))
        split(host, ledger)
    found = [logged(host, "bob", "bob.example", more) for more in ("", ".1", ".2", ".3", ".4", ".5", ".6")]
    assert [each[0].split("GET /")[1][0] if each else "" for each in found] == ["7", "6", "5", "4", "3", "2", ""]


def test_what_is_being_written_to_waits(host: Host, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_splitting, "CHILDREN_SECONDS", 0.0)
    monkeypatch.setattr(host.access_log, "writers", lambda path: {7})
    wrote(host, *mixed())
    split(host, ledger)
    assert logged(host, "alice", "alice.example") == [] and len(host.access_log.waiting()) == 1
    monkeypatch.undo()
    split(host, ledger)
    assert logged(host, "alice", "alice.example") == expected(mixed(), "alice.example")


def test_a_log_that_was_begun_is_ended_before_an_older_one(host: Host, ledger: Ledger,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(log_splitting, "CHILDREN_SECONDS", 0.0)
    wrote(host, *mixed(0, 20))
    host.access_log.set_aside(datetime.now(UTC) - timedelta(seconds=5))
    (old,) = host.access_log.waiting()
    wrote(host, *mixed(20, 40))
    monkeypatch.setattr(host.access_log, "writers", lambda path: {7} if path == old else set())
    revive = dies(monkeypatch, type(ledger.log_progress), "written", 1, False)
    with pytest.raises(Died):
        split(host, ledger)
    revive()
    monkeypatch.undo()
    split(host, ledger)
    found = [logged(host, account, f"{account}.example") for account in ("alice", "bob")]
    assert sorted(map(len, found)) == [10, 10] and all(len(set(each)) == 10 for each in found)


def test_a_visitor_cannot_forge_what_is_counted() -> None:
    whose = {b"a.example": (5, "a.example")}
    forged = 'x [26/Nov/2026:21:00:00 +0000] \\"GET / HTTP/1.1\\" 200 999999999 \\"'
    for user in (forged, '""', "a b", "[x] y", "\\\\"):
        found = take_apart(line("a.example", 1, 100, user).encode(), whose)
        assert found.sent == {5: {MONTH: 100}}, user
    start, referer = line("a.example", 1).split('"-"')[0], "x [26/Nov/2026:21:00:00 +0000] "
    assert take_apart(f'{start}"{referer}" " 200 999 x" 12'.encode(), whose).sent == {5: {MONTH: 100}}
    assert take_apart(line("a.example", 1, at="01/Dec/2026:00:30:00 +0100").encode(), whose).sent == {5: {MONTH: 100}}
    broken = take_apart(b"a.example rubbish\n\na.example", whose)
    assert (broken.sent, broken.unknown, broken.pieces[5]["a.example"]) == ({}, 1, b"rubbish\n\n")
