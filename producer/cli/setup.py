"""`init` makes this machine the manager, step by step, as often as one likes; `db` keeps the store's tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ...models import settings
from ...models.errors import Conflict, Invalid, OnehostError, Unreachable
from .groups import Command, Group
from .output import emit, tick
from .session import current

#: Options of `init` that are settings: option, setting (dotted: below [broker]), meaning.
SETTINGS = (
    ("store", "store", "SQLAlchemy URL of the store, such as postgresql+psycopg://onehost@/onehost."),
    ("broker-host", "broker.host", "Where RabbitMQ is."),
    ("broker-port", "broker.port", "Its port for AMQP."),
    ("management", "management", "Address of its management API; else http://BROKER-HOST:15672."),
    ("secrets", "secrets", "Folder for the passwords of the manager's own broker users."),
    ("definitions", "definitions", "File of definitions that RabbitMQ loads at boot."),
)


def _init(no_broker: bool, **given: Any) -> None:
    session = current()
    path = session.config or settings.MANAGER_FILE
    values = {name: given[option.replace("-", "_")] for option, name, _ in SETTINGS}
    values = {name: value for name, value in values.items() if value is not None}
    if path.exists():
        _same(path, values)
        tick(f"settings {path} are there")
    else:
        _write_settings(path, values)
        tick(f"settings {path} are made")
    session.config = path
    config = session.settings
    tick(f"store is at revision {migrate(config.store)}")
    tick("SSH host keys and a certificate are made for all nodes" if _identity() else "the cluster's identity is there")
    nodes = _hashes()
    from ...broker_config import apply, bootstrap

    if no_broker:
        if not config.definitions.exists():
            # Not a second time: its salts are new each time, and a running broker is the business of `broker apply`.
            with _files():
                apply.prepare(config, nodes)
        tick(f"secrets and {config.definitions} are there for a broker that starts for the first time")
        return
    with _files():
        bootstrap.bootstrap(config, bootstrap.local_ctl)
        tick(f"broker at {config.management} lets the manager in")
        steps = apply.synchronise(config, nodes)
    tick(f"broker is in line: {len(steps)} changes" if steps else "broker is in line")
    click.echo("next: onehost node add NAME ADDRESS --roles web --worker-config FILE", err=True)


def _identity() -> bool:
    from .. import identity

    return identity.ensure(current().client)


def _hashes() -> dict[str, str]:
    from .. import nodes

    return nodes.hashes(current().client.engine)


@contextmanager
def _files() -> Iterator[None]:
    """Files of secrets that cannot be read or made are told as such."""
    try:
        yield
    except OSError as error:
        raise Unreachable(f"broker: {error}", hint="run this as root") from error


def _same(path: Path, values: dict[str, Any]) -> None:
    """Raises Conflict if the file says something else than the options do."""
    found: Any = settings.manager(path)
    for name, value in values.items():
        own = found
        for part in name.split("."):
            own = getattr(own, part)
        if str(own) != str(value):
            raise Conflict(f"{path} says {name} = {own}, not {value}", hint=f"edit {path}")


def _write_settings(path: Path, values: dict[str, Any]) -> None:
    from ...broker_config.atomic_file import write_atomically

    if "broker.host" in values and "management" not in values:
        values["management"] = f"http://{values['broker.host']}:15672"
    values |= {"relay_metrics_port": settings.RELAY_METRICS_PORT, "audit_metrics_port": settings.AUDIT_METRICS_PORT}
    # A JSON string or number is TOML's, too.
    top = [f"{name} = {json.dumps(value)}" for name, value in values.items() if "." not in name]
    below = [f"{name.partition('.')[2]} = {json.dumps(value)}" for name, value in values.items() if "." in name]
    lines = ["# Settings of onehost's manager. What is not said here is as in models/settings.py.", *top]
    lines += ["", "[broker]", *below] if below else []
    # A store's URL may hold a password.
    mode = 0o600 if "@" in str(values.get("store", "")) else 0o644
    try:
        write_atomically(path.absolute(), "\n".join([*lines, ""]).encode(), mode=mode)
    except OSError as error:
        raise Invalid(f"settings file {path} cannot be written: {error.strerror}", hint="run this as root") from error


def migrate(url: str) -> str:
    """Brings the store's tables up to date and gives their revision. Raises Invalid or Unreachable."""
    from ... import migrations

    _with_store(lambda: migrations.upgrade(url))
    return str(_with_store(lambda: migrations.current(url)))


def _with_store(act: Callable[[], Any]) -> Any:
    from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

    try:
        return act()
    except OnehostError:
        raise
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise Invalid(f"store: {error}", hint='store = "sqlite:////var/lib/onehost/store.db"') from error
    except (DBAPIError, OSError) as error:
        raise Unreachable(f"store: {getattr(error, 'orig', None) or error}", hint="is the database running?") from error


def _upgrade() -> None:
    tick(f"store is at revision {migrate(current().settings.store)}")


def _current() -> int:
    from ... import migrations

    session = current()
    engine_url = session.settings.store
    session.client  # noqa: B018 - says so if there is no store
    found, wanted = _with_store(lambda: (migrations.current(engine_url), migrations.newest()))
    data = {"current": found, "newest": wanted}
    text = f"{found or 'no tables'}" + ("" if found == wanted else f", wanted {wanted}; try: onehost db upgrade")
    emit(session, data, lambda: click.echo(text))
    return 0 if found == wanted else 1


_INIT_OPTIONS: list[click.Parameter] = [
    click.Option([f"--{option}", option.replace("-", "_")], help=text, type=int if option == "broker-port" else str,
                 metavar=option.rpartition("-")[2].upper())
    for option, _, text in SETTINGS
]  # fmt: skip
init = Command(
    "init",
    callback=_init,
    params=[
        *_INIT_OPTIONS,
        click.Option(["--no-broker"], is_flag=True, help="Only prepare files for a broker to come."),
    ],
    help="Set up this machine as the manager: settings, store, broker. A second run changes nothing.",
    example="init --store sqlite:////var/lib/onehost/store.db --broker-host 10.0.0.1",
)
db = Group("db", help="The store's tables.", example="db upgrade", no_args_is_help=True)
db.add_command(Command("upgrade", callback=_upgrade, help="Bring the tables up to date.", example="db upgrade"))
db.add_command(Command("current", callback=_current, help="The tables' revision; exit 1 if it is an old one.",
                       example="db current"))  # fmt: skip
