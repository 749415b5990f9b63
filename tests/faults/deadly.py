"""The worker, but one account kills its process: what a bug in a reconciler would do. Run in place of the worker."""

from __future__ import annotations

import os
import signal
from typing import Any

from onehost.models import settings
from onehost.workers.main import run
from onehost.workers.reconcilers import reconcilers

#: The account that is deadly.
KILLER = "killer"


def main() -> None:
    """See the module."""
    account = reconcilers()["account"]
    stage = account.stage

    def deadly(entry: Any, host: Any, view: Any) -> None:
        if entry.name == KILLER:
            os.kill(os.getpid(), signal.SIGKILL)
        stage(entry, host, view)

    account.stage = deadly  # type: ignore[method-assign]
    run(settings.worker())


if __name__ == "__main__":
    main()
