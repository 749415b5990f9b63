"""A versioned folder of owned files: staged beside the live one, switched by one rename of a symbolic link.

    FOLDER/trees/7/alice.812.conf     one file of one owner; the number in its name is the owner's id
    FOLDER/live -> trees/7            what the daemon includes
    FOLDER/staged -> trees/8          what is tried: hard links of the live files, except what changes
    FOLDER/signalled                  "7": the tree the daemon was last told of

`live` differing from `signalled` is the journal: a kill between switch and signal shows there at the next start.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from . import files
from .owned import Owned

#: NAME.ID.SUFFIX; a file whose name is otherwise belongs to no owner and is derived anew for each tree.
OWNED = re.compile(r"^(?P<label>.+)\.(?P<owner>\d+)\.[a-z]+$")

Contents = Mapping[str, bytes]
#: Makes the files that belong to nobody, from the staged folder and its number.
Derive = Callable[[Path, int], Contents]


@dataclass(frozen=True)
class Private:
    """Files of this suffix are for root and one group alone."""

    suffix: str
    group: int
    chown: Callable[[Path, int, int], None]


def _nothing(folder: Path, number: int) -> Contents:
    return {}


class Tree:
    """The owned files of one daemon."""

    def __init__(self, folder: Path, derive: Derive = _nothing, private: Private | None = None) -> None:
        self.folder = folder
        self._derive = derive
        self._private = private
        self._live = ""
        self._names: dict[int, set[str]] = {}
        self._holders: dict[str, set[int]] = {}
        self._staged: dict[int, Contents] = {}
        self._before: dict[int, Contents] = {}
        #: Owners whose files in the staged folder are not yet as staged. None: there is no staged folder.
        self._dirty: set[int] | None = None
        #: What each owner has in the staged folder by now.
        self._placed: dict[int, set[str]] = {}

    @property
    def number(self) -> int:
        """The number of the live tree; 0 if there is none yet."""
        return int(files.pointed(self.folder / "live").rpartition("/")[2] or 0)

    @property
    def live(self) -> Path:
        """The folder of the live tree, by its own name."""
        return self.folder / "trees" / str(self.number)

    def files(self, owner: int) -> dict[str, bytes]:
        """What `owner` has in the live tree, by file name."""
        names = self._index().get(owner, set())
        return {name: files.read(self.live / name) or b"" for name in sorted(names)}

    def owners(self) -> frozenset[int]:
        """Everybody who has files in the live tree."""
        return frozenset(owner for owner, names in self._index().items() if names)

    def holders(self, label: str) -> set[int]:
        """Owners of live files with this label (the name before the id)."""
        self._index()
        return set(self._holders.get(label, set()))

    def put(self, owner: int, contents: Contents) -> None:
        """Stages an owner's files, all of them; empty means that it has none."""
        for name in contents:
            match = OWNED.match(name)
            if not match or int(match["owner"]) != owner:
                raise ValueError(f"{name!r} is not a name for a file of owner {owner}")
        live = self.files(owner)
        self._before.setdefault(owner, live)
        if owner not in self._staged and live == contents:
            return
        self._staged[owner] = dict(contents)
        if self._dirty is not None:
            self._dirty.add(owner)

    def restore(self, owner: int) -> None:
        """Stages again what `owner` had before this round."""
        if owner in self._before:
            self.put(owner, self._before[owner])

    def changed(self) -> frozenset[int]:
        """Owners whose staged files differ from the live ones."""
        return frozenset(owner for owner, contents in self._staged.items() if contents != self.files(owner))

    def build(self) -> Path:
        """Brings the staged folder up to what is staged and returns it. A second call costs only what changed."""
        number = self.number + 1
        folder = self.folder / "trees" / str(number)
        if self._dirty is None:
            shutil.rmtree(folder, ignore_errors=True)
            self._make(folder)
            changed, live, staged = self.changed(), str(self.live), str(folder)
            for owner, names in self._index().items():
                if owner not in changed:
                    for name in names:
                        # What another hand took away is for `node check` to tell; it holds nobody else up.
                        with suppress(FileNotFoundError):
                            os.link(f"{live}/{name}", f"{staged}/{name}", follow_symlinks=False)
            self._dirty, self._placed = set(changed), {}
            files.link(self.folder / "staged", f"trees/{number}")
        for owner in self._dirty:
            self._place(folder, owner)
        for name, content in self._derive(folder, number).items():
            files.fresh(folder / name, content)
        self._dirty = set()
        files.sync_folder(folder)
        return folder

    def switch(self) -> None:
        """Makes what is staged live."""
        folder = self.build()
        for owner, contents in self._staged.items():
            self._enter(owner, set(contents))
        self._live = f"trees/{folder.name}"
        files.link(self.folder / "live", self._live)
        self._staged, self._dirty = {}, None

    def unsignalled(self) -> bool:
        """Whether the daemon has not been told of the live tree."""
        return (files.read(self.folder / "signalled") or b"").decode().strip() != str(self.number)

    def signalled(self) -> None:
        """Notes that the daemon has the live tree."""
        files.write(self.folder / "signalled", f"{self.number}\n")

    def settle(self) -> None:
        """Forgets what was staged and what was before, and removes the trees that are not live."""
        self._staged, self._before, self._dirty = {}, {}, None
        live, trees = str(self.number), self.folder / "trees"
        for old in os.listdir(trees) if trees.is_dir() else []:
            if old != live:
                shutil.rmtree(trees / old)

    def recover(self) -> None:
        """Makes the first tree, or one anew if what is derived is no longer what this version derives."""
        self._make(self.folder / "trees")
        number = self.number
        derived = self._derive(self.live, number) if number else {}
        if number and all(files.read(self.live / name) == content for name, content in derived.items()):
            return
        self.switch()

    def owned(self, path: str, settled: frozenset[int], known: frozenset[int]) -> list[Owned]:
        """How the live tree should be, in the folder `path` of the machine: what is staged, else what is live."""
        live = f"{path}/trees/{self.number}"
        wanted = [Owned(each, mode=0o755, is_folder=True) for each in (path, f"{path}/trees", live)]
        wanted.append(Owned(f"{path}/live", target=f"trees/{self.number}"))
        for owner in settled | known:
            for name, content in self._staged.get(owner, self.files(owner)).items():
                file = Owned(f"{live}/{name}", content if owner in settled else None, owner=owner)
                if private := self._private_for(name):
                    file = replace(file, mode=0o640, group=private.group, is_secret=True)
                wanted.append(file)
        wanted += [Owned(f"{path}/{name}", is_free=True) for name in ("staged", "signalled")]
        derived = self._derive(self.live, self.number)
        return wanted + [Owned(f"{live}/{name}", content) for name, content in derived.items()]

    def forget(self) -> None:
        """Drops what is staged, and what is remembered of the disk."""
        self._staged, self._before, self._dirty, self._live = {}, {}, None, ""

    def unsignal(self) -> None:
        """Has the daemon be told again of the live tree: another hand's file in it was taken away."""
        files.remove(self.folder / "signalled")

    def owner_in(self, words: str) -> str:
        """The id of the owner whose file is named in a daemon's message; empty if none is."""
        found = re.search(re.escape(str(self.folder)) + r"/(?:live|staged|trees/\d+)/[^\s:/]+?\.(\d+)\.[a-z]+\b", words)
        return found[1] if found else ""

    def _place(self, folder: Path, owner: int) -> None:
        contents = self._staged.get(owner, {})
        for name in self._placed.get(owner, set()) - set(contents):
            (folder / name).unlink()
        for name, content in contents.items():
            private = self._private_for(name)
            files.fresh(folder / name, content, 0o640 if private else 0o644)
            if private:
                private.chown(folder / name, 0, private.group)
        self._placed[owner] = set(contents)

    def _private_for(self, name: str) -> Private | None:
        return self._private if self._private and name.endswith(self._private.suffix) else None

    def _index(self) -> dict[int, set[str]]:
        live = files.pointed(self.folder / "live")
        if live != self._live:
            self._live, self._names, self._holders = live, {}, {}
            for name in os.listdir(self.folder / live):
                if match := OWNED.match(name):
                    self._names.setdefault(int(match["owner"]), set()).add(name)
                    self._holders.setdefault(match["label"], set()).add(int(match["owner"]))
        return self._names

    def _enter(self, owner: int, names: set[str]) -> None:
        for name in self._names.pop(owner, set()):
            self._holders.get(name.rsplit(".", 2)[0], set()).discard(owner)
        for name in names:
            self._names.setdefault(owner, set()).add(name)
            self._holders.setdefault(name.rsplit(".", 2)[0], set()).add(owner)

    @staticmethod
    def _make(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
