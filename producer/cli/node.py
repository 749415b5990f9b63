"""What nodes have beside other nouns: credentials for the broker, handed over as the worker's settings file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from ...models import names
from ...models.errors import Invalid
from ...models.nouns import Noun, Verb
from ...models.settings import WORKER_METRICS_PORT
from . import brakes, check, orphans, roads
from .groups import Command
from .output import tick
from .session import Session, current

_WORKER_HELP = "Write the worker's settings here, and its password beside it as FILE.password (0600)."


def _file_options() -> list[click.Parameter]:
    path = click.Path(path_type=Path, dir_okay=False)
    return [
        click.Option(["--worker-config"], type=path, metavar="FILE", help=_WORKER_HELP),
        click.Option(["--broker-host"], metavar="HOST", help="Where the node finds the broker."),
        click.Option(["--password-file"], metavar="PATH", help="Where the password will lie on the node."),
    ]  # fmt: skip


def no_broker_option() -> click.Option:
    """Leaves the broker for later."""
    return click.Option(["--no-broker"], is_flag=True, help="Leave the broker as it is; see: onehost broker apply.")


def options(noun: Noun, verb: Verb) -> list[click.Parameter]:
    """What a verb takes in addition because a node comes or goes by it."""
    if noun.name != "node" or not (verb.makes or verb.removes):
        return []
    return [*(_file_options() if verb.makes else (_lost_option(),)), no_broker_option()]


def _lost_option() -> click.Option:
    text = "It will not come back: no rule keeps it, not even as the last active real server."
    return click.Option(["--lost"], is_flag=True, help=text)


def said(values: dict[str, Any]) -> dict[str, Any]:
    """What a wish about a node says beside its spec."""
    return {"lost": True} if values.get("lost") else {}


def after(session: Session, name: str, values: dict[str, Any]) -> Callable[[], None]:
    """What is done once a node is in the store, or out of it. Raises Invalid at once for a file that cannot be made."""
    path, host, password_file = (values.get(key) for key in ("worker_config", "broker_host", "password_file"))
    if path:
        check_place(path)

    def act() -> None:
        if path:
            hand_over(session, name, path, host, password_file)
        elif "worker_config" in values:
            hint = f"onehost node credentials {name} --worker-config worker.toml"
            click.echo(f"settings for its worker: {hint}", err=True)
        if not values["no_broker"]:
            roads.bring_in_line(session)

    return act


def check_place(path: Path) -> None:
    """Raises Invalid if a file cannot be made there, before anything is changed."""
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise Invalid(f"{path} cannot be written: {folder} is no folder that can be written to")


def hand_over(session: Session, name: str, path: Path, host: str | None, password_file: str | None) -> None:
    """Makes a new password for a node and writes the worker's settings and that password. Raises Invalid."""
    from ...broker_config import routing
    from ...broker_config.atomic_file import write_atomically
    from .. import nodes

    broker = session.settings.broker
    host = host or broker.host
    beside = path.absolute().with_name(path.name + ".password")
    values = {"host": host, "port": broker.port, "vhost": broker.vhost, "user": routing.node_user(name),
              "password_file": password_file or str(beside)}  # fmt: skip
    if broker.fallbacks:
        values["fallbacks"] = list(broker.fallbacks)
    # A JSON string is a TOML string.
    top = [f"node = {json.dumps(name)}", f"metrics_port = {WORKER_METRICS_PORT}"]
    lines = [*top, "", "[broker]", *(f"{key} = {json.dumps(v)}" for key, v in values.items())]
    try:
        write_atomically(beside, f"{nodes.credentials(session.client.engine, name)}\n".encode(), mode=0o600)
        write_atomically(path.absolute(), "\n".join([*lines, ""]).encode(), mode=0o644)
    except OSError as error:
        raise Invalid(f"{path} cannot be written: {error}", hint=f"onehost node credentials {name}") from error
    click.echo(
        f"wrote {path} and {beside.name}; on the node: ONEHOST_WORKER_CONFIG={path} onehost worker run", err=True
    )
    if _is_loopback(host) and not _is_loopback(session.client.get("node", name)["spec"]["address"]):
        click.echo(f"note: a node elsewhere cannot reach the broker at {host}. see: --broker-host", err=True)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _credentials(name: str, worker_config: Path, broker_host: str | None, password_file: str | None,
                 no_broker: bool) -> None:  # fmt: skip
    session = current()
    name = names.node(name)
    check_place(worker_config)
    session.client.get("node", name)
    hand_over(session, name, worker_config, broker_host, password_file)
    if not no_broker:
        roads.bring_in_line(session)
        tick(f"node {name} can log in at the broker with its new password")


def _command() -> Command:
    params = [click.Argument(["name"]), *_file_options(), no_broker_option()]
    params[1].required = True
    text = "Give a node a new password at the broker and write its worker's settings. The old password ends."
    example = "node credentials web1 --worker-config worker.toml --broker-host 10.0.0.1"
    return Command("credentials", callback=_credentials, params=params, help=text, example=example)


credentials = _command()
#: Stand in the noun's own group.
COMMANDS = (credentials, check.check, orphans.orphans, brakes.pause_node, brakes.resume_node)
