"""Homes, on the storage node: made whole before anybody can see them, moved to the trash, never inherited.

    /home/NAME             root 0711: one root-owned tree that SFTP can be locked into
    /home/NAME/.onehost-id root: the id of the resource it belongs to
    /home/NAME/home        the account's, 0710 for Apache's group: neighbours cannot pass, Apache can
    /home/NAME/home/web    the account's, 2750: new files get Apache's group, so nothing need be open to the world
    /home/NAME/mail log tmp  the account's alone
    /home/NAME/tmp/sessions  the account's alone: PHP's sessions, which any node goes on with and PHP itself clears out
    /home/NAME/.cron       the account's alone: what its cron entries did last (workers/cron/claim.py)

Below what a tenant owns, work is done with the tenant's own rights and no link is followed.
"""

from __future__ import annotations

import errno
import grp
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ...models.errors import HostError, Permanent, Temporary
from . import document_roots, files
from .machine import Machine

HOME = "/home"
MARKER = ".onehost-id"
#: Below /home/NAME.
SESSIONS = "tmp/sessions"
#: Days a removed home stays in the trash.
RETENTION_DAYS = 14
#: Debian's number of Apache's group, where Apache is not installed.
WWW_DATA = 33
#: A home is measured no longer than this, in seconds.
WALK_SECONDS = 900.0
_TRASHED = re.compile(r"^[a-z0-9]+\.\d+\.(\d{8}T\d{6})Z(?:\.\d+)?$")


