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
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from .errors import Invalid, NotFound

T = TypeVar("T")

MANAGER_FILE = Path("/etc/onehost/onehost.toml")
WORKER_FILE = Path("/etc/onehost/worker.toml")
#: Where a new installation tells its numbers: `init` and `node credentials` write these into the settings they make.
RELAY_METRICS_PORT, AUDIT_METRICS_PORT, WORKER_METRICS_PORT = 9461, 9462, 9463


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
    #: Other members of the same cluster of brokers, "host" or "host:port" each, tried in turn after a failure.
    fallbacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._others()

    def rotated(self) -> Self:
        """The broker to try after this one failed: the first fallback, with this one as the last. Alone, itself."""
        if not self.fallbacks:
            return self
        (host, port), *others = self._others()
        others.append((self.host, self.port))
        return replace(self, host=host, port=port, fallbacks=tuple(_written(*other) for other in others))

    def _others(self) -> list[tuple[str, int]]:
        return [_address(fallback, self.port) for fallback in self.fallbacks]

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
    #: Removals and suspensions that one actor may begin within an hour; more are held for a person. 0: never.
    held_beyond_per_hour: int = 50
    #: Seconds before the last stage of a removal, in which a cancel undoes all of it. 0: none.
    grace_seconds: float = 30.0
    #: Seconds without a beat after which a node counts as offline.
    offline_after_seconds: float = 15.0
    #: Days after which a dead letter that was retried or dropped leaves the store; its events stay. 0: never.
    dead_kept_days: int = 90
    #: Unix socket of the supervisor that keeps relay and audit; empty: the usual place, where there is one.
    supervisor: str = ""
    #: Ports on 127.0.0.1 where the relay and the audit process tell their numbers; 0: nowhere.
    relay_metrics_port: int = 0
    audit_metrics_port: int = 0

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
    #: Seconds, a tenth more or less, between two looks for drift; 0: only when asked.
    check_seconds: float = 300.0
    #: Seconds, a tenth more or less, between two looks at how much accounts hold, where their files are; 0: never.
    usage_seconds: float = 3600.0
    #: Seconds between two times at which Apache's log is split by site, into the homes; 0: never, and it grows.
    log_seconds: float = 3600.0
    #: Port on 127.0.0.1 where the worker tells its numbers; 0: nowhere.
    metrics_port: int = 0


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


def _address(text: str, port: int) -> tuple[str, int]:
    """Host and port of "host:port", with this port if it names none. Raises Invalid."""
    try:
        parts = urlsplit(f"//{text}")
        found = parts.port
    except ValueError:
        parts, found = urlsplit(""), None
    if not parts.hostname or parts.netloc != text or "@" in text:
        raise Invalid(f"broker: {text!r} is no host:port")
    return parts.hostname, found or port


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
    if wanted == "tuple[str, ...]":
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise Invalid(f"{where}: {value!r} is no list of texts")
        return tuple(value)
    convert = {"Path": Path, "int": int, "float": float, "str": str}[wanted]
    try:
        return convert(value)
    except (TypeError, ValueError):
        raise Invalid(f"{where}: {value!r} is not of type {wanted}") from None
