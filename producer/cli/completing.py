"""What the shell completes where a command wants the name of a resource: those that are there."""

from __future__ import annotations

import click

from ...models.errors import OnehostError
from ...models.nouns import Noun
from .session import Session

#: Names offered at most; who has more types another letter.
MOST = 200


def name_of(noun: Noun, *, required: bool = True) -> click.Argument:
    """The argument NAME of a command about a resource that is there."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        session = ctx.find_object(Session) or Session()
        try:
            return [*session.client.names(noun.name, incomplete, MOST)]
        except OnehostError:  # nobody wants to read, in the middle of a word, that there is no store
            return []
        finally:
            session.close()

    return click.Argument(["name"], required=required, shell_complete=complete)
