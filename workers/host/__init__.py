"""The machine: the only place of onehost that touches files, users, daemons and processes of a node."""

from __future__ import annotations

from .daemon import Daemon

__all__ = ["Daemon", "Host"]


class Host:
    """The parts of one machine. `daemons` is the order in which a round switches them."""

    daemons: tuple[Daemon, ...] = ()
