"""Measures, now and then and in its own thread, how much each account holds on the node that keeps its files."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..models.errors import HostError
from ..models.wire import LISTED_AT_ONCE

if TYPE_CHECKING:
    from .host import Host
    from .ledger import Ledger

log = logging.getLogger(__name__)

#: The first look after a start comes within this time, in seconds.
FIRST_SECONDS = 60.0


class Usage:
    """`tell` is given what there is to publish."""

    def __init__(self, ledger: Ledger, host: Host, every_seconds: float,
                 tell: Callable[[Sequence[dict[str, Any]]], None]) -> None:  # fmt: skip
        self._ledger = ledger
        self._host = host
        self._every_seconds = every_seconds
        self._tell = tell

    def run(self, stop: threading.Event) -> None:
        """Measures until `stop` is set; not at all if that is not wanted."""
        wait = min(FIRST_SECONDS, self._every_seconds) or None
        while not stop.wait(wait and wait * random.uniform(0.9, 1.1)):
            self._measure(stop)
            wait = self._every_seconds

    def _measure(self, stop: threading.Event) -> None:
        """One home after the other; one that cannot be measured is left out."""
        began = time.monotonic()
        found: list[list[int]] = []
        if not self._host.daemons or not self._host.machine.real:
            return
        for entry in self._ledger.entries("account"):
            if stop.is_set():
                return
            if "storage" not in entry.roles or self._host.homes.owner(entry.name) != entry.id:
                continue
            try:
                found.append([entry.id, self._host.homes.size(entry.name)])
            except HostError as error:
                log.warning("not measured", extra={"action": "usage", "resource": f"account/{entry.name}",
                                                   "why": str(error)[:500]})  # fmt: skip
        parts = range(0, len(found), LISTED_AT_ONCE)
        self._tell([{"stored": found[at : at + LISTED_AT_ONCE], "at": time.time()} for at in parts])
        if found:
            log.info("measured", extra={"action": "usage", "accounts": len(found), "seconds": time.monotonic() - began})
