"""What supervisor says of onehost's own processes on this machine."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from ..models.settings import Manager

#: Where the configurations in ops/supervisor put the sockets of the manager's and of a node's supervisor.
USUAL = (Path("/run/onehost/manager.sock"), Path("/run/onehost/worker.sock"))
#: Longest wait for supervisor, in seconds.
LOOK_SECONDS = 2.0


def processes(settings: Manager) -> list[dict[str, Any]]:
    """Name, state and description of each process, by supervisor's own words.

    A supervisor that does not answer is one entry of state UNREACHABLE. A machine without any has no entries, unless
    the settings name its socket.
    """
    paths = [Path(settings.supervisor)] if settings.supervisor else [path for path in USUAL if path.exists()]
    return [entry for path in paths for entry in _ask(path)]


def _ask(path: Path) -> list[dict[str, Any]]:
    from xmlrpc.client import Error, ServerProxy

    from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]

    before = socket.getdefaulttimeout()
    # Its transport knows no timeout of its own, and a supervisor can hang.
    socket.setdefaulttimeout(LOOK_SECONDS)
    transport = SupervisorTransport(None, None, f"unix://{path}")
    try:
        found: Any = ServerProxy("http://localhost", transport=transport).supervisor.getAllProcessInfo()
    except (OSError, Error) as error:
        return [{"name": f"supervisor at {path}", "state": "UNREACHABLE", "description": str(error)}]
    finally:
        transport.close()
        socket.setdefaulttimeout(before)
    return [
        {"name": each["name"], "state": each["statename"], "description": each["spawnerr"] or each["description"]}
        for each in found
    ]
