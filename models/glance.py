"""A quick look at a letter: whether a schema would let it through as it is. Where it cannot say, the schema decides.

The schema is the definition. Most letters are plain: every field there is of exactly the type it is loaded as, and
passes the field's own validators. For those, what the schema would give is known without it, for a fifth of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from marshmallow import Schema, ValidationError, validate
from marshmallow import fields as field

#: What a schema would load of this, or None: then ask the schema.
Glance = Callable[[Mapping[str, Any]], dict[str, Any] | None]
#: Whether a value would be loaded as it is.
Plain = Callable[[Any], bool]
#: The types whose values are loaded as they are. A subclass (a strict number, a date) is not among them by itself.
_TYPES: dict[type[field.Field[Any]], type] = {
    field.Integer: int, field.String: str, field.Boolean: bool, field.Float: float, field.List: list, field.Dict: dict,
}  # fmt: skip
_MISSING = object()


def glance(schema: Schema) -> Glance:
    """The quick look of `schema`: one that drops what it does not know, and has no hooks of its own."""
    rows = [(name, _plain(each), each.required, each.load_default) for name, each in schema.load_fields.items()]

    def look(given: Mapping[str, Any]) -> dict[str, Any] | None:
        loaded: dict[str, Any] = {}
        for name, is_plain, is_required, default in rows:
            value = given.get(name, _MISSING)
            if value is _MISSING:
                if is_required:
                    return None
                loaded[name] = default() if callable(default) else default
            elif is_plain(value):
                loaded[name] = value
            else:
                return None
        return loaded

    return look


def _plain(of: field.Field[Any]) -> Plain:
    """Whether a value of this field is plain."""
    wanted, allows_none = _TYPES.get(type(of)), of.allow_none
    checks = [*map(_passes, of.validators), *_inner(of)]
    first, rest = checks[0] if checks else _anything, _every(checks[1:])

    def is_plain(value: Any) -> bool:
        if type(value) is not wanted:
            return value is None and allows_none
        return first(value) and rest(value)

    return is_plain


def _every(checks: Sequence[Plain]) -> Plain:
    if len(checks) > 1:
        return lambda value: all(check(value) for check in checks)
    return checks[0] if checks else _anything


def _passes(check: Callable[[Any], Any]) -> Plain:
    """Whether a value gets past a validator; those that nearly every field has without the way into the library."""
    if type(check) is validate.Length and check.equal is None and check.min is None and check.max is not None:
        longest = check.max
        return lambda value: len(value) <= longest
    if type(check) is validate.Range and check.min_inclusive and check.max_inclusive:
        least, most = check.min, check.max
        if least is not None and most is not None:
            return lambda value: bool(least <= value <= most)

    def passes(value: Any) -> bool:
        try:
            check(value)
        except ValidationError:
            return False
        return True

    return passes


def _inner(of: field.Field[Any]) -> list[Plain]:
    """Whether what a value holds is plain."""
    if isinstance(of, field.List):
        each = _plain(of.inner)
        return [lambda value: all(map(each, value))]
    if isinstance(of, field.Dict):
        key = _plain(of.key_field) if of.key_field else _anything
        item = _plain(of.value_field) if of.value_field else _anything
        return [lambda value: all(map(key, value)) and all(map(item, value.values()))]
    if isinstance(of, field.Float):
        return [math.isfinite]
    return []


def _anything(_value: Any) -> bool:
    return True
