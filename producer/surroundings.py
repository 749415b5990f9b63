"""What a noun may look at while a wish is checked: wanted specs and numbers, in the wish's own transaction."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, and_, func, select
from sqlalchemy.orm import aliased

from ..models import nouns
from ..models.settings import Manager
from ..models.store import Claim, Resource, Revision
from . import numbers, taken

#: Owners read in one statement.
AT_ONCE = 1000


def wanted_spec(connection: Connection, resource_id: int, generation: int) -> nouns.Spec | None:
    """The spec of a generation, secrets included where it is the newest; None if absent."""
    row = connection.execute(
        select(Revision.payload, Revision.secrets).where(
            Revision.resource_id == resource_id, Revision.generation == generation
        )
    ).one()
    return None if row.payload is None else json.loads(row.payload) | json.loads(row.secrets or b"{}")


def wanted_specs(connection: Connection, ids: Collection[int]) -> Mapping[int, nouns.Spec]:
    """The wanted spec, secrets included, of each of these resources that lives."""
    rows = connection.execute(
        select(Resource.id, Revision.payload, Revision.secrets)
        .join(Revision, and_(Revision.resource_id == Resource.id, Revision.generation == Resource.generation))
        .where(Resource.id.in_(ids), Revision.payload.is_not(None))
    )
    return {row.id: json.loads(row.payload) | json.loads(row.secrets or b"{}") for row in rows}


class Surroundings:
    """See the module. Reads each noun once until `forget`."""

    def __init__(self, connection: Connection, settings: Manager) -> None:
        self._connection = connection
        self._settings = settings
        self._known: dict[str, dict[str, nouns.Spec]] = {}
        #: How many numbers are taken at once, and those of each kind that are left.
        self._at_once = 1
        self._taken: dict[str, deque[int]] = {}
        self._holders: dict[tuple[str, str], str | None] = {}
        self._owners: dict[tuple[str, str], tuple[int, nouns.Spec] | None] = {}
        self._limited: dict[int, Counter[str]] = {}

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

    def owner(self, noun: str, name: str) -> tuple[int, nouns.Spec] | None:
        """Id and wanted spec of a living resource, which cannot be removed before this transaction ends."""
        if (noun, name) not in self._owners:
            self.gather(noun, {name})
        return self._owners[noun, name]

    def gather(self, noun: str, names: Collection[str]) -> None:
        """Reads the owners of many wishes together, locked in the order of ids, as all do.

        Who owns something is locked against others that add to it, too: they would count without seeing each other.
        """
        missing = sorted({name for name in names if (noun, name) not in self._owners and name.isprintable()})
        self._owners |= {(noun, name): None for name in names if (noun, name) not in self._owners}
        owns = any(each.belongs_to == noun for each in nouns.nouns().values())
        for at in range(0, len(missing), AT_ONCE):
            which = (Resource.noun == noun, Resource.name.in_(missing[at : at + AT_ONCE]), Resource.absent.is_(False))
            locked = select(Resource.id, Resource.name).where(*which).order_by(Resource.id)
            found = self._connection.execute(locked.with_for_update(read=not owns, key_share=owns)).all()
            specs = wanted_specs(self._connection, [row.id for row in found])
            self._owners |= {(noun, row.name): (row.id, specs[row.id]) for row in found if row.id in specs}

    def takes(self, owner_id: int) -> Counter[str]:
        """How much of which limits is taken by an owner and what belongs to it. To be kept up by who adds to it."""
        if owner_id not in self._limited:
            owners = {found[0]: nouns.noun(noun).takes(found[1]) for (noun, _), found in self._owners.items() if found}
            missing = {owner_id, *owners} - self._limited.keys()
            self._limited |= taken.taken(self._connection, missing)
            for each in missing:
                self._limited[each].update(owners.get(each, {}))
        return self._limited[owner_id]

    def holder(self, kind: str, value: str) -> str | None:
        """What holds a claim, by name: the owner of the resource that has it, or that itself; None if it is free."""
        if (kind, value) not in self._holders:
            its_owner = aliased(Resource)
            found = self._connection.execute(
                select(func.coalesce(its_owner.name, Resource.name))
                .select_from(Resource)
                .join(Claim, Claim.resource_id == Resource.id)
                .outerjoin(its_owner, its_owner.id == Resource.owner_id)
                .where(Claim.kind == kind, Claim.value == value)
            )
            self._holders[kind, value] = found.scalar_one_or_none()
        return self._holders[kind, value]

    def note(self, noun: str, name: str, spec: nouns.Spec, resource_id: int) -> None:
        """A wish of the same transaction wants this."""
        self._owners[noun, name] = (resource_id, spec)
        kind = nouns.noun(noun)
        holder = spec[kind.belongs_to] if kind.belongs_to else name
        self._holders |= {(claim.kind, claim.value): holder for claim in kind.claims(name, spec)}
        if noun in self._known:
            self._known[noun][name] = spec

    def setting(self, name: str) -> Any:
        """One of the manager's settings."""
        return getattr(self._settings, name)

    def forget(self) -> None:
        """Reads again at the next question: a wish of the same transaction changed something."""
        self._known.clear()
        self._owners.clear()
        self._holders.clear()
        self._limited.clear()
