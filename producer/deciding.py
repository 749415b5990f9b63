"""What a wish comes to: looked up, checked and numbered, nothing written yet."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from ..models import nouns
from ..models.errors import Conflict, Invalid, NotFound
from ..models.store import Resource
from . import following, hold, limits, ownership
from .cancel import Cancel, cancel
from .difference import difference
from .making import keep_manager_fields
from .revert import revert
from .surroundings import Surroundings, wanted_spec
from .wish import Wish


@dataclass(frozen=True)
class Decided:
    """A wish that was checked: what is wanted now, and of what it takes the place."""

    noun: nouns.Noun
    name: str
    mark: str
    living: Row[Any] | None
    before: nouns.Spec | None
    spec: nouns.Spec | None
    changed: dict[str, str]
    destroys: bool
    undo: Cancel | None


def decide(connection: Connection, around: Surroundings, noun: nouns.Noun, name: str, its_mark: str, wish: Wish, *,
           is_released: bool) -> Decided:  # fmt: skip
    """In the caller's transaction; what it is about is locked. `is_released`: it was held before. Raises Refused."""
    undo = cancel(connection, noun, name, wish.fields.get("job")) if wish.verb == "cancel" else None
    following.lock(connection, noun, name)
    living = undo.resource if undo else _living(connection, noun.name, name)
    before = wanted_spec(connection, living.id, living.generation) if living else None
    if wish.if_generation is not None and wish.if_generation != (living.generation if living else 0):
        at = living.generation if living else "none"
        raise Conflict(f"{noun.name} {name} is at generation {at}, not {wish.if_generation}", hint="read it again")
    spec = undo.spec if undo else _wanted(connection, noun, name, wish, living, before)
    numbered = before or (undo.spec if undo else None)
    if spec is not None:
        spec = ownership.inherit(noun, name, keep_manager_fields(noun, spec, numbered), before, around)
        if wish.parent is None and undo is None:
            limits.check(noun, name, spec, before, around)
    if not wish.is_of_lost_node:
        noun.check(name, spec, before, around)
    if spec is not None:
        spec = noun.number(spec, numbered, around)
    is_counted = not is_released and wish.parent is None and not wish.is_of_lost_node
    destroys = is_counted and noun.destroys(spec, before)
    return Decided(noun, name, its_mark, living, before, spec, difference(noun, before, spec), destroys, undo)


def _living(connection: Connection, noun: str, name: str) -> Row[Any] | None:
    return connection.execute(
        select(Resource)
        .where(Resource.noun == noun, Resource.name == name, Resource.absent.is_(False))
        .with_for_update(key_share=True)
    ).one_or_none()


def _wanted(connection: Connection, noun: nouns.Noun, name: str, wish: Wish, living: Row[Any] | None,
            before: nouns.Spec | None) -> nouns.Spec | None:  # fmt: skip
    """The whole spec that the wish asks for; None: absent."""
    if wish.verb == "revert":
        return revert(connection, noun, name, wish.fields.get("job"), before)
    verb = noun.verb(wish.verb)
    if (verb and verb.makes) or wish.verb == "apply":
        if verb and living:
            held = hold.of(connection, living.id)
            why = f"; job {held} on it is held" if held else ""
            hint = f"onehost job release {held}" if held else f"onehost {noun.name} show {name}"
            raise Conflict(f"{noun.name} {name} exists already{why}", hint=hint)
        kept = {key: before[key] for key in noun.secret_fields if before and key in before and key not in wish.fields}
        return noun.load(kept | dict(wish.fields))
    if living is None or before is None:
        if wish.verb == "retry":
            return None
        raise not_found(connection, noun, name)
    if wish.verb == "remove" or (verb and verb.removes):
        return None
    if wish.verb == "retry":
        return before
    if verb is None:
        known = ", ".join(v.name for v in noun.verbs)
        raise Invalid(f"{noun.name} has no verb {wish.verb!r}", {"verb": "unknown"}, hint=f"known: {known}")
    return noun.load(before | dict(verb.fixed or {}) | dict(wish.fields))


def not_found(connection: Connection, noun: nouns.Noun, name: str) -> NotFound:
    """The error for a name that is not there, with the nearest one that is."""
    names = connection.execute(select(Resource.name).where(Resource.noun == noun.name, Resource.absent.is_(False)))
    near = difflib.get_close_matches(name, list(names.scalars()), 1)
    hint = f"did you mean {near[0]}?" if near else f"onehost {noun.name} list"
    return NotFound(f"no such {noun.name}: {name}", hint=hint)
