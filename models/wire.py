"""What travels: letters from the manager to one node, and what a node says. Checked on arrival, never trusted.

Manager to node: `apply` (a whole wanted state), `welcome` and `cover` (answers to hello), `hail` (say hello).
Node to manager: `ack`, `hello`, `beat`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from marshmallow import EXCLUDE, Schema, ValidationError, validate
from marshmallow import fields as field

from .canonical import canonical

#: A larger body is refused by the sender and, before parsing, by the receiver.
MAX_BODY_BYTES = 256 * 1024
#: Resources listed in one letter of the hello exchange; keeps it below MAX_BODY_BYTES.
LISTED_AT_ONCE = 4000
#: A larger difference or reason is cut: what a node says must not fill the store.
MAX_TEXT = 2000


class Undecodable(ValueError):
    """The bytes are no letter of ours."""


def _whole(**more: Any) -> field.Integer:
    return field.Integer(strict=True, validate=validate.Range(0, (1 << 63) - 1), **more)


def _text(longest: int = 253, **more: Any) -> field.String:
    return field.String(validate=validate.Length(max=longest), **more)


class ApplySchema(Schema):
    """A letter of form apply."""

    form = _text(required=True)
    node = _text(required=True)
    id = _whole(required=True)
    noun = _text(required=True)
    version = field.List(_whole(), required=True, validate=validate.Length(equal=2))
    name = _text(required=True)
    generation = _whole(required=True)
    incarnation = _whole(required=True)
    job = _whole(load_default=None, allow_none=True)
    verb = _text(load_default="apply")
    replaces = _whole(load_default=0)
    roles = field.List(_text(40), load_default=list, validate=validate.Length(max=32))
    hash = _text(load_default="")
    key = _text(load_default=None, allow_none=True)
    signature = _text(load_default=None, allow_none=True)
    secrets = field.Dict(load_default=dict)
    payload = field.Dict(required=True, allow_none=True)
    have = field.List(_whole(), load_default=None, allow_none=True)


class WelcomeSchema(Schema):
    """An answer to hello: which buckets differ, which acknowledgements are kept and which are wanted again."""

    form = _text(required=True)
    node = _text(required=True)
    hello = _text(required=True)
    incarnation = _whole(required=True)
    differing = field.List(_whole(), required=True)
    have = field.List(_whole(), required=True)
    lacking = field.List(field.List(_whole()), load_default=list)


class CoverSchema(Schema):
    """An answer to listed buckets: what the ledger must hold before a round may run."""

    form = _text(required=True)
    node = _text(required=True)
    hello = _text(required=True)
    buckets = field.List(_whole(), required=True)
    wanted = field.List(field.List(_whole()), required=True)
    again = field.List(_whole(), load_default=list)
    orphans = field.List(_whole(), load_default=list)


class HailSchema(Schema):
    """A request to say hello."""

    form = _text(required=True)
    node = _text(required=True)


class AckSchema(Schema):
    """An acknowledgement."""

    form = _text(required=True)
    node = _text(required=True)
    epoch = _whole(required=True)
    number = _whole(required=True)
    incarnation = _whole(required=True)
    id = _whole(required=True)
    noun = _text(required=True)
    name = _text(required=True)
    generation = _whole(required=True)
    outcome = field.String(required=True, validate=validate.OneOf(("applied", "failed", "retrying")))
    reason = field.String(load_default="")
    difference = field.Dict(keys=_text(80), values=field.String(), load_default=dict)
    seconds = field.Dict(keys=_text(40), values=field.Float(), load_default=dict)
    at = field.Float(required=True)


class HelloSchema(Schema):
    """What a node holds. With `buckets`, the rows [id, wanted, outcome] of those buckets."""

    form = _text(required=True)
    node = _text(required=True)
    hello = _text(required=True)
    epoch = _whole(required=True)
    incarnation = _whole(required=True)
    version = _text(load_default="")
    digest = _text(16 * 256, load_default="")
    #: Ranges [epoch, first, last] of acknowledgements still held.
    held = field.List(field.List(_whole()), load_default=list)
    last = _whole(load_default=0)
    buckets = field.List(_whole(), load_default=None, allow_none=True)
    rows = field.List(field.List(_whole()), load_default=list)


class BeatSchema(Schema):
    """A sign of life."""

    form = _text(required=True)
    node = _text(required=True)
    epoch = _whole(required=True)
    root = _text(16, load_default="")
    synced = field.Boolean(load_default=False)
    version = _text(load_default="")
    state = _text(200, load_default="")
    open = _whole(load_default=0)
    failed = _whole(load_default=0)
    held = _whole(load_default=0)
    rounds = _whole(load_default=0)
    signals = field.Dict(load_default=dict)
    blocked = field.Dict(load_default=dict)
    at = field.Float(required=True)


@dataclass(frozen=True)
class Letter:
    """A letter that was checked. The fields differ by form; see the schemas."""

    form: str
    node: str
    body: Mapping[str, Any]

    schemas: ClassVar[dict[str, type[Schema]]] = {
        "apply": ApplySchema,
        "welcome": WelcomeSchema,
        "cover": CoverSchema,
        "hail": HailSchema,
        "ack": AckSchema,
        "hello": HelloSchema,
        "beat": BeatSchema,
    }

    def __getitem__(self, name: str) -> Any:
        return self.body[name]


def decode(data: bytes) -> Letter:
    """The letter in `data`. Unknown fields are dropped: a newer sender must not poison a queue. Raises Undecodable."""
    if len(data) > MAX_BODY_BYTES:
        raise Undecodable(f"{len(data)} bytes, more than {MAX_BODY_BYTES}")
    try:
        given = json.loads(data)
        form = given["form"]
        loaded = Letter.schemas[form](unknown=EXCLUDE).load(given)
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


def within(data: bytes) -> bytes:
    """`data`, if it may travel. Raises ValueError."""
    if len(data) > MAX_BODY_BYTES:
        raise ValueError(f"{len(data)} bytes, more than {MAX_BODY_BYTES}")
    return data
