"""Named points at which a test may kill a process. In normal runs they do nothing and cost a call.

ONEHOST_CRASH_AT names one point, "relay.confirmed", or its third time, "relay.confirmed:3". There the process gets
SIGKILL from itself: no handler runs and nothing is flushed, as after a power cut.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable

VARIABLE = "ONEHOST_CRASH_AT"


def _never(name: str) -> None:
    """No point is named."""


def armed(at: str) -> Callable[[str], None]:
    """What `crash_point` is where the environment says `at`; empty: nothing happens at any point."""
    if not at:
        return _never
    wanted, _, times = at.partition(":")
    count = itertools.count(1)

    def crash(name: str) -> None:
        # next() of a count is one step of the interpreter: threads never get the same number.
        if name == wanted and next(count) == int(times or 1):
            os.kill(os.getpid(), signal.SIGKILL)

    return crash


#: Call it where a test may want the process to die, with the name of the place: "duty.step just done".
crash_point = armed(os.environ.get(VARIABLE, ""))
