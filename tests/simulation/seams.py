"""The one seam of the simulation: inside it, onehost's clock and its named crash points belong to the test.

Modules keep `import time`, `moment.now` and `crash_point` as they are; what those names mean is changed from here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from onehost.models import crash, moment

START = datetime(2026, 12, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICK_SECONDS = 2e-6


class Crash(BaseException):
    """The process is gone here. No handler of the product may see it: they catch Exception."""


class Clock:
    """What onehost's modules know as `time`. It hardly moves until somebody waits."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.elapsed_seconds = 10_000.0
        #: The wall clock alone may jump.
        self.skew_seconds = 0.0
        self._furthest_seconds = 0.0

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.skew_seconds += seconds
        self._furthest_seconds = max(self._furthest_seconds, self.skew_seconds)

    def come_right(self) -> None:
        """Goes on until it shows the latest time that it has ever shown: what was to wait until then is due."""
        self.elapsed_seconds += self._furthest_seconds - self.skew_seconds
        self._furthest_seconds = self.skew_seconds

    def monotonic(self) -> float:
        return self.elapsed_seconds

    def time(self) -> float:
        return self.now().timestamp()

    def sleep(self, seconds: float) -> None:
        self.elapsed_seconds += seconds

    def now(self) -> datetime:
        """A little later than the time before: of two transactions in one step, it shows which was first."""
        self.elapsed_seconds += TICK_SECONDS
        return START + timedelta(seconds=self.elapsed_seconds + self.skew_seconds)

    def microseconds(self) -> int:
        """What the wall clock shows, as the store keeps times. It does not move by that."""
        shown = START + timedelta(seconds=self.elapsed_seconds + self.skew_seconds)
        return (shown - EPOCH) // timedelta(microseconds=1)


class Points:
    """Crash points: at the nth passing of a name something happens, once. The process dies there by default."""

    def __init__(self) -> None:
        self._armed: dict[str, tuple[int, Callable[[], None]]] = {}

    def reset(self) -> None:
        self._armed.clear()

    def arm(self, name: str, act: Callable[[], None] | None = None, *, nth: int = 1) -> None:
        self._armed[name] = (nth, act or _die)

    def __call__(self, name: str) -> None:
        if name in self._armed:
            nth, act = self._armed.pop(name)
            if nth > 1:
                self._armed[name] = (nth - 1, act)
            else:
                act()


def _die() -> None:
    raise Crash


class Asleep(BaseException):
    """A loop of the product has nothing to do now."""


class Turns:
    """Stands where a loop waits for an event: lets it go round so often, then takes it off the processor."""

    def __init__(self, turns: int = 0) -> None:
        self._turns = turns

    def wait(self, timeout: float | None = None) -> bool:
        if not self._turns:
            raise Asleep
        self._turns -= 1
        return True

    def set(self) -> None: ...
    def clear(self) -> None: ...

    def is_set(self) -> bool:
        return False


CLOCK, POINTS = Clock(), Points()


@contextmanager
def taken_over() -> Iterator[None]:
    """Gives clock and crash points of every loaded module of onehost to the simulation, and back at the end."""
    stands_for: list[tuple[Any, Any]] = [(time, CLOCK), (moment.now, CLOCK.now), (crash.crash_point, POINTS)]
    patches = [
        patch.object(module, name, ours)
        for module_name, module in list(sys.modules.items())
        if module_name.startswith("onehost.")
        for name, value in list(vars(module).items())
        for theirs, ours in stands_for
        if value is theirs
    ]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in reversed(patches):
            each.stop()
