"""Owned files as they should be, held against the machine: what is missing, changed, strange, open to others."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from . import files
from .machine import Machine

#: Lines of a diff that are shown, and the longest of them in characters.
DIFF_LINES, LONGEST_LINE = 20, 200
#: What must never stand in a diff or a log, wherever it is found.
_SECRETS = (
    re.compile(r"\$(?:2[abxy]|5|6|y|7|gy|argon2\w*)\$[^\s:,'\"]+"),
    re.compile(r"(?i)((?:password|passwd|secret|token|authorization|api[-_]?key)\"?\s*[:=]\s*(?:basic |bearer )?)\S+"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
)


@dataclass(frozen=True)
class Owned:
    """A file, folder or link that onehost keeps. `content` None: whatever it holds is right."""

    path: str
    content: bytes | None = None
    mode: int = 0o644
    #: Whose it is, a resource id; 0: the daemon's own.
    owner: int = 0
    is_folder: bool = False
    #: Where it points, if it is a link.
    target: str = ""
    group: int = 0
    #: Its content is never shown.
    is_secret: bool = False
    #: It may be missing, or be anything: it only is no stranger.
    is_free: bool = False


@dataclass(frozen=True)
class Finding:
    """One difference. `kind` decides what puts it back: content, mode, stranger, row, down or resource."""

    kind: str
    what: str
    path: str = ""
    #: Whose it is, a resource id; 0: nobody's, or the daemon's own.
    owner: int = 0
    daemon: str = ""
    diff: str = ""
    #: How it should be, where one word says it: a mode as 0o644, a group.
    mode: int = 0
    group: int = 0
    #: noun and name of the owner, once it is known.
    resource: str = ""


@runtime_checkable
class Checked(Protocol):
    """A daemon that can say how its files should be. What is staged counts as wanted."""

    name: str

    def check(self, settled: frozenset[int], known: frozenset[int]) -> list[Finding]:
        """What differs. `settled` ids have staged what they want; `known` ones are being changed and not judged."""
        ...

    def forget(self) -> None:
        """Drops what is staged, and what is remembered of the disk."""
        ...

    def renew(self) -> None:
        """Has the next `recover` tell the daemon of its files again: a stranger was taken out of them."""
        ...


@runtime_checkable
class Rows(Protocol):
    """A daemon whose files hold the rows of many owners."""

    def keep_only(self, owners: frozenset[int]) -> None:
        """Drops every row that belongs to none of these, whoever wrote it."""
        ...


def check(machine: Machine, daemon: str, wanted: Iterable[Owned], closed: Iterable[str] = ()) -> list[Finding]:
    """Holds owned things against the machine; in `closed` folders nothing else may be."""
    things = {each.path: each for each in wanted}
    found = [finding for each in things.values() if not each.is_free for finding in _one(machine, each)]
    found += [each for folder in closed for each in strangers(machine, folder, things)]
    return [replace(each, daemon=daemon) for each in found]


def strangers(machine: Machine, folder: str, things: Mapping[str, Owned]) -> Iterator[Finding]:
    """What is in an owned folder and is not ours."""
    place = machine.path(folder)
    for name in sorted(os.listdir(place)) if place.is_dir() else []:
        path = f"{folder}/{name}"
        # A new file is written beside the old one under such a name, for a moment.
        if path not in things and not re.fullmatch(r"\..+\.new", name):
            yield Finding("stranger", "is not onehost's and stands in a folder of onehost's", path)


def _one(machine: Machine, wanted: Owned) -> Iterator[Finding]:
    place = machine.path(wanted.path)
    about = Finding("content", "", wanted.path, wanted.owner, mode=wanted.mode, group=wanted.group)
    try:
        is_ = place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        yield replace(about, what="is missing")
        return
    if wanted.target:
        if files.pointed(place) != wanted.target:
            yield replace(about, what=f"does not point at {wanted.target}")
        return
    right = stat.S_ISDIR if wanted.is_folder else stat.S_ISREG
    if not right(is_.st_mode):
        kind = "a link" if stat.S_ISLNK(is_.st_mode) else "a folder" if stat.S_ISDIR(is_.st_mode) else "a special file"
        where = f" to {files.pointed(place)}" if stat.S_ISLNK(is_.st_mode) else ""
        yield replace(about, what=f"is {kind}{where} instead of a {'folder' if wanted.is_folder else 'file'}")
        return
    if wanted.content is not None and (content := files.read(place)) != wanted.content:
        text = "" if wanted.is_secret else diff(wanted.content, content or b"")
        yield replace(about, what="is changed", diff=text)
    mode = stat.S_IMODE(is_.st_mode)
    if mode != wanted.mode:
        yield replace(about, kind="mode", what=f"has mode {mode:04o} instead of {wanted.mode:04o}")
    if machine.real and (is_.st_uid, is_.st_gid) != (0, wanted.group):
        yield replace(about, kind="mode", what=f"belongs to {is_.st_uid}:{is_.st_gid} instead of 0:{wanted.group}")


def diff(wanted: bytes, found: bytes, lines: int = DIFF_LINES) -> str:
    """What another hand changed, as a unified diff of some lines; secrets are masked."""
    old, new = (mask(each.decode("utf-8", "replace")).splitlines() for each in (wanted, found))
    said = [line[:LONGEST_LINE] for line in difflib.unified_diff(old, new, "wanted", "found", n=1, lineterm="")]
    more = [f"… and {len(said) - lines} lines more"] if len(said) > lines else []
    return "\n".join([*said[:lines], *more])


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """The text with what is, or looks like, a secret taken out."""
    for secret in secrets:
        text = text.replace(secret, "***")
    for pattern in _SECRETS:
        text = pattern.sub(lambda match: f"{match[1] if match.re.groups else ''}***", text)
    return text
