"""Whole files, written so that a reader or a crash meets the old one or the new one and nothing between."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def write(path: Path, content: bytes | str, mode: int = 0o644, *, durable: bool = True) -> None:
    """Replaces a file atomically: written beside it, synced, renamed, and the folder synced."""
    beside = path.with_name(f".{path.name}.new")
    fresh(beside, content, mode, durable=durable)
    os.rename(beside, path)
    if durable:
        sync_folder(path.parent)


def fresh(path: Path, content: bytes | str, mode: int = 0o644, *, durable: bool = True) -> None:
    """Writes a file that nobody reads yet. What stood there is unlinked, never written into (it may be a hard link)."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        os.fchmod(handle, mode)
        data = content.encode() if isinstance(content, str) else content
        while data:
            data = data[os.write(handle, data) :]
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)


def read(path: Path) -> bytes | None:
    """The content of a file; None if there is none."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def link(path: Path, target: str) -> None:
    """Points a symbolic link at `target` in one step."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    os.rename(beside, path)
    sync_folder(path.parent)


def pointed(path: Path) -> str:
    """Where a symbolic link points; empty if there is none."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def ensure(path: Path, content: bytes | str, mode: int = 0o644) -> bool:
    """Writes a file only if it differs. Returns whether it did."""
    data = content.encode() if isinstance(content, str) else content
    if read(path) == data and stat.S_IMODE(path.stat().st_mode) == mode:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, data, mode)
    return True


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Unlinks a file durably; one that is not there is as good."""
    if path.is_symlink() or path.exists():
        path.unlink()
        sync_folder(path.parent)
