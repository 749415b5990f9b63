"""Homes, on the storage node: made whole before anybody can see them, moved to the trash, never inherited.

    /home/NAME             root 0711: one root-owned tree that SFTP can be locked into
    /home/NAME/.onehost-id root: the id of the resource it belongs to
    /home/NAME/home        the account's, 0710 for Apache's group: neighbours cannot pass, Apache can
    /home/NAME/home/web    the account's, 2750: new files get Apache's group, so nothing need be open to the world
    /home/NAME/mail log tmp  the account's alone

Below what a tenant owns, work is done with the tenant's own rights and no link is followed.
"""

from __future__ import annotations

import errno
import grp
import os
import re
import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ...models.errors import Permanent, Temporary
from . import files
from .machine import Machine

HOME = "/home"
MARKER = ".onehost-id"
#: Days a removed home stays in the trash.
RETENTION_DAYS = 14
#: Debian's number of Apache's group, where Apache is not installed.
WWW_DATA = 33
_TRASHED = re.compile(r"^[a-z0-9]+\.\d+\.(\d{8}T\d{6})Z(?:\.\d+)?$")
_PLACEHOLDER = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Ready</title>
<body><h1>This site is ready.</h1><p>Its owner has not put any pages here yet.</p></body></html>
"""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class Homes:
    """The homes below /home and the trash beside them."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.folder = machine.path(HOME)
        self.trash_folder = self.folder / ".trash"

    def owner(self, name: str) -> int | None:
        """Whose home this is; None if there is none, 0 if it is there but not onehost's."""
        home = self.folder / name
        try:
            if not stat.S_ISDIR(home.lstat().st_mode):
                return 0
        except FileNotFoundError:
            return None
        text = files.read(home / MARKER)
        return int(text) if text and text.strip().isdigit() else 0

    def make(self, name: str, owner: int, uid: int, gid: int, document_root: str | None) -> None:
        """Makes a home, complete or not at all. Raises Permanent if something of that name stands there."""
        if (there := self.owner(name)) is not None:
            raise Permanent(f"/home/{name} is already there and belongs to {_whose(there)}")
        making = self.folder / f".making.{name}.{owner}"
        shutil.rmtree(making, ignore_errors=True)
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        making.mkdir(mode=0o700)
        chown, www = self.machine.runner.chown, _www_data()
        if document_root is not None:
            web = making / "home" / document_root
            web.mkdir(parents=True)
            files.fresh(web / "index.html", _PLACEHOLDER)
            chown(web / "index.html", uid, www)
            for folder in [web, *web.parents]:
                if folder == making / "home":
                    break
                chown(folder, uid, www)
                folder.chmod(0o2750)
        for child, mode, group in (
            ("home", 0o710, www),
            ("mail", 0o700, gid),
            ("log", 0o700, gid),
            ("tmp", 0o700, gid),
        ):
            (making / child).mkdir(exist_ok=True)
            chown(making / child, uid, group)
            (making / child).chmod(mode)
        files.fresh(making / MARKER, f"{owner}\n")
        files.sync_folder(making)
        making.chmod(0o711)
        os.rename(making, self.folder / name)
        files.sync_folder(self.folder)

    def root_state(self, name: str, document_root: str) -> str:
        """What is at the place of a document root: folder, missing, hidden (root is squashed here), or why it is none.

        A link in the place itself counts as a folder: Apache follows it only to what has the same owner.
        """
        place = f"document root /home/{name}/home/{document_root}"
        parts = Path(document_root).parts
        try:
            handle = os.open(self.folder / name / "home", _FOLDER)
        except FileNotFoundError:
            return "missing"
        except PermissionError:
            return "hidden"
        try:
            for number, part in enumerate(parts, 1):  # noqa: B007 - used where the walk ends
                below = os.open(part, _FOLDER, dir_fd=handle)
                os.close(handle)
                handle = below
            return "folder"
        except FileNotFoundError:
            return "missing"
        except PermissionError:
            return "hidden"
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            if not stat.S_ISLNK(os.stat(part, dir_fd=handle, follow_symlinks=False).st_mode):
                return f"{place} is a file, not a folder" if number == len(parts) else f"{place} lies below a file"
            return "folder" if number == len(parts) else f"{place} lies behind a link"
        finally:
            os.close(handle)

    def make_root(self, name: str, uid: int, gid: int, document_root: str) -> None:
        """Makes a document root with a placeholder page in an existing home, with the account's own rights."""
        home, www, chown = self.folder / name / "home", _www_data(), self.machine.runner.chown

        def work() -> None:
            os.umask(0)
            handle = os.open(home, _FOLDER)
            made = False
            for part in Path(document_root).parts:
                try:
                    os.mkdir(part, 0o700, dir_fd=handle)
                    made = True
                except FileExistsError:
                    made = False
                handle = os.open(part, _FOLDER, dir_fd=handle)
                if made:
                    chown(handle, -1, www)
                    os.fchmod(handle, 0o2750)
            if made:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                with os.fdopen(os.open("index.html", flags, 0o644, dir_fd=handle), "w") as page:
                    page.write(_PLACEHOLDER)

        self.machine.runner.as_user(uid, gid, [www], work)

    def trash(self, name: str, owner: int, now: datetime) -> None:
        """Moves the owner's home to the trash. Another's home is left where it is; none is as good."""
        if self.owner(name) != owner:
            return
        self.trash_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        label = f"{name}.{owner}.{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        names = (label, *(f"{label}.{number}" for number in range(1, 1000)))
        place = next(place for each in names if not (place := self.trash_folder / each).exists())
        try:
            os.rename(self.folder / name, place)
        except OSError as error:
            raise Temporary(f"/home/{name} cannot be moved to the trash: {error.strerror}") from error
        files.sync_folder(self.trash_folder)
        files.sync_folder(self.folder)

    def sweep(self, now: datetime, days: int = RETENTION_DAYS) -> list[str]:
        """Deletes what has been in the trash for longer than `days`. Returns the names of what went."""
        gone = []
        for place in sorted(self.trash_folder.iterdir()) if self.trash_folder.is_dir() else []:
            match = _TRASHED.match(place.name)
            if match and datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC) < now - timedelta(days=days):
                # Safe against links: rmtree works by descriptor and none of these tenants' processes lives.
                shutil.rmtree(place)
                gone.append(place.name)
        return gone


def _whose(owner: int) -> str:
    return f"id {owner}, which is not known as replaced" if owner else "nobody onehost knows"


def _www_data() -> int:
    try:
        return grp.getgrnam("www-data").gr_gid
    except KeyError:
        return WWW_DATA
