"""Runs in a machine of the lab as a tenant: exchanges what is in the own home for links to others' things.

Counts into /run/swaps/NAME, for as long as /run/racing is there.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from contextlib import suppress

EXCHANGE = 2
CANARIES = ("/etc/canary", "/home/bob/home/web", "/etc/canary/secret", "/home/bob/home/web/secret.txt")
FOLDERS = ("home/web", "home/web/made", "home/web/made/deep", "home/web/made/deep/er", "tmp/sessions")
FILES = ("home/web/index.html", "log/alice.example.node1.log", "log/alice.example.node1.log.1", "log/cron.log",
         ".cron/1", "home/web/made/deep/index.html")  # fmt: skip
LIBC = ctypes.CDLL(None)


def pairs(home: str) -> list[tuple[str, int, bytes, bytes]]:
    """What is exchanged: an open folder, so that the way to it does not count, a name in it, and a link beside that."""
    found = []
    for number, path in enumerate((*FOLDERS, *FILES)):
        above, _, name = path.rpartition("/")
        if path in FOLDERS:
            os.makedirs(f"{home}/{path}", exist_ok=True)
        handle = os.open(f"{home}/{above}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        if path in FILES:
            with suppress(FileExistsError):
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=handle))
        for kind in range(2):
            canary = CANARIES[(2 if path in FILES else 0) + kind]
            with suppress(FileExistsError):
                os.symlink(canary, f"{name}.{number}.{kind}", dir_fd=handle)
            found.append((path, handle, name.encode(), f"{name}.{number}.{kind}".encode()))
    return found


def race(name: str, count: int) -> dict[str, int]:
    swaps: dict[str, int] = {}
    exchange, known = LIBC.renameat2, []
    while os.path.exists("/run/racing"):
        worked = 0
        for _ in range(50):
            for path, handle, own, link in known:
                if not exchange(handle, own, handle, link, EXCHANGE):
                    swaps[path] = swaps.get(path, 0) + 1
                    worked += 1
        os.pwrite(count, f"{sum(swaps.values()):12d}".encode(), 0)
        if not worked:
            for handle in {each[1] for each in known}:
                os.close(handle)
            known = []
            try:
                known = pairs(f"/home/{name}")
            except OSError:
                time.sleep(0.001)  # the home is not there, or a folder of it is a link just now
    return swaps


if __name__ == "__main__":
    print(json.dumps(race(sys.argv[1], os.open(f"/run/swaps/{sys.argv[1]}", os.O_WRONLY | os.O_CREAT, 0o644))))
