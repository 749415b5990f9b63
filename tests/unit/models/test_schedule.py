"""When a cron entry runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from onehost.models.schedule import NICKNAMES, parse, schedule

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def minutes(text: str, days: int = 1, begin: datetime = FIRST) -> list[datetime]:
    moments = (begin + timedelta(minutes=number) for number in range(days * 1440))
    return [moment for moment in moments if parse(schedule(text)).matches(moment)]


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("*/5 * * * *", "*/5 * * * *"),
        (" 30\t4  * * MON-Fri ", "30 4 * * mon-fri"),
        ("0 0 1,15 jan,jul *", "0 0 1,15 jan,jul *"),
        ("@Daily", "@daily"),
        ("0-59/59 0-23 1-31 1-12 0-7", "0-59/59 0-23 1-31 1-12 0-7"),
    ],
)
def test_one_spelling(text: str, spelled: str) -> None:
    assert schedule(text) == spelled
    assert schedule(spelled) == spelled


@pytest.mark.parametrize(
    "text",
    [
        "", "* * * *", "* * * * * *", "@reboot", "@every 5m", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *",
        "* * * 0 *", "* * * 13 *", "* * * * 8", "*/0 * * * *", "*/60 * * * *", "5/2 * * * *", "5-1 * * * *",
        "fri-mon * * * *", "* * * * fri-mon", "jan * * * *", "* * * mon *", "1,,2 * * * *", ", * * * *", "1- * * * *",
        "-1 * * * *", "+1 * * * *", "1.5 * * * *", "** * * * *", "* * 31 2 *", "* * 30 feb *", "* * 31 4,6,9,11 *",
        "1\n* * * *", "* * * * *\n", "*\x00 * * * *", "\u0661 * * * *", "* * * * \u202e*", "* * * * *\u00a0",
        "~ * * * *", "* * * * mon#1", "* * L * *", "? * * * *", "001 * * * *", "* " * 200,
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        schedule(text)


@pytest.mark.parametrize(("text", "days", "count"), [
    ("* * * * *", 1, 1440), ("*/15 * * * *", 1, 96), ("0 4 * * *", 7, 7), ("@weekly", 28, 4), ("0 0 * * 7", 28, 4),
    ("0 0 * * sun", 28, 4), ("0 0 29 2 *", 365, 0), ("0 0 31 * *", 365, 7), ("0 0 1-7/3 * *", 31, 3),
    ("@yearly", 365, 1), ("@monthly", 365, 12), ("@hourly", 1, 24),
])  # fmt: skip
def test_how_often(text: str, days: int, count: int) -> None:
    assert len(minutes(text, days)) == count


def test_two_days_are_either_and_a_star_makes_it_both() -> None:
    either = minutes("0 0 13 * fri", 365)
    assert {moment for moment in either if moment.day != 13 and moment.isoweekday() != 5} == set()
    assert len(either) > 52
    both = minutes("0 0 */2 * fri", 31)
    assert both and all(moment.day % 2 and moment.isoweekday() == 5 for moment in both)


@given(st.text(alphabet="0123456789*/,-@ abcdefjlmnoprstuvwy\t\n\u202e\x00") | st.text())
def test_whatever_is_taken_has_one_spelling_and_can_come(text: str) -> None:
    try:
        spelled = schedule(text)
    except ValidationError:
        return
    assert schedule(spelled) == spelled and spelled.isascii() and spelled.isprintable()
    found = parse(spelled)
    assert found.minutes and found.hours and found.days and found.months and found.weekdays
    assert spelled in NICKNAMES or len(spelled.split(" ")) == 5


FIELD = st.one_of(
    st.just("*"), st.integers(0, 7).map(str), st.integers(1, 5).map("*/{}".format),
    st.tuples(st.integers(0, 3), st.integers(3, 7)).map("{0[0]}-{0[1]}".format),
)  # fmt: skip


@given(st.lists(FIELD, min_size=1, max_size=4).map(",".join))
def test_a_list_is_the_union_of_its_items(field: str) -> None:
    union = frozenset[int]().union(*(parse(f"{item} * * * *").minutes for item in field.split(",")))
    assert parse(f"{field} * * * *").minutes == union
