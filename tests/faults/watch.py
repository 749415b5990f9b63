"""Looks on while things break: numbers that must never fall, files that must never be seen half written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from onehost.models.errors import Unreachable
from onehost.models.store import Placement, connect, reading

from .cluster import NODES, Cluster

#: Below a node's machine: what daemons read.
LIVE = ("etc/onehost/*/live/*", "var/lib/extrausers/*", "etc/ssh/onehost/**/*", "etc/onehost/keys/**/*")
#: How often numbers and files are looked at, in seconds.
LOOK_SECONDS = 0.1


class Watch:
    """Two lookers on threads of their own. `faults` is what they saw."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._engine = connect(cluster.store)
        self._stop = threading.Event()
        self._looking = threading.Lock()
        self.faults: list[str] = []
        self.samples = 0
        #: The highest numbers seen, by placement or by (file of a ledger, entry).
        self._highest: dict[object, tuple[int, ...]] = {}
        #: By inode of a live file, held open so that the number cannot come again: what was read from it first.
        self._files: dict[tuple[int, int], tuple[int, str]] = {}
        self._threads = [threading.Thread(target=self._loop, args=(look,), daemon=True)
                         for look in (self._numbers, self._read_files)]  # fmt: skip
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(40)
        for descriptor, _ in self._files.values():
            os.close(descriptor)
        self._engine.dispose()

    def forget_ledgers(self) -> None:
        """A ledger was taken away on purpose."""
        with self._looking:
            self._highest = {key: value for key, value in self._highest.items() if not isinstance(key, str)}

    @contextlib.contextmanager
    def not_looking(self) -> Iterator[None]:
        """The store is put back on purpose: its numbers begin anew after the block."""
        with self._looking:
            yield
            self._highest = {}
            self._engine.dispose()

    def _loop(self, look: Callable[[], None]) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            # A store that is away cannot be looked at.
            with contextlib.suppress(Unreachable, SQLAlchemyError, OSError):
                look()

    def _numbers(self) -> None:
        with self._looking:
            self._look_at_numbers()

    def _look_at_numbers(self) -> None:
        with reading(self._engine) as connection:
            rows = connection.execute(
                select(Placement.resource_id, Placement.node_id, Placement.wanted, Placement.done, Placement.applied)
            ).all()
        for row in rows:
            self._rise(tuple(row[:2]), tuple(row[2:]))
        for node in NODES:
            for entry in self._cluster.read_ledger(node, "SELECT id, wanted, done, applied FROM entry"):
                self._rise(f"ledger of {node}: {entry['id']}", tuple(entry)[1:])
        self.samples += 1

    def _rise(self, key: object, numbers: tuple[int, ...]) -> None:
        before = self._highest.setdefault(key, numbers)
        if any(now < then for now, then in zip(numbers, before, strict=True)):
            self.faults.append(f"P4: {key} (wanted, done, applied) fell from {before} to {numbers}")
        self._highest[key] = numbers

    def _read_files(self) -> None:
        for node in NODES:
            machine = self._cluster.machine(node)
            for pattern in LIVE:
                for path in machine.glob(pattern):
                    if not path.name.startswith("."):
                        with contextlib.suppress(FileNotFoundError):
                            self._read(path)

    def _read(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        known = False
        try:
            found = os.fstat(descriptor)
            if not os.path.isfile(path):
                return
            data = os.pread(descriptor, 1 << 20, 0)
            key, seen = (found.st_dev, found.st_ino), hashlib.sha256(data).hexdigest()
            known = key not in self._files
            _, first = self._files.setdefault(key, (descriptor, seen))
            if first != seen:
                self.faults.append(f"P9: {path} was changed in place")
            if data and not data.endswith(b"\n"):
                self.faults.append(f"P9: {path} was seen half written: {data[-80:]!r}")
        finally:
            if not known:
                os.close(descriptor)
