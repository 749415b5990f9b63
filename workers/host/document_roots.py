"""How a site's folder is made in a home, with the rights of the home's user and without following a link."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

#: How a folder is opened: as a folder, and not where a link leads.
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
#: What a new site shows.
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Ready</title>
<body><h1>This site is ready.</h1><p>Its owner has not put any pages here yet.</p></body></html>
"""


def make(home: Path, document_root: str, page: bool, give: Callable[[int], None]) -> None:
    """Makes a folder below `home`, each part of the way that is missing, and a `page` in it if it is new.

    `give` gets a descriptor of each folder made. Without room for the page the last folder goes again: else it would
    count as made at the next try. Raises OSError.
    """
    parts, made = Path(document_root).parts, False
    with ExitStack() as opened:
        above = handle = os.open(home, FOLDER)
        opened.callback(os.close, handle)
        for part in parts:
            above, made = handle, _made(part, handle)
            handle = os.open(part, FOLDER, dir_fd=above)
            opened.callback(os.close, handle)
            if made:
                give(handle)
                os.fchmod(handle, 0o2750)
        if made and page:
            try:
                _write_page(handle)
            except OSError:
                with suppress(OSError):
                    os.unlink("index.html", dir_fd=handle)
                with suppress(OSError):
                    os.rmdir(parts[-1], dir_fd=above)
                raise


def _made(folder: str, handle: int) -> bool:
    try:
        os.mkdir(folder, 0o700, dir_fd=handle)
    except FileExistsError:
        return False
    return True


def _write_page(handle: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open("index.html", flags, 0o644, dir_fd=handle), "w") as placeholder:
        os.fchmod(placeholder.fileno(), 0o644)
        placeholder.write(PAGE)
