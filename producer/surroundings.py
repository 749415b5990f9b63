"""What a noun may look at while a wish is checked: wanted specs and numbers, in the wish's own transaction."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, and_, select

from ..models import nouns
from ..models.settings import Manager
from ..models.store import Resource, Revision
from . import numbers


def wanted_spec(connection: Connection, resource_id: int, generation: int) -> nouns.Spec | None:
    """The spec of a generation, secrets included where it is the newest; None if absent."""
    row = connection.execute(
        select(Revision.payload, Revision.secrets).where(
            Revision.resource_id == resource_id, Revision.generation == generation
        )
    ).one()
    return None if row.payload is None else json.loads(row.payload) | json.loads(row.secrets or b"{}")


class Surroundings:
    """See the module. Reads each noun once until `forget`."""

    def __init__(self, connection: Connection, settings: Manager) -> None:
        self._connection = connection
        self._settings = settings
        self._known: dict[str, dict[str, nouns.Spec]] = {}
        #: How many numbers are taken at once, and those of each kind that are left.
        self._at_once = 1
        self._taken: dict[str, deque[int]] = {}

    def all(self, noun: str) -> dict[str, nouns.Spec]:
        """Wanted spec by name, without secrets, of every living resource of a noun."""
        if noun not in self._known:
            rows = self._connection.execute(
                select(Resource.name, Revision.payload)
                .join(Revision, and_(Revision.resource_id == Resource.id, Revision.generation == Resource.generation))
                .where(Resource.noun == noun, Resource.absent.is_(False))
            )
            self._known[noun] = {row.name: json.loads(row.payload) for row in rows}
        return self._known[noun]

    def number(self, kind: str, first: int, last: int) -> int:
        """A number of the range that was never given out. Raises Refused."""
        left = self._taken.get(kind)
        if not left:
            left = self._taken[kind] = deque(numbers.next_in_range(self._connection, kind, first, last, self._at_once))
        return left.popleft()

    @contextmanager
    def together(self, count: int) -> Iterator[None]:
        """While so many wishes are looked at, numbers are taken for all of them together."""
        self._at_once = count
        yield
        self._at_once = 1
        for kind, left in self._taken.items():
            if left:
                numbers.give_back(self._connection, kind, left[0] - 1)
        self._taken.clear()

    def note(self, noun: str, name: str, spec: nouns.Spec) -> None:
        """A wish of the same transaction wants this."""
        if noun in self._known:
            self._known[noun][name] = spec

    def setting(self, name: str) -> Any:
        """One of the manager's settings."""
        return getattr(self._settings, name)

    def forget(self) -> None:
        """Reads again at the next question: a wish of the same transaction changed something."""
        self._known.clear()