class Homes:
    """The homes below /home and the trash beside them."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.folder = machine.path(HOME)
        self.trash_folder = self.folder / ".trash"
        #: Document roots that wait to be made by account, uid and gid, and what the making of some met.
        self._wanted: dict[tuple[str, int, int], list[str]] = {}
        self._faults: dict[tuple[str, str], Exception] = {}

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

    def marked(self) -> tuple[tuple[str, int], ...]:
        """The names of all homes with what changes when a home or its marker is exchanged."""
        names = sorted(os.listdir(self.folder)) if self.folder.is_dir() else []
        found = []
        for name in names:
            with suppress(OSError):
                found.append((name, (self.folder / name / MARKER).lstat().st_ctime_ns))
        return tuple(found)

    def make(self, name: str, owner: int, uid: int, gid: int, document_root: str | None) -> None:
        """Makes a home, complete or not at all. Raises Permanent if something of that name stands there."""
        if (there := self.owner(name)) is not None:
            raise Permanent(f"/home/{name} is already there and belongs to {_whose(there)}")
        making = self.folder / f".making.{name}.{owner}"
        shutil.rmtree(making, ignore_errors=True)
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        making.mkdir(mode=0o700)
        chown, www = self.machine.runner.chown, www_data()
        if document_root is not None:
            web = making / "home" / document_root
            web.mkdir(parents=True)
            files.fresh(web / "index.html", document_roots.PAGE)
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
            (SESSIONS, 0o700, gid),
            (".cron", 0o700, gid),
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

        A link in the place itself counts as a folder: nothing is made there, and Apache does not follow it.
        """
        place = f"document root /home/{name}/home/{document_root}"
        parts = Path(document_root).parts
        try:
            handle = os.open(self.folder / name / "home", document_roots.FOLDER)
        except FileNotFoundError:
            return "missing"
        except PermissionError:
            return "hidden"
        try:
            for number, part in enumerate(parts, 1):  # noqa: B007 - used where the walk ends
                below = os.open(part, document_roots.FOLDER, dir_fd=handle)
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

    def needs_root(self, name: str, document_root: str, is_known: bool) -> bool:
        """Whether a document root is to be made. Raises Permanent if something else stands there.

        A root that is known already is not judged: what tenants do later in their own home must not be able to stop a
        suspension or a new password.
        """
        state = self.root_state(name, document_root)
        if state in ("missing", "folder", "hidden") or is_known:
            return state == "missing"
        raise Permanent(state)

    def want_root(self, name: str, uid: int, gid: int, document_root: str) -> None:
        """Notes a document root that is to be made: see `make_wanted`."""
        self._wanted.setdefault((name, uid, gid), []).append(document_root)

    def make_wanted(self, name: str, document_root: str) -> None:
        """Makes all wanted document roots of an account in one go, at the first call. Raises what this one met."""
        for key in [key for key in self._wanted if key[0] == name]:
            roots = self._wanted.pop(key)
            try:
                self._make_roots(*key, roots)
            except (HostError, OSError):
                for root in roots:
                    try:
                        self._make_roots(*key, [root])
                    except (HostError, OSError) as error:
                        self._faults[name, root] = error
        if fault := self._faults.pop((name, document_root), None):
            raise fault

    def make_root(self, name: str, uid: int, gid: int, document_root: str, *, page: bool = True) -> None:
        """Makes a folder in an existing home, with a placeholder `page` or without, with the account's own rights."""
        self._make_roots(name, uid, gid, [document_root], page)

    def _make_roots(self, name: str, uid: int, gid: int, wanted: Sequence[str], page: bool = True) -> None:
        home, www, chown = self.folder / name / "home", www_data(), self.machine.runner.chown

        def work() -> None:
            for document_root in wanted:
                try:
                    document_roots.make(home, document_root, page, lambda folder: chown(folder, -1, www))
                except OSError as error:
                    raise Permanent(f"{home}/{document_root} cannot be made: {error.strerror}") from error

        self.machine.runner.as_user(uid, gid, [www], work)

    def lacks_sessions(self, name: str) -> bool:
        """Whether there is no place for PHP's sessions; where root may not look, it is taken to be there."""
        try:
            (self.folder / name / SESSIONS).lstat()
        except FileNotFoundError:
            return (self.folder / name / "tmp").is_dir()
        except OSError:
            return False
        return False

    def make_sessions(self, name: str, uid: int, gid: int) -> None:
        """Makes a folder for PHP's sessions in an existing home, with the account's rights; what is there stays."""

        def work() -> None:
            tmp = os.open(self.folder / name / "tmp", document_roots.FOLDER)
            try:
                with suppress(FileExistsError):
                    os.mkdir("sessions", 0o700, dir_fd=tmp)
            finally:
                os.close(tmp)

        self.machine.runner.as_user(uid, gid, [], work)

    def size(self, name: str) -> int:
        """Bytes on disk of a home: a walk at the lowest priority that follows no link. Raises Temporary.

        What comes and goes while it walks, and what root may not see, is left out.
        """
        command = ("nice", "-n", "19", "ionice", "-c", "3", "du", "-s", "-x", "--block-size=1", "--")
        ended = self.machine.runner.run([*command, str(self.folder / name)], seconds=WALK_SECONDS)
        if not (said := re.search(rf"(?:^|\n)(\d+)\t{re.escape(str(self.folder / name))}\n\Z", ended.output)):
            raise Temporary(f"/home/{name} cannot be measured: {ended.words}")
        return int(said[1])

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

    def sweep(self, now: datetime, days: int = RETENTION_DAYS) -> Iterator[str]:
        """Deletes what has been in the trash for longer than `days`, and gives the names of what went.

        A home that cannot be deleted, as it is in use somewhere, holds up no other; raises OSError at the end.
        """
        failed = None
        for place in sorted(self.trash_folder.iterdir()) if self.trash_folder.is_dir() else []:
            match = _TRASHED.match(place.name)
            if match and datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC) < now - timedelta(days=days):
                try:
                    shutil.rmtree(place)  # by descriptor: no link leads it out of the home
                except OSError as error:
                    failed = error
                else:
                    yield place.name
        if failed:
            raise failed


def _whose(owner: int) -> str:
    return f"id {owner}, which is not known as replaced" if owner else "nobody onehost knows"


def www_data() -> int:
    """The number of Apache's group."""
    try:
        return grp.getgrnam("www-data").gr_gid
    except KeyError:
        return WWW_DATA
