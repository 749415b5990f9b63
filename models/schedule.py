"""When a cron entry runs: the five fields of crontab(5), checked hard, and matched in UTC so that all nodes agree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from marshmallow import ValidationError

#: A longer one is a mistake, or meant to be one.
LONGEST = 200
NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_WEEKDAYS = "sun mon tue wed thu fri sat".split()
#: What it is called, its first and last number, names of its numbers.
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of the week", 0, 7, {name: number for number, name in enumerate(_WEEKDAYS)}),
)
_NUMBER = r"[0-9]{1,2}|[a-z]{3}"
_ITEM = re.compile(rf"(?:(?P<all>\*)|(?P<first>{_NUMBER})(?:-(?P<last>{_NUMBER}))?)(?:/(?P<step>[0-9]{{1,2}}))?")
_LONGEST_MONTH = {month: 30 if month in (4, 6, 9, 11) else 29 if month == 2 else 31 for month in range(1, 13)}


@dataclass(frozen=True)
class Schedule:
    """The numbers that each field lets through."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    #: Whether either day field begins with `*`: then both must fit, else one is enough, as in crontab(5).
    both_days: bool

    def matches(self, moment: datetime) -> bool:
        """Whether it comes in the minute of `moment`, which is aware and in UTC."""
        day = moment.day in self.days
        weekday = moment.isoweekday() % 7 in self.weekdays
        return (
            moment.minute in self.minutes
            and moment.hour in self.hours
            and moment.month in self.months
            and (day and weekday if self.both_days else day or weekday)
        )


def schedule(text: str) -> str:
    """The one spelling of a schedule: small letters, one space between fields. Raises ValidationError."""
    if not isinstance(text, str) or len(text) > LONGEST or not text.isascii():
        raise ValidationError("is not a schedule: five fields such as 30 4 * * mon-fri, or @daily")
    spelled = " ".join(re.split(r"[ \t]+", text.strip(" \t"))).lower()
    parse(spelled)
    return spelled


@lru_cache(maxsize=4096)
def parse(text: str) -> Schedule:
    """A schedule in its one spelling, read. Raises ValidationError with the field that is wrong."""
    if text.startswith("@"):
        if text not in NICKNAMES:
            known = ", ".join(NICKNAMES)
            raise ValidationError(f"{text!r} is not a time: an entry has no moment of booting. Known: {known}")
        text = NICKNAMES[text]
    words = text.split(" ")
    if len(words) != len(_FIELDS):
        raise ValidationError(f"has {len(words)} fields instead of 5: minute, hour, day, month, day of the week")
    minutes, hours, days, months, weekdays = (_field(word, *field) for word, field in zip(words, _FIELDS, strict=True))
    both_days = words[2][0] == "*" or words[4][0] == "*"
    found = Schedule(minutes, hours, days, months, frozenset(day % 7 for day in weekdays), both_days)
    if words[4][0] == "*" and not any(min(found.days) <= _LONGEST_MONTH[month] for month in found.months):
        raise ValidationError("never comes: no such month has such a day")
    return found


def _field(word: str, what: str, least: int, most: int, names: dict[str, int]) -> frozenset[int]:
    return frozenset().union(*(_item(item, what, least, most, names) for item in word.split(",")))


def _item(item: str, what: str, least: int, most: int, names: dict[str, int]) -> frozenset[int]:
    match = _ITEM.fullmatch(item)
    if not match or (match["step"] and not (match["all"] or match["last"])):
        raise ValidationError(f"{what}: {item!r} is not one of 5, 1-5, *, */15, 0-30/10, or a list of them")
    first = least if match["all"] else _number(match["first"], what, least, most, names)
    last = most if match["all"] else _number(match["last"], what, least, most, names) if match["last"] else first
    step = int(match["step"] or 1)
    if first > last:
        raise ValidationError(f"{what}: {item!r} ends before it begins")
    if not 1 <= step <= most - least:
        raise ValidationError(f"{what}: a step is 1 to {most - least}, not {step}")
    return frozenset(range(first, last + 1, step))


def _number(word: str, what: str, least: int, most: int, names: dict[str, int]) -> int:
    number = names.get(word, -1) if word.isalpha() else int(word)
    if not least <= number <= most:
        raise ValidationError(f"{what}: {word!r} is not one of {least} to {most}")
    return number
