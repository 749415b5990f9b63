"""The error tree. The type decides what happens: what a caller exits with, whether a worker tries again.

OnehostError
├── Refused            a rule says no; nothing was changed                      exit 3
│   ├── Invalid        the input itself is wrong                                exit 2
│   ├── NotFound       no such resource, node or job                            exit 4
│   └── Conflict       somebody else changed or holds it                        exit 5
├── Unreachable        store or broker cannot be reached                        exit 7
├── TimedOut           the wait ended, the job goes on                          exit 6
└── HostError          a node could not do it
    ├── Permanent      trying again would not help; the resource is failed
    ├── Temporary      the worker tries again with backoff
    ├── Pending        applied, but something it waits for is not over yet (a drain)
    └── Blocked        the daemon's live configuration is broken; no resource is to blame
"""

from __future__ import annotations


class OnehostError(Exception):
    """Root of everything onehost raises on purpose. `hint` names the next command to try, where there is one."""

    exit_code = 1

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class Refused(OnehostError):
    """A rule of onehost says no. Nothing was changed."""

    exit_code = 3


class Invalid(Refused):
    """The input is wrong. `problems` maps a field's path to what is wrong with it."""

    exit_code = 2

    def __init__(self, what: str, problems: dict[str, str] | None = None, *, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.problems = problems or {}


class NotFound(Refused):
    """The thing named does not exist."""

    exit_code = 4


class Conflict(Refused):
    """Another resource holds the claim, or the resource is no longer at the generation the caller read."""

    exit_code = 5


class Unreachable(OnehostError):
    """The store or the broker cannot be reached."""

    exit_code = 7


class TimedOut(OnehostError):
    """The caller's wait ended before the job did; the job goes on."""

    exit_code = 6


class HostError(OnehostError):
    """Something on a node did not work. `culprit` is the owner named by the daemon, if it named one."""

    def __init__(self, what: str, *, culprit: str = "") -> None:
        super().__init__(what)
        self.culprit = culprit


class Permanent(HostError):
    """Will not get better by itself: the resource is failed until a person or a newer generation changes it."""


class Temporary(HostError):
    """May get better by itself (full disk, a daemon that is restarting): the worker tries again with backoff."""


class Pending(HostError):
    """The change is made; what it waits for (connections to end) is not over. Looked at again, never a failure."""


class Blocked(HostError):
    """A daemon's live configuration is broken by another hand, said as FILE:LINE. The round waits, nobody is blamed."""
