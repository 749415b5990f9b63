"""One value, one spelling: hashes and comparisons rest on it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from onehost.models.canonical import canonical, digest

VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False) | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4),
    max_leaves=10,
)


@given(VALUES)
def test_reading_and_writing_again_changes_nothing(value: object) -> None:
    data = canonical(value)
    assert json.loads(data) == value and canonical(json.loads(data)) == data


def test_order_and_spelling_do_not_matter() -> None:
    assert canonical({"b": 1, "a": "ü"}) == canonical({"a": "\u00fc", "b": 1}) == '{"a":"ü","b":1}'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": -float("inf")}, "\ud800"])
def test_what_has_no_spelling_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        canonical(value)


def test_the_digest_is_sha256() -> None:
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
