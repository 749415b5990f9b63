"""The digest: what is added and dropped leaves nothing, what differs is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from onehost.models.digest import BUCKETS, Digest, bucket, row_hash

ROWS = some.lists(some.tuples(some.integers(0, 1 << 62), some.integers(0, 1 << 62), some.integers(0, 2)), max_size=30)


@given(ROWS, some.randoms())
def test_order_does_not_matter_and_dropping_undoes(rows: list[tuple[int, int, int]], chance: object) -> None:
    one, two = Digest(), Digest()
    for row in rows:
        one.add(*row)
    shuffled = sorted(rows, key=lambda row: hash((row, id(chance))))
    for row in shuffled:
        two.add(*row)
    assert (one.text(), one.root(), one.differing(two)) == (two.text(), two.root(), [])
    for row in rows:
        one.drop(*row)
    assert one.text() == Digest().text()


@given(ROWS, some.tuples(some.integers(0, 1 << 62), some.integers(0, 1 << 62), some.integers(0, 2)))
def test_one_row_more_differs_in_its_bucket_alone(rows: list[tuple[int, int, int]], more: tuple[int, int, int]) -> None:
    one, two = Digest(), Digest()
    for row in rows:
        one.add(*row)
        two.add(*row)
    two.add(*more)
    assert one.differing(two) == [bucket(more[0])] and one.root() != two.root()


def test_every_part_of_a_row_counts() -> None:
    rows = [(1, 1, 0), (1, 1, 1), (1, 1, 2), (1, 2, 0), (2, 1, 0), (11, 1, 0), (1, 11, 0)]
    assert len({row_hash(*row) for row in rows}) == len(rows)
    assert row_hash(7, 3, 1) == 0x2306FF5BB1263DD3, "both sides of a running cluster must go on agreeing"


@given(ROWS)
def test_it_is_spelled_and_read(rows: list[tuple[int, int, int]]) -> None:
    digest = Digest()
    for row in rows:
        digest.add(*row)
    assert len(digest.text()) == 16 * BUCKETS
    assert Digest.parse(digest.text()).sums == digest.sums


@pytest.mark.parametrize("text", ["", "0", "x" * 4096, "0" * 4095, "0" * 4097])
def test_nonsense_is_no_digest(text: str) -> None:
    with pytest.raises(ValueError):
        Digest.parse(text)
