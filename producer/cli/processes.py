"""`relay run`, `audit run` and `worker run`: the long-running processes, in the foreground."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from .groups import Command, Group
from .session import current


def run_relay() -> None:
    """The process that publishes what waits."""
    from .. import main

    main.run_relay(current().settings)


def run_audit() -> None:
    """The process that stores what nodes say, and seals it."""
    from .. import main

    main.run_audit(current().settings)


def _run_worker(worker_config: Path | None) -> None:
    """Becomes the worker: manager and node share no code but the words, so it is a program of its own."""
    if worker_config:
        os.environ["ONEHOST_WORKER_CONFIG"] = str(worker_config.absolute())
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "onehost.workers"])


_CONFIG = click.Option(
    ["--worker-config"],
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Settings of the worker; else ONEHOST_WORKER_CONFIG or /etc/onehost/worker.toml.",
)

relay = Group("relay", help="The process that sends what waits.", example="relay run", no_args_is_help=True)
relay.add_command(Command("run", callback=run_relay, help="Send what waits to the nodes; until SIGTERM.",
                          example="relay run"))  # fmt: skip
worker = Group("worker", help="The process of a node.", example="worker run", no_args_is_help=True)
worker.add_command(Command("run", callback=_run_worker, params=[_CONFIG], help="Be this node's worker; until SIGTERM.",
                           example="worker run --worker-config /etc/onehost/worker.toml"))  # fmt: skip
