"""Looks, unasked and between rounds: for drift, daemons that ended, configurations that another hand has broken."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..models import wire
from .drift import GaveWay, summary

if TYPE_CHECKING:
    from .drift import Drift
    from .executor import Executor
    from .host import Host
    from .host.owned import Finding
    from .ledger import Ledger

log = logging.getLogger(__name__)

#: How often daemons and what they read are looked at, in seconds; while one is ill or has ended.
LOOK_SECONDS, ILL_SECONDS = 5.0, 2.0
#: How often processes are looked at while all of them run, in seconds: it takes programs of the machine's init.
DOWN_SECONDS = 15.0
#: A look that gave way to something urgent is begun again after this long, in seconds.
AGAIN_SECONDS = 5.0
#: The first look for drift after a start comes within this time, in seconds.
FIRST_SECONDS = 30.0
#: Differences named in a beat.
NAMED = 20


class Watch:
    """`news()` is called when what a beat says of it has changed."""

    def __init__(self, ledger: Ledger, host: Host, drift: Drift, executor: Executor, check_seconds: float,
                 roles: Callable[[], frozenset[str]], news: Callable[[], None]) -> None:  # fmt: skip
        self._ledger = ledger
        self._host = host
        self._drift = drift
        self._executor = executor
        self._check_seconds = check_seconds
        self._roles = roles
        self._news = news
        self._look_at = self._down_at = 0.0
        first = min(FIRST_SECONDS, check_seconds)
        self._check_at = time.monotonic() + random.uniform(0.5, 1.0) * first if check_seconds else float("inf")
        self._seen: tuple[Any, ...] = ()
        self._found: list[Finding] = []
        self._down: list[str] = []

    def look(self) -> None:
        """Called between rounds; costs nothing until it is time."""
        before = self.said()
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at_daemons()
            is_ill = self._down or self._executor.blocked
            self._look_at = time.monotonic() + (ILL_SECONDS if is_ill else LOOK_SECONDS)
            self._executor.idle_seconds = ILL_SECONDS if is_ill else LOOK_SECONDS
        if now >= self._check_at:
            is_done = self._check()
            wait = self._check_seconds * random.uniform(0.9, 1.1) if is_done else AGAIN_SECONDS
            self._check_at = time.monotonic() + wait
        if self.said() != before:
            log.info("watched", extra={"action": "watch", **{k: str(v)[:500] for k, v in self.said().items()}})
            self._news()

    def soon(self) -> None:
        """Has it look at once: something was put back, started or stopped."""
        self._look_at, self._down_at, self._seen = 0.0, 0.0, ()
        self._check_at = min(self._check_at, 0.0) if self._check_seconds else self._check_at
        self._executor.wake()

    def said(self) -> dict[str, Any]:
        """Its part of a beat."""
        blocked = {name: wire.clean(text, 200) for name, text in self._executor.blocked.items()}
        drift = {wire.clean(about, wire.MAX_WORD): wire.clean(what, 200)
                 for about, what in summary(self._found, NAMED).items()}  # fmt: skip
        return {"blocked": blocked, "down": dict.fromkeys(self._down, "does not run"), "drift": drift,
                "drifted": len(self._found), "stopped": dict(self._ledger.stopped.all)}  # fmt: skip

    def _look_at_daemons(self) -> None:
        if not self._host.daemons or not self._host.machine.real:
            return
        roles = self._roles()
        if self._down or time.monotonic() >= self._down_at:
            self._down, self._down_at = self._host.down(roles), time.monotonic() + DOWN_SECONDS
        for program in self._host.needed_programs(roles):
            if words := program.ill(again=program.key in self._executor.blocked):
                self._executor.blocked[program.key] = words
            else:
                self._executor.blocked.pop(program.key, None)

    def _check(self) -> bool:
        """A look at every file's times first: what has not moved since nothing differed differs from nothing.

        False: it gave way to a removal, a suspension or a password.
        """
        seen: tuple[Any, ...] = (self._ledger.digest.root(),)
        if self._host.daemons:
            seen = (*seen, self._host.fingerprint(self._roles()), tuple(self._down))
        if seen == self._seen and not self._found:
            return True
        try:
            self._found = self._drift.find(gives_way=lambda: bool(self._ledger.urgent_open()))
        except GaveWay:
            return False
        self._seen = seen
        return True
