"""A cron entry as a file of the node: written by the worker, read each minute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: Open to root alone, as a command may hold a secret.
PRIVATE = "/etc/onehost/cron"
#: The tree of the entries' files.
FOLDER = f"{PRIVATE}/entries"
#: Locks and marks of this node alone; gone with a reboot.
RUN = "/run/onehost/cron"
#: Entries are started only while it is there. A node that was away is told first what was removed or suspended.
SERVING = f"{RUN}/serving"


@dataclass(frozen=True)
class CronEntry:
    """A command of an account with its times. `owner` is the resource's id."""

    owner: int
    name: str
    account: str
    account_id: int
    schedule: str
    command: str
    limit_seconds: int
    enabled: bool = True

    def render(self) -> bytes:
        """Its file, one line of JSON in ASCII: nothing in a command can end it."""
        return (json.dumps(asdict(self), sort_keys=True) + "\n").encode("ascii")


def parse(content: bytes) -> CronEntry:
    """What `render` has written. Raises ValueError for anything else."""
    given: Mapping[str, Any] = json.loads(content)
    try:
        return CronEntry(**given)
    except TypeError as error:
        raise ValueError(f"no cron entry: {error}") from error
