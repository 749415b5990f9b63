"""How times, lengths of time and resources are written: 2026-11-24, 2026-11-24T10:00Z, 15m, 2h, 3d; account/alice."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from ...models import nouns
from ...models.errors import Invalid

_AGO = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str | None) -> datetime | None:
    """A time in ISO 8601 (UTC unless it says otherwise), or how long ago. Raises Invalid."""
    if text is None:
        return None
    try:
        if ago := _AGO.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid(f"{text!r} is no time", hint="2026-11-24, 2026-11-24T10:00Z, 15m, 2h or 3d") from None


def duration(text: str) -> timedelta:
    """How long: 30s, 10m, 2h, 1d or 1w; not 0. Raises Invalid."""
    found = _AGO.fullmatch(text)
    if found is None or not int(found[1]):
        raise Invalid(f"{text!r} is no length of time", hint="30s, 10m, 2h or 1d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def resource_filter(text: str | None) -> tuple[str | None, str | None]:
    """Noun and name of `account/alice`, or the noun alone. Raises NotFound for an unknown noun."""
    if text is None:
        return None, None
    noun, _, name = text.partition("/")
    return nouns.noun(noun.replace("-", "_")).name, name or None
