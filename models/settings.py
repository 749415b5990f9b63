"""Settings of the manager and of a node, read once in `main` from one TOML file, overridden by ONEHOST_* names.

Secrets are named by the path of a file of mode 0600, never written into the settings themselves.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from .errors import Invalid, NotFound

T = TypeVar("T")

MANAGER_FILE = Path("/etc/onehost/onehost.toml")
WORKER_FILE = Path("/etc/onehost/worker.toml")


@dataclass(frozen=True)
class Broker:
    """How to reach RabbitMQ, as one of its users."""

    host: str = "127.0.0.1"
    port: int = 5672
    vhost: str = "onehost"
    #: This process's broker user: relay, audit, topology or node-<node>.
    user: str = ""
    #: A file of mode 0600 holding the password of `user` alone.
    password_file: Path = Path("/etc/onehost/node.password")

    def password(self) -> str:
        """The password of `user`. Raises NotFound or Invalid, naming the file."""
        return read_secret(self.password_file)


@dataclass(frozen=True)
class Manager:
    """Everything a process on the manager needs to know."""

    #: SQLAlchemy URL of the store. Production: postgresql+psycopg://onehost@/onehost
    store: str = "sqlite:////var/lib/onehost/store.db"
    broker: Broker = field(default_factory=Broker)
    #: Folder with one password file per manager user: relay, audit, topology.
    secrets: Path = Path("/etc/onehost/secrets")
    #: Where the management API of RabbitMQ listens.
    management: str = "http://127.0.0.1:15672"
    #: The definitions that RabbitMQ loads at boot, rewritten by `onehost broker apply`.
    definitions: Path = Path("/var/lib/onehost/definitions.json")
    #: First and last uid given to accounts.
    first_uid: int = 20000
    last_uid: int = 59999
    #: Pools per PHP-FPM master; the manager gives each account its shard.
    pools_per_shard: int = 300
    #: Seconds without a beat after which a node counts as offline.
    offline_after_seconds: float = 15.0

    def as_user(self, user: str) -> Broker:
        """The broker as seen by the manager's own user `user`."""
        return replace(self.broker, user=user, password_file=self.secrets / user)


@dataclass(frozen=True)
class Worker:
    """Everything a worker needs to know."""

    #: This node's name, as the manager knows it.
    node: str = ""
    broker: Broker = field(default_factory=Broker)
    #: The node's ledger (SQLite).
    ledger: Path = Path("/var/lib/onehost/ledger.db")
    #: Empty: the real machine. Else a folder that stands for it: files are written, no daemon is touched.
    rehearse: str = ""
    #: Seconds between two heartbeats.
    beat_seconds: float = 5.0
    #: Seconds a round waits for the answer to hello before it says hello again.
    hello_seconds: float = 5.0


def read_secret(path: Path) -> str:
    """The content of a secret file. Raises NotFound if it is missing, Invalid if others can read it."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise NotFound(f"secret file {path} does not exist") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Invalid(f"secret file {path} can be read by others", hint=f"chmod 600 {path}")
    return path.read_text(encoding="utf-8").strip()


def manager(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Manager:
    """The manager's settings. A missing file means defaults; ONEHOST_CONFIG names another file."""
    return _load(Manager, path or Path(environ.get("ONEHOST_CONFIG", MANAGER_FILE)), environ)


def worker(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Worker:
    """A worker's settings. ONEHOST_WORKER_CONFIG names another file."""
    return _load(Worker, path or Path(environ.get("ONEHOST_WORKER_CONFIG", WORKER_FILE)), environ)


def _load(kind: type[T], path: Path, environ: Mapping[str, str]) -> T:
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Invalid(f"settings file {path}: {error}") from error
    for name, value in environ.items():
        key = name.removeprefix("ONEHOST_").lower()
        if name.startswith("ONEHOST_") and key in {f.name for f in fields(kind)} - {"broker"}:  # type: ignore[arg-type]
            given[key] = value
    return _build(kind, given, str(path))


def _build(kind: type[T], given: dict[str, Any], where: str) -> T:
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise Invalid(f"{where}: unknown setting {name!r}", {name: "unknown"}, hint=f"known: {', '.join(known)}")
        values[name] = _convert(str(known[name].type), value, f"{where}: {name}")
    return kind(**values)


def _convert(wanted: str, value: Any, where: str) -> Any:
    if wanted == "Broker":
        return _build(Broker, value, where)
    convert = {"Path": Path, "int": int, "float": float, "str": str}[wanted]
    try:
        return convert(value)
    except (TypeError, ValueError):
        raise Invalid(f"{where}: {value!r} is not of type {wanted}") from None
