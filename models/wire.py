"""What travels: letters from the manager to one node, and what a node says. Checked on arrival, never trusted.

Manager to node: `apply` (a whole wanted state), `welcome` and `cover` (answers to hello), `hail` (say hello),
`pause` (run no round, or go on).
Node to manager: `ack`, `hello`, `beat`, `answer`, `usage`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError

from .canonical import canonical
from .forms import FORMS, LARGEST, LISTED_AT_ONCE, MAX_BODY_BYTES, MAX_TEXT, MAX_WORD, clean
from .glance import Glance, glance

__all__ = [
    "LARGEST", "LISTED_AT_ONCE", "MAX_BODY_BYTES", "MAX_TEXT", "MAX_WORD", "Letter", "Undecodable", "apply_letter",
    "clean", "decode", "encode", "joined", "within",
]  # fmt: skip

#: Forms that come by the thousand: looked at quickly first. Their schemas have no hooks.
MANY = ("apply", "ack", "beat")


class Undecodable(ValueError):
    """The bytes are no letter of ours."""


@dataclass(frozen=True)
class Letter:
    """A letter that was checked. The fields differ by form; see forms.py."""

    form: str
    node: str
    body: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.body[name]


@cache
def _schema(form: str) -> Schema:
    return FORMS[form](unknown=EXCLUDE)


@cache
def _glance(form: str) -> Glance:
    return glance(_schema(form))


def _load(form: str, given: Any) -> dict[str, Any]:
    plain = _glance(form)(given) if form in MANY else None
    if plain is not None:
        return plain
    loaded: dict[str, Any] = _schema(form).load(given)
    return loaded


def decode(data: bytes) -> Letter:
    """The letter in `data`. Unknown fields are dropped: a newer sender must not poison a queue. Raises Undecodable."""
    if len(data) > MAX_BODY_BYTES:
        raise Undecodable(f"{len(data)} bytes, more than {MAX_BODY_BYTES}")
    try:
        given = json.loads(data)
        form = given["form"]
        loaded = _load(form, given)
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise Undecodable(f"not a letter: {type(error).__name__}: {error}") from None
    except ValidationError as error:
        raise Undecodable(f"not a letter: {error.messages}") from None
    return Letter(form, loaded["node"], loaded)


def encode(**body: Any) -> bytes:
    """A letter's bytes. Raises ValueError if they are more than MAX_BODY_BYTES."""
    return within(canonical(body))


def apply_letter(payload: bytes | None, **envelope: Any) -> bytes:
    """A letter of form apply around a payload that was rendered once, for all nodes. Raises ValueError if too large."""
    return within(canonical(envelope | {"form": "apply"})[:-1] + b',"payload":' + (payload or b"null") + b"}")


def joined(body: bytes, **envelope: Any) -> bytes:
    """A letter of a body that was rendered before, as an object that is not empty. Raises ValueError if too large."""
    return within(body[:-1] + b"," + canonical(envelope)[1:])


def within(data: bytes) -> bytes:
    """`data`, if it may travel. Raises ValueError."""
    if len(data) > MAX_BODY_BYTES:
        raise ValueError(f"{len(data)} bytes, more than {MAX_BODY_BYTES}")
    return data
