"""Many real workers in one process, each with a ledger, a connection and threads of its own, and a host that does
nothing.

    fleet.py CONFIG.json

The code is that of a node's own process (`onehost.workers.main.Worker`); only the interpreter is shared.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

from onehost.models import settings
from onehost.workers.main import Worker

#: A thousand threads want little room each.
STACK_BYTES = 256 * 1024


class IdleHost:
    """A machine on which nothing is done."""

    daemons = ()

    def recover(self, roles: frozenset[str]) -> None: ...
    def start(self, roles: frozenset[str]) -> None: ...
    def sweep(self, roles: frozenset[str]) -> None: ...


class Nothing:
    """A reconciler that finds a difference, changes nothing and is content."""

    def __init__(self, noun: str) -> None:
        self.noun = noun

    def compare(self, entry: Any, host: Any, view: Any) -> dict[str, str]:
        return {"it": "changed"}

    def prepare(self, entry: Any, host: Any, view: Any) -> None: ...
    def stage(self, entry: Any, host: Any, view: Any) -> None: ...
    def finish(self, entry: Any, host: Any, view: Any) -> None: ...
    def verify(self, entry: Any, host: Any, view: Any) -> None: ...


def main() -> None:
    config = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(config["folder"])
    threading.stack_size(STACK_BYTES)
    known = {noun: Nothing(noun) for noun in ("account", "node", "virtual_service")}
    threads = []
    for name in config["mine"]:
        broker = settings.Broker(port=config["port"], user=f"node-{name}", password_file=folder / f"{name}.password")
        own = settings.Worker(name, broker, folder / f"{name}.ledger")
        worker = Worker(own, IdleHost(), None, known)  # type: ignore[arg-type]
        threads.append(threading.Thread(target=worker.run))
        threads[-1].start()
    print("ready", flush=True)
    threads[0].join()


if __name__ == "__main__":
    main()
