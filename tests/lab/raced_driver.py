"""Runs in a machine of the lab as root: does all that a worker does below homes, again and again, in raced homes."""

from __future__ import annotations

import json
import os
import pwd
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from onehost.models.errors import HostError
from onehost.workers.cron import claim, said
from onehost.workers.host import Host
from onehost.workers.host.site_log import SiteLogs

HOME = Path("/home/alice")
EVE = 4_000_000
LINES = b'10.0.0.1 - - [26/Nov/2026:21:00:00 +0000] "GET / HTTP/1.1" 200 1 "-" "-" 1\n' * 20


class Driver:
    def __init__(self) -> None:
        self.host = Host.real()
        user = pwd.getpwnam("alice")
        self.who = (user.pw_uid, user.pw_gid)
        self.round = 0

    def document_root(self) -> None:
        root = ("web/made", "web/made/deep/er", f"web/made/{self.round % 7}")[self.round % 3]
        self.host.homes.root_state("alice", root)
        self.host.homes.make_root("alice", *self.who, root)

    def sessions(self) -> None:
        self.host.homes.lacks_sessions("alice")
        self.host.homes.make_sessions("alice", *self.who)

    def measure(self) -> None:
        self.host.homes.size("alice")

    def site_log(self) -> None:
        logs = SiteLogs(self.host.machine, "node1")
        places, _ = logs.places("alice", *self.who, ["alice.example"])
        logs.append("alice", *self.who, {site: (LINES, place) for site, place in places.items()})

    def cron(self) -> None:
        def work() -> None:
            lock = claim.claim(HOME, 1, self.round, "node1")
            said.keep(HOME, self.round, "node1 raced", LINES)
            claim.sweep(HOME, {1})
            if lock is not None:
                os.close(lock)

        self.host.machine.runner.as_user(*self.who, [], work)

    def make_and_remove(self) -> None:
        """A home of its own comes, is raced, goes to the trash and out of it, and is raced there as well."""
        homes, swaps = self.host.homes, swapped("eve")
        if homes.owner("eve") is None:
            homes.make("eve", EVE, *self.who, "web")
        until = time.monotonic() + 2
        while swapped("eve") == swaps and time.monotonic() < until:
            time.sleep(0.01)
        homes.trash("eve", EVE, datetime.now(UTC))
        # What is exchanged while it is removed may stop a removal, which then comes at another time.
        list(homes.sweep(datetime.now(UTC) + timedelta(days=20)))


def swapped(name: str) -> int:
    with suppress(OSError, ValueError):
        return int(Path(f"/run/swaps/{name}").read_text())
    return 0


def main(swaps: int) -> None:
    driver = Driver()
    acts: list[Callable[[], None]] = [driver.document_root, driver.sessions, driver.measure, driver.site_log,
                                      driver.cron, driver.make_and_remove]  # fmt: skip
    done = {act.__name__: {"done": 0, "refused": 0} for act in acts}
    begun, rounds = swapped("alice"), max(30, swaps // 200)
    while driver.round < rounds or swapped("alice") - begun < swaps or swapped("eve") < swaps // 10:
        driver.round += 1
        for act in acts:
            try:
                act()
                done[act.__name__]["done"] += 1
            except (HostError, OSError):  # refused where a link stood, or something went while it was looked at
                done[act.__name__]["refused"] += 1
    print(json.dumps(done))


if __name__ == "__main__":
    main(int(sys.argv[1]))
