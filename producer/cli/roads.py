"""After a node came or went, the broker is brought in line: a user, a queue and rights for each node there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...models.errors import OnehostError, Unreachable
from .session import Session

if TYPE_CHECKING:
    from ...broker_config.state import Step


def bring_in_line(session: Session) -> list[Step]:
    """Gives every node credentials that has none, then makes the broker fit. Raises Unreachable; the store stands."""
    from ...broker_config import apply
    from .. import nodes

    engine = session.client.engine
    try:
        known = nodes.hashes(engine)
        for node in session.client.list("node"):
            if node["name"] not in known:
                # Nobody is told this one: it makes the node's queue, and is replaced when somebody asks for it.
                nodes.credentials(engine, node["name"])
        return apply.synchronise(session.settings, nodes.hashes(engine))
    except (OnehostError, OSError) as error:
        why = error.what if isinstance(error, OnehostError) else str(error)
        hint = "onehost broker apply"
        raise Unreachable(f"the store has it, but the broker is not in line: {why}", hint=hint) from error
