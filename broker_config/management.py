"""A small client of RabbitMQ's management API: GET, PUT and DELETE with JSON, bounded in time, errors of our tree."""

from __future__ import annotations

import base64
import http.client
import json
from typing import Any
from urllib.parse import quote, urlsplit

from ..models.errors import Invalid, NotFound, Refused, Unreachable
from .policies import Version, version_of

PLUGIN_HINT = "is RabbitMQ running, with its plugin? rabbitmq-plugins enable rabbitmq_management"
LOGIN_HINT = "run `onehost broker apply` as root on the manager: it makes the user again"


class Management:
    """The management API as seen by one user.

    Every call raises Unreachable (down, or login refused), NotFound, Invalid or Refused, with the broker's words.
    """

    def __init__(self, url: str, user: str, password: str, timeout_seconds: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Invalid(f"management: {url!r} is no http or https address")
        self.url = url.rstrip("/")
        self.host = parts.hostname
        self.user = user
        self._secure = parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._prefix = parts.path.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def get(self, *path: str, query: str = "") -> Any:
        """The document at `path`, given as raw segments."""
        return self._call("GET", path, None, query)

    def put(self, *path: str, body: object) -> None:
        """Make or replace the object at `path`."""
        self._call("PUT", path, body)

    def post(self, *path: str, body: object) -> None:
        """Add an object under `path`."""
        self._call("POST", path, body)

    def delete(self, *path: str) -> None:
        """Remove the object at `path`; one that is gone already is fine."""
        try:
            self._call("DELETE", path, None)
        except NotFound:
            return

    def version(self) -> Version:
        """The broker's major and minor version. Raises Refused if it is too old."""
        return version_of(str(self.get("overview", query="columns=rabbitmq_version")["rabbitmq_version"]))

    def accepts_login(self) -> bool:
        """Whether the broker knows this user with this password. Raises Unreachable if it does not answer at all."""
        status, _ = self._exchange("GET", ("whoami",), None, "")
        return status == http.client.OK

    def _call(self, method: str, path: tuple[str, ...], body: object, query: str = "") -> Any:
        status, content = self._exchange(method, path, body, query)
        if status < http.client.BAD_REQUEST:
            return json.loads(content) if content else None
        what = f"RabbitMQ: {method} /api/{'/'.join(path)} as {self.user}: {status} {_reason(content)}"
        if status == http.client.UNAUTHORIZED and not self.accepts_login():
            raise Unreachable(what, hint=LOGIN_HINT)
        if status == http.client.NOT_FOUND:
            raise NotFound(what)
        if status >= http.client.INTERNAL_SERVER_ERROR:
            raise Unreachable(what)
        raise (Invalid if status == http.client.BAD_REQUEST else Refused)(what)

    def _exchange(self, method: str, path: tuple[str, ...], body: object, query: str) -> tuple[int, bytes]:
        address = f"{self._prefix}/api/" + "/".join(quote(segment, safe="") for segment in path)
        if query:
            address += f"?{query}"
        headers = {"Authorization": self._authorization, "Content-Type": "application/json"}
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self.host, self._port, timeout=self._timeout_seconds)
        try:
            connection.request(method, address, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"RabbitMQ's management API at {self.url}: {error}", hint=PLUGIN_HINT) from error
        finally:
            connection.close()


def _reason(content: bytes) -> str:
    try:
        document = json.loads(content)
    except ValueError:
        return content[:200].decode(errors="replace")
    return str(document.get("reason", document)) if isinstance(document, dict) else str(document)
