"""What the identity has beside other nouns: its public keys, as clients and zones take them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from ...models.errors import Refused
from .groups import Command
from .output import emit
from .session import current


def _lines(find: Callable[..., Sequence[str]], names: tuple[str, ...]) -> None:
    session = current()
    found = find(session.client, names)
    if not found:
        raise Refused("the cluster has no name yet", hint="onehost identity set cluster --host-name cp.example.com")
    emit(session, found, lambda: click.echo("\n".join(found)))


def _known_hosts(names: tuple[str, ...]) -> None:
    from .. import identity

    _lines(identity.known_hosts, names)


def _sshfp(names: tuple[str, ...]) -> None:
    from .. import identity

    _lines(identity.sshfp, names)


known_hosts = Command(
    "known-hosts",
    callback=_known_hosts,
    params=[click.Argument(["names"], nargs=-1)],
    help="Lines for a client's known_hosts, the same for every node: for these names, else for all addresses known.",
    example="identity known-hosts >>~/.ssh/known_hosts",
)
sshfp = Command(
    "sshfp",
    callback=_sshfp,
    params=[click.Argument(["names"], nargs=-1)],
    help="SSHFP records for a zone: for these names, else for the cluster's own.",
    example="identity sshfp cp.example.com",
)
#: Stand in the noun's own group.
COMMANDS = (known_hosts, sshfp)
