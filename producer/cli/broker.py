"""`onehost broker`: makes RabbitMQ what this cluster needs, or says how it differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ...models.errors import Unreachable
from .groups import Command, Group
from .output import emit, table, tick
from .session import current

if TYPE_CHECKING:
    from ...broker_config.state import Step


def _apply() -> None:
    from ...broker_config import apply, bootstrap
    from .. import nodes

    session = current()
    hashes = nodes.hashes(session.client.engine)
    try:
        bootstrap.bootstrap(session.settings, bootstrap.local_ctl)
        steps = apply.synchronise(session.settings, hashes)
    except OSError as error:
        raise Unreachable(f"broker: {error}", hint="run this as root") from error
    emit(session, _data(steps), lambda: _tell_applied(steps))


def _tell_applied(steps: list[Step]) -> None:
    for step in steps:
        tick(str(step))
    click.echo(f"broker: {len(steps)} changes" if steps else "broker: nothing to change")


def _check() -> int:
    from ...broker_config import apply
    from .. import nodes

    session = current()
    try:
        steps = apply.check(session.settings, nodes.hashes(session.client.engine))
    except OSError as error:
        raise Unreachable(f"broker: {error}", hint="run this as root") from error
    rows = [(step.verb.value, step.kind.value, step.name, step.detail) for step in steps]
    emit(session, _data(steps), lambda: table(session, ("needs", "what", "name", "detail"), rows, "broker: no drift"))
    return 1 if steps else 0


def _data(steps: list[Step]) -> list[dict[str, Any]]:
    """Steps without their content: hashes stand in it."""
    return [{"verb": s.verb.value, "kind": s.kind.value, "name": s.name, "detail": s.detail} for s in steps]


broker = Group("broker", help="Exchanges, queues, users and rights on RabbitMQ.", example="broker check",
               no_args_is_help=True)  # fmt: skip
broker.add_command(Command("apply", callback=_apply, example="broker apply",
                           help="Make the broker what it should be; a second run changes nothing."))  # fmt: skip
broker.add_command(Command("check", callback=_check, example="broker check -o json",
                           help="How the broker differs from what it should be; exit 1 if it does."))  # fmt: skip
