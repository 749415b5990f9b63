"""The first contact with a broker: makes the user `topology`, with whose rights everything else is made.

On a brand-new broker `guest` does it; where that is gone, the broker's own command on the same machine.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from ..models.errors import Unreachable
from ..models.settings import Manager
from . import credentials, definitions
from .management import Management
from .permissions import GUEST_USER, TOPOLOGY_USER

#: Runs `rabbitmqctl` with arguments and standard input; raises Unreachable if that does not work.
RunCtl = Callable[[Sequence[str], bytes], object]

CTL_TIMEOUT_SECONDS = 60


def bootstrap(settings: Manager, run_ctl: RunCtl) -> None:
    """Make sure that `topology` can log in, with the password in its secret file. Changes nothing if it can.

    Raises Unreachable if the broker does not answer, or if neither way in works.
    """
    password = credentials.secret(settings.secrets / TOPOLOGY_USER)
    topology = Management(settings.management, TOPOLOGY_USER, password)
    if topology.accepts_login():
        return
    hashed = credentials.password_hash(password)
    guest = Management(settings.management, GUEST_USER, GUEST_USER)
    if _is_loopback(guest.host) and guest.accepts_login():
        guest.put("users", TOPOLOGY_USER, body={"password_hash": hashed, "tags": "administrator"})
    else:
        _import_user(settings, hashed, run_ctl)
    if not topology.accepts_login():
        raise Unreachable(f"RabbitMQ at {settings.management} refuses the user {TOPOLOGY_USER} that was just made")


def local_ctl(arguments: Sequence[str], stdin: bytes) -> None:
    """`rabbitmqctl` on this machine, which takes root. Raises Unreachable with its words."""
    try:
        done = subprocess.run(
            ["rabbitmqctl", *arguments], input=stdin, capture_output=True, timeout=CTL_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unreachable(f"rabbitmqctl: {error}", hint="run this as root on the broker's machine") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise Unreachable(f"rabbitmqctl {' '.join(arguments)}: {said}", hint="run this as root on the broker's machine")


def _import_user(settings: Manager, hashed: str, run_ctl: RunCtl) -> None:
    """By a file with the hash, so that no password stands in a process list. RabbitMQ 4.0 hangs on standard input."""
    path = settings.definitions.with_name(f".{TOPOLOGY_USER}.json")
    definitions.write(path, _only_user(hashed))
    try:
        run_ctl(["import_definitions", str(path)], b"")
    finally:
        path.unlink()


def _only_user(hashed: str) -> bytes:
    """A definitions document that adds this one user."""
    user = {
        "name": TOPOLOGY_USER,
        "password_hash": hashed,
        "hashing_algorithm": credentials.HASHING_ALGORITHM,
        "tags": ["administrator"],
        "limits": {},
    }
    return json.dumps({"users": [user]}).encode()


def _is_loopback(host: str) -> bool:
    """Elsewhere the password of `guest` would travel, and is refused by default."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
