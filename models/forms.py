"""The forms of letters: what each must hold and how much of it may be, as marshmallow schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, validate, validates_schema
from marshmallow import fields as field

#: A larger body is refused by the sender and, before parsing, by the receiver.
MAX_BODY_BYTES = 256 * 1024
#: Resources listed in one letter of the hello exchange; keeps it below MAX_BODY_BYTES.
LISTED_AT_ONCE = 4000
#: A larger difference or reason is cut: what a node says must not fill the store.
MAX_TEXT = 2000
#: The largest whole number that a store can keep.
LARGEST = (1 << 63) - 1
#: A key of a difference, a name of a phase.
MAX_WORD = 80
#: Keys of a difference, phases of a round: more than any noun has.
MAX_KEYS = 200


def _whole(**more: Any) -> field.Integer:
    return field.Integer(strict=True, validate=validate.Range(0, LARGEST), **more)


def clean(text: str, longest: int) -> str:
    """`text` as any store can keep it: no NUL, no half of a surrogate pair, cut to `longest` characters."""
    if text.isascii() and "\0" not in text:
        return text[:longest]
    return text[:longest].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _check_clean(text: str) -> None:
    if not (text.isascii() and "\0" not in text) and clean(text, len(text)) != text:
        raise ValidationError("holds NUL or half of a surrogate pair")


def _text(longest: int = 253, **more: Any) -> field.String:
    return field.String(validate=[validate.Length(max=longest), _check_clean], **more)


def _seconds(**more: Any) -> field.Float:
    """A time or duration that a date can still be made of; neither NaN nor infinite."""
    return field.Float(validate=validate.Range(0, 1e11), **more)


def _tuples(length: int, **more: Any) -> field.List[Any]:
    return field.List(field.List(_whole(), validate=validate.Length(equal=length)), **more)


def _texts(longest: int | None = None, **more: Any) -> field.Dict:
    """Words by part, such as a difference."""
    return field.Dict(keys=_text(MAX_WORD), values=_text(longest or MAX_BODY_BYTES),
                      validate=validate.Length(max=MAX_KEYS), load_default=dict, **more)  # fmt: skip


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
    have = field.List(_whole(), load_default=None, allow_none=True, validate=validate.Length(equal=2))


class WelcomeSchema(Schema):
    """An answer to hello: which buckets differ, which acknowledgements are kept and which are wanted again."""

    form = _text(required=True)
    node = _text(required=True)
    hello = _text(required=True)
    incarnation = _whole(required=True)
    differing = field.List(_whole(), required=True)
    #: [epoch, number]: of that epoch everything up to the number is in the audit store.
    have = field.List(_whole(), required=True, validate=validate.Length(equal=2))
    #: The same of earlier epochs that the hello named.
    kept = _tuples(2, load_default=list)
    lacking = _tuples(2, load_default=list)
    #: The brake, as it is now.
    is_paused = field.Boolean(required=True)


class CoverSchema(Schema):
    """An answer to listed buckets: what the ledger must hold before a round may run."""

    form = _text(required=True)
    node = _text(required=True)
    hello = _text(required=True)
    buckets = field.List(_whole(), required=True)
    wanted = _tuples(2, required=True)
    again = field.List(_whole(), load_default=list)
    orphans = field.List(_whole(), load_default=list)


class ActionSchema(Schema):
    """Something to be done once, and not after `expires_seconds` from its arrival."""

    form = _text(required=True)
    node = _text(required=True)
    incarnation = _whole(required=True)
    job = _whole(required=True)
    noun = _text(40, required=True)
    id = _whole(required=True)
    name = _text(required=True)
    verb = _text(40, required=True)
    expires_seconds = _seconds(required=True)
    #: What it is told beside the verb: which daemon.
    given = field.Dict(load_default=dict)


class HailSchema(Schema):
    """A request to say hello."""

    form = _text(required=True)
    node = _text(required=True)


class PauseSchema(Schema):
    """The brake of a node: no round is run while it is pulled."""

    form = _text(required=True)
    node = _text(required=True)
    is_paused = field.Boolean(required=True)


class QuestionSchema(Schema):
    """Something asked of a node. Nothing is written; a late answer helps nobody.

    A dry run asks what would change if the payload were wanted; for the others it says more of what is asked.
    """

    form = _text(required=True)
    node = _text(required=True)
    question = _text(required=True)
    #: A word of a routing key.
    asker = field.String(required=True, validate=validate.Regexp(r"[a-z0-9_-]{1,64}\Z"))
    id = _whole(required=True)
    noun = _text(40, required=True)
    name = _text(required=True)
    generation = _whole(required=True)
    replaces = _whole(load_default=0)
    roles = field.List(_text(40), load_default=list, validate=validate.Length(max=32))
    secrets = field.Dict(load_default=dict)
    payload = field.Dict(required=True, allow_none=True)
    #: dry-run, check or daemon.
    asks = _text(40, load_default="dry-run")
    #: Nobody listens any more after this long.
    seconds = _seconds(load_default=5.0)


class AnswerSchema(Schema):
    """A node's answer to a question: what it found, or why it cannot tell."""

    form = _text(required=True)
    node = _text(required=True)
    question = _text(required=True)
    reason = _text(MAX_BODY_BYTES, load_default="")
    difference = _texts()
    #: The answer to what is no dry run.
    told = field.Dict(load_default=dict)


