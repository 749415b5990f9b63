"""What differs between two specs, in words for people. A secret is only ever "changed"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..models import nouns


def difference(noun: nouns.Noun, before: nouns.Spec | None, after: nouns.Spec | None) -> dict[str, str]:
    """By field, "old -> new"; {"resource": "made"} and {"resource": "removed"} for the whole of it."""
    if after is None:
        return {"resource": "removed"} if before is not None else {}
    if before is None:
        shown = {
            key: text(value) for key, value in after.items() if key not in noun.secret_fields and value is not None
        }
        return {"resource": "made"} | shown
    found: dict[str, str] = {}
    for key in sorted(after.keys() | before.keys()):
        old, new = before.get(key), after.get(key)
        if old != new:
            found[key] = "changed" if key in noun.secret_fields else f"{text(old)} -> {text(new)}"
    return found


def text(value: Any) -> str:
    """A value as a person writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={text(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(text(each) for each in value) or "none"
    return str(value)
