"""The highest uid a node was ever given stands in its ledger, whatever becomes of the account."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onehost.models import wire
from onehost.workers.ledger import Ledger


def letter(number: int, uid: int | None, generation: int = 1) -> wire.Letter:
    payload = None if uid is None else {"uid": uid}
    body: dict[str, Any] = {
        "form": "apply", "node": "w1", "id": number, "noun": "account", "version": [1, 0], "name": f"a{number}",
        "generation": generation, "incarnation": 0, "payload": payload, "job": None, "verb": "apply", "roles": ["web"],
        "replaces": 0, "secrets": {},
    }  # fmt: skip
    return wire.Letter("apply", "w1", body)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger.db")
    yield made
    made.close()


def test_it_only_rises_and_outlives_account_and_worker(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.highest.numbers() == {}
    ledger.store([letter(1, 20007), letter(2, 20003), letter(3, 20009)])
    ledger.store([letter(3, None, generation=2)])
    ledger.drop_unknown([3])
    assert ledger.highest.numbers() == {"uid": 20009}
    ledger.close()
    again = Ledger(tmp_path / "ledger.db")
    assert again.highest.numbers() == {"uid": 20009}
    again.close()


def test_a_letter_that_is_no_news_counts_too(ledger: Ledger) -> None:
    ledger.store([letter(1, 20001, generation=9)])
    ledger.store([letter(1, 20002, generation=3)])
    assert ledger.highest.numbers() == {"uid": 20002}


def test_what_was_taken_back_is_not_remembered(ledger: Ledger) -> None:
    bad = letter(2, 20005)
    with pytest.raises(KeyError):
        ledger.store(
            [letter(1, 20004), wire.Letter("apply", "w1", {k: v for k, v in bad.body.items() if k != "roles"})]
        )
    assert ledger.highest.numbers() == {}


def test_a_ledger_of_an_earlier_worker_is_looked_through(ledger: Ledger, tmp_path: Path) -> None:
    ledger.store([letter(1, 20007), letter(2, 20003)])
    with ledger._changing() as db:
        db.execute("DELETE FROM fact")
    ledger.close()
    again = Ledger(tmp_path / "ledger.db")
    assert again.highest.numbers() == {"uid": 20007}
    again.close()