class AckSchema(Schema):
    """An acknowledgement."""

    form = _text(required=True)
    node = _text(required=True)
    epoch = _whole(required=True)
    number = _whole(required=True)
    incarnation = _whole(required=True)
    id = _whole(required=True)
    noun = _text(40, required=True)
    name = _text(required=True)
    generation = _whole(required=True)
    #: The job, if this is about an action and no generation.
    action = _whole(load_default=None, allow_none=True)
    outcome = field.String(required=True, validate=validate.OneOf(("applied", "failed", "retrying")))
    reason = _text(MAX_BODY_BYTES, load_default="")
    difference = _texts()
    seconds = field.Dict(keys=_text(MAX_WORD), values=_seconds(), load_default=dict,
                         validate=validate.Length(max=MAX_KEYS))  # fmt: skip
    at = _seconds(required=True)


class OrphanSchema(Schema):
    """Something that a node holds and the store does not list there, by its name."""

    id = _whole(required=True)
    noun = _text(40, required=True)
    name = _text(required=True)
    #: It was removed there; only its tombstone is left.
    absent = field.Boolean(load_default=False)


class HelloSchema(Schema):
    """What a node holds. With `buckets`, the rows [id, wanted, outcome] of those buckets."""

    form = _text(required=True)
    node = _text(required=True)
    hello = _text(required=True)
    epoch = _whole(required=True)
    incarnation = _whole(required=True)
    version = _text(load_default="")
    #: Empty where rows are listed.
    digest = field.String(load_default="", validate=validate.Regexp(r"([0-9a-f]{4096})?\Z"))
    #: Ranges [epoch, first, last] of acknowledgements still held.
    held = _tuples(3, load_default=list)
    last = _whole(load_default=0)
    buckets = field.List(_whole(), load_default=None, allow_none=True)
    rows = _tuples(3, load_default=list)
    #: The highest number of each kind (uid) that this node was ever given; stands beside the digest.
    highest = field.Dict(keys=_text(40), values=_whole(), load_default=None, allow_none=True,
                         validate=validate.Length(max=MAX_KEYS))  # fmt: skip
    #: Names of what a cover called orphans; such a hello lists no buckets.
    orphans = field.List(field.Nested(OrphanSchema(unknown=EXCLUDE)), load_default=list)

    @validates_schema
    def _check(self, data: Mapping[str, Any], **more: Any) -> None:
        if data.get("buckets") is None and not (data.get("digest") and data.get("highest") is not None):
            raise ValidationError("a hello has a digest and its highest numbers, or lists buckets")


class BeatSchema(Schema):
    """A sign of life."""

    form = _text(required=True)
    node = _text(required=True)
    epoch = _whole(required=True)
    root = _text(16, load_default="")
    synced = field.Boolean(load_default=False)
    #: The brake is pulled and no round is under way.
    paused = field.Boolean(load_default=False)
    version = _text(load_default="")
    state = _text(200, load_default="")
    open = _whole(load_default=0)
    failed = _whole(load_default=0)
    held = _whole(load_default=0)
    #: The number of the newest acknowledgement of this epoch.
    last = _whole(required=True)
    rounds = _whole(load_default=0)
    signals = field.Dict(keys=_text(MAX_WORD), values=_whole(), load_default=dict,
                         validate=validate.Length(max=MAX_KEYS))  # fmt: skip
    blocked = _texts(MAX_TEXT)
    #: Daemons that should run and do not; those that were stopped on purpose, and when.
    down = _texts(MAX_TEXT)
    stopped = _texts(MAX_TEXT)
    #: How many differences from the ledger were found last, and the first of them.
    drifted = _whole(load_default=0)
    drift = _texts(MAX_TEXT)
    at = _seconds(required=True)


class UsageSchema(Schema):
    """What accounts use: how much they hold, from the node that keeps their files, or what a node sent for them."""

    form = _text(required=True)
    node = _text(required=True)
    #: [id, bytes] of each account.
    stored = _tuples(2, required=True, validate=validate.Length(max=LISTED_AT_ONCE))
    #: [id, month as 202611, bytes] of each account: all that this node ever counted of that month.
    sent = _tuples(3, load_default=list, validate=validate.Length(max=LISTED_AT_ONCE))
    at = _seconds(required=True)


#: Every form by its name.
FORMS: Mapping[str, type[Schema]] = {
    "apply": ApplySchema,
    "welcome": WelcomeSchema,
    "cover": CoverSchema,
    "hail": HailSchema,
    "action": ActionSchema,
    "pause": PauseSchema,
    "question": QuestionSchema,
    "answer": AnswerSchema,
    "ack": AckSchema,
    "hello": HelloSchema,
    "beat": BeatSchema,
    "usage": UsageSchema,
}
