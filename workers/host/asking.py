"""Requests to Apache on this machine, many over one connection that is kept."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass

from ...models.errors import Temporary

#: How long Apache may take to answer, in seconds.
PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Answer:
    """What Apache on this machine answered; names of headers in small letters."""

    status: int
    headers: Mapping[str, str]


class Asking:
    """Asks one after the other. A connection lasts only as long as one generation of Apache's: see `leave`."""

    def __init__(self, port: int = 80) -> None:
        self._port = port
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, host: str, path: str) -> Answer:
        """One request. Raises Temporary if Apache does not answer."""
        kept = self._connection is not None
        try:
            return self._once(host, path)
        except (OSError, http.client.HTTPException) as error:
            self.leave()
            if not kept:
                raise Temporary(f"Apache does not answer on port {self._port}: {_why(error)}") from error
        # Apache ends a kept connection after some requests, or some seconds; a new one tells the truth.
        return self.ask(host, path)

    def leave(self) -> None:
        """Ends the connection, so that the next question goes to whoever accepts now: a child of the newest files."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _once(self, host: str, path: str) -> Answer:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
        self._connection.request("HEAD", path, headers={"Host": host})
        with self._connection.getresponse() as said:
            said.read()
            headers = {name.lower(): value for name, value in said.getheaders()}
            if said.will_close:
                self.leave()
        return Answer(said.status, headers)


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
