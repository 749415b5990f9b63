"""Disks that are full or broken: ballast on a small one, errors injected into one process' calls."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..services.process import is_missing


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Nothing more can be written to the disk of `folder` while the block runs."""
    ballast = folder / "ballast"
    size = 1 << 20
    try:
        with ballast.open("ab", buffering=0) as file:
            while size:
                with contextlib.suppress(OSError):
                    while file.write(b"\0" * size) == size:
                        continue
                size //= 2
        yield
    finally:
        ballast.unlink(missing_ok=True)


def strace(*words: str, into: Path = Path("/dev/null")) -> list[str]:
    """What a process is started behind, so that its calls are written down or made to fail."""
    program = shutil.which("strace")
    if not program:
        is_missing("strace is not installed (apt-get install strace)")
    return [program, "-f", "-qq", "-o", os.fspath(into), *words]
