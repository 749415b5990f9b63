"""Homes: whole or not at all, never inherited, and no tenant's link or file leads root astray."""

from __future__ import annotations

import os
import resource
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from onehost.models.errors import Permanent
from onehost.workers.host.homes import Homes
from onehost.workers.host.machine import rehearsal

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
FOLDERS = {"": "0o711", "home": "0o710", "home/web": "0o2750", "mail": "0o700", "tmp": "0o700", "tmp/sessions": "0o700"}


@pytest.fixture
def homes(tmp_path: Path) -> Homes:
    return Homes(rehearsal(tmp_path))


def test_made_whole(homes: Homes) -> None:
    homes.make("alice", 5, os.getuid(), os.getgid(), "web")
    home = homes.folder / "alice"
    assert {path.name for path in home.iterdir()} == {".onehost-id", ".cron", "home", "mail", "log", "tmp"}
    modes = {name: oct((home / name).stat().st_mode & 0o7777) for name in FOLDERS}
    assert modes == FOLDERS
    assert (home / "home/web/index.html").exists()
    assert homes.owner("alice") == 5


def test_what_is_there_is_never_taken_over(homes: Homes) -> None:
    homes.make("alice", 5, os.getuid(), os.getgid(), None)
    with pytest.raises(Permanent, match="belongs to id 5"):
        homes.make("alice", 6, os.getuid(), os.getgid(), None)
    (homes.folder / "bob").mkdir()
    assert homes.owner("bob") == 0
    with pytest.raises(Permanent, match="nobody onehost knows"):
        homes.make("bob", 7, os.getuid(), os.getgid(), None)
    (homes.folder / "eve").symlink_to("alice")
    assert homes.owner("eve") == 0


def test_half_made_homes_are_made_anew(homes: Homes) -> None:
    (homes.folder / ".making.alice.5" / "home").mkdir(parents=True)
    homes.make("alice", 5, os.getuid(), os.getgid(), "web")
    assert [path.name for path in homes.folder.iterdir()] == ["alice"]


def test_states_of_a_document_root(homes: Homes) -> None:
    homes.make("alice", 5, os.getuid(), os.getgid(), None)
    home = homes.folder / "alice" / "home"
    assert homes.root_state("alice", "web") == homes.root_state("nobody", "web") == "missing"
    (home / "web").write_text("")
    assert homes.root_state("alice", "web") == "document root /home/alice/home/web is a file, not a folder"
    assert homes.root_state("alice", "web/a").endswith("lies below a file")
    (home / "web").unlink()
    (home / "web").symlink_to("/etc")
    assert homes.root_state("alice", "web") == "folder"
    assert homes.root_state("alice", "web/a").endswith("lies behind a link")
    (home / "real").mkdir()
    assert homes.root_state("alice", "real") == "folder"


def test_a_document_root_is_made_with_a_page_only_if_it_is_new(homes: Homes) -> None:
    homes.make("alice", 5, os.getuid(), os.getgid(), None)
    home = homes.folder / "alice" / "home"
    (home / "sites").mkdir(mode=0o700)
    homes.make_root("alice", os.getuid(), os.getgid(), "sites/new")
    assert (home / "sites/new/index.html").exists() and not (home / "sites/index.html").exists()
    (home / "sites/new/index.html").unlink()
    homes.make_root("alice", os.getuid(), os.getgid(), "sites/new")
    assert not (home / "sites/new/index.html").exists()


def test_without_room_for_the_page_no_document_root_is_left(homes: Homes) -> None:
    homes.make("alice", 5, os.getuid(), os.getgid(), None)
    home, usual = homes.folder / "alice" / "home", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, usual[1]))
    try:
        with pytest.raises(Permanent, match="alice/home/sites/new cannot be made: File too large"):
            homes.make_root("alice", os.getuid(), os.getgid(), "sites/new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert homes.root_state("alice", "sites/new") == "missing"
    homes.make_root("alice", os.getuid(), os.getgid(), "sites/new")
    assert (home / "sites/new/index.html").read_text().startswith("<!doctype")


def test_a_place_for_sessions_in_an_older_home_is_made_and_what_stands_there_is_left(homes: Homes) -> None:
    homes.make("alice", 5, os.getuid(), os.getgid(), None)
    sessions = homes.folder / "alice" / "tmp/sessions"
    sessions.rmdir()
    assert homes.lacks_sessions("alice") and not homes.lacks_sessions("nobody")
    homes.make_sessions("alice", os.getuid(), os.getgid())
    assert oct(sessions.stat().st_mode & 0o7777) == "0o700" and not homes.lacks_sessions("alice")
    sessions.rmdir()
    sessions.symlink_to("/nowhere")
    assert not homes.lacks_sessions("alice")
    homes.make_sessions("alice", os.getuid(), os.getgid())
    assert sessions.is_symlink()


def test_trashed_twice_in_a_second(homes: Homes) -> None:
    for _ in range(2):
        homes.make("alice", 5, os.getuid(), os.getgid(), None)
        homes.trash("alice", 5, NOW)
    assert len(list(homes.trash_folder.iterdir())) == 2
    assert len(list(homes.sweep(NOW + timedelta(days=15)))) == 2


def test_trash_takes_the_owners_home_alone_and_is_swept_in_time(homes: Homes) -> None:
    homes.make("alice", 5, os.getuid(), os.getgid(), None)
    homes.trash("alice", 4, NOW)
    assert homes.owner("alice") == 5
    homes.trash("alice", 5, NOW)
    homes.trash("alice", 5, NOW)
    assert homes.owner("alice") is None
    assert [path.name for path in homes.trash_folder.iterdir()] == ["alice.5.20261124T120000Z"]
    assert oct(homes.trash_folder.stat().st_mode & 0o777) == "0o700"
    (homes.trash_folder / "put here by hand").mkdir()
    assert list(homes.sweep(NOW + timedelta(days=13))) == []
    assert list(homes.sweep(NOW + timedelta(days=15))) == ["alice.5.20261124T120000Z"]
    assert [path.name for path in homes.trash_folder.iterdir()] == ["put here by hand"]


def test_a_home_in_use_holds_up_no_other_in_the_trash(homes: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("alice", "bob"):
        homes.make(name, 5, os.getuid(), os.getgid(), None)
        homes.trash(name, 5, NOW)
    real = shutil.rmtree

    def used(place: Path) -> None:
        if place.name.startswith("alice"):
            raise OSError(39, "Directory not empty")
        real(place)

    monkeypatch.setattr(shutil, "rmtree", used)
    gone = []
    with pytest.raises(OSError, match="not empty"):
        for name in homes.sweep(NOW + timedelta(days=15)):
            gone.append(name)
    assert gone == ["bob.5.20261124T120000Z"]
