"""Who holds a name before its entry goes first, if the entry replaces it."""

from __future__ import annotations

import pytest

from onehost.models.errors import Permanent
from onehost.workers.entry import Entry, said_replaced


def test_what_an_entry_replaces_goes_and_an_orphan_fails_it() -> None:
    entry = Entry(12, "cron", "alice.backup", 1, {}, replaces=9)
    assert entry.replaced([12]) == entry.replaced([]) == []
    assert entry.replaced({9, 12, 4}) == [4, 9]
    with pytest.raises(Permanent, match="id 10, an orphan that id 12 does not replace"):
        entry.replaced([4, 10])


def test_a_removal_replaces_nobody() -> None:
    assert Entry(12, "cron", "alice.backup", 2, None, replaces=9).replaced([9, 10]) == []


def test_a_difference_names_what_is_replaced() -> None:
    assert (said_replaced([]), said_replaced([4, 9])) == ({}, {"replaced": "id 4, id 9"})
