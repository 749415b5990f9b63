"""Whether a connection of the pool is still one: asked after a rest, only looked at when it was used just now.

To ask costs a trip before every transaction. A server that has ended closes the connection, and that can be seen.
"""

from __future__ import annotations

import select
import time
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

#: After a rest of this long, in seconds, a connection is asked: what lies between may have forgotten it.
ASK_SECONDS = 1.0
_SINCE = "rests_since"


def look_after(engine: Engine) -> None:
    """From now on a connection that is lost is replaced, with all that rest beside it, before it is used."""

    @event.listens_for(engine, "checkin")
    def _rests(_connection: Any, record: Any) -> None:
        record.info[_SINCE] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _is_used(connection: Any, record: Any, _proxy: Any) -> None:
        since = record.info.get(_SINCE)  # a new one has none
        if since is None or (time.monotonic() - since < ASK_SECONDS and _is_silent(connection)):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error


def _is_silent(connection: Any) -> bool:
    """Whether the server has said nothing, not even that it is over."""
    if connection.closed:
        return False
    waiter = select.poll()
    waiter.register(connection.fileno(), select.POLLIN)
    return not waiter.poll(0)
