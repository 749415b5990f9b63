"""The file of a backup: a manifest that says what it is, and the copy of the store. Written beside and renamed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

from ..models.errors import Invalid, NotFound

MANIFEST = "manifest.json"
COPY = "store"
#: The form of this file; another one is not read.
FORMAT = 1
#: A manifest is never larger, in bytes.
MAX_MANIFEST_BYTES = 64 * 1024


@dataclass(frozen=True)
class Manifest:
    """What a backup is of."""

    #: sqlite or postgresql.
    database: str
    #: The version of onehost that made it, and the revision of the tables in it.
    version: str
    revision: str
    incarnation: int
    #: The newest seal in it: position and hash.
    position: int
    hash: str
    #: When it was made, in ISO form.
    at: str
    #: Of the copy.
    bytes: int = 0
    sha256: str = ""
    format: int = FORMAT


def write(path: Path, manifest: Manifest, copy: Path) -> Manifest:
    """Makes the file at `path`, whole or not at all, mode 0600. Gives the manifest with the copy's size and hash."""
    manifest = Manifest(**asdict(manifest) | {"bytes": copy.stat().st_size, "sha256": _hash_of(copy)})
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as tar:
                _add(tar, MANIFEST, json.dumps(asdict(manifest), indent=2).encode())
                tar.add(copy, COPY, filter=_plain)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return manifest


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    tar.addfile(member, io.BytesIO(content))


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


@contextmanager
def opened(path: Path) -> Iterator[tuple[Manifest, Path]]:
    """The manifest and the copy, unpacked beside the file for the time of the block and compared with its hash.

    Raises NotFound or Invalid.
    """
    if not path.exists():
        raise NotFound(f"backup {path} does not exist", hint="onehost backup FILE")
    with _folder_beside(path) as folder:
        copy = folder / COPY
        try:
            with tarfile.open(path, "r:gz") as tar:
                manifest = _manifest(path, _member(path, tar, MANIFEST).read(MAX_MANIFEST_BYTES))
                with copy.open("wb") as file:
                    found = _copied(_member(path, tar, COPY), file)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise Invalid(f"{path} cannot be read as a backup: {error}") from error
        if found != manifest.sha256:
            raise Invalid(f"backup {path} is damaged: the copy in it has another hash than its manifest says")
        yield manifest, copy


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=".onehost-backup-")
    except OSError as error:
        raise Invalid(f"no room beside {path} to unpack it: {error.strerror}", hint="copy it elsewhere") from error
    with folder as name:
        yield Path(name)


def _member(path: Path, tar: tarfile.TarFile, name: str) -> IO[bytes]:
    try:
        found = tar.extractfile(name)
    except KeyError:
        found = None
    if found is None:
        raise Invalid(f"{path} is no backup of onehost: it holds no {name}")
    return found


def _manifest(path: Path, content: bytes) -> Manifest:
    try:
        given: dict[str, Any] = json.loads(content)
        if given["format"] != FORMAT:
            raise Invalid(f"{path} is a backup of form {given['format']}; this onehost reads {FORMAT}")
        return Manifest(**{field.name: given[field.name] for field in fields(Manifest)})
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid(f"{path}: its manifest cannot be read: {error}") from error


def _copied(source: IO[bytes], to: IO[bytes]) -> str:
    found = hashlib.sha256()
    while chunk := source.read(1 << 20):
        found.update(chunk)
        to.write(chunk)
    return found.hexdigest()


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
