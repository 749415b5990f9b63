"""Events are found by strands of indexes: what comes out is what a look at every one of them would give."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest

from onehost.models.moment import now
from onehost.models.store import writing
from onehost.producer import EventFilter, event_search
from onehost.producer.events import Happened, record

from .manager import Store

#: Few values, so that filters meet: some frequent, some rare, some absent. "b*" stands for itself.
CHOICES: dict[str, list[Any]] = {
    "kind": ["account.set", "account.sett", "account.set", "node.offline", "acknowledgement", "account", "a.b*"],
    "actor": ["panel", "panel", "panel", "Panel", "onehost"],
    "noun": ["account", "account", "account", "node", None],
    "name": ["alice", "bob", None],
    "node": ["w1", "w1", "w2", None],
    "outcome": ["applied", "applied", "failed", "Failed", None],
    "job_id": [1, 2, 3, None],
}
ASKED = CHOICES | {"kind": [*CHOICES["kind"], "account.*", "node.*", "a.*", "nothing.*", "nothing"]}


@pytest.fixture
def filled(store: Store) -> Iterator[tuple[Store, list[dict[str, Any]]]]:
    chance = random.Random(1)
    start = now() + timedelta(hours=1)
    rows = [
        Happened(at=start + timedelta(seconds=chance.randrange(40)),
                 **{word: chance.choice(values) for word, values in CHOICES.items()})
        for _ in range(400)
    ]  # fmt: skip
    with writing(store.engine) as connection:
        record(connection, rows)
    everything = list(store.onehost.events(EventFilter(), None))
    assert len(everything) > 400
    yield store, everything


def expected(everything: list[dict[str, Any]], which: EventFilter) -> list[int]:
    by_id = {event["id"]: event for event in everything}
    found = []
    for event in everything:
        asked = {word: value for word, value in asdict(which).items() if value is not None}
        kind = asked.pop("kind", None)
        if kind and not (event["kind"].startswith(kind[:-1]) if kind.endswith(".*") else event["kind"] == kind):
            continue
        if "since" in asked and event["at"] < asked.pop("since").isoformat():
            continue
        if "until" in asked and event["at"] >= asked.pop("until").isoformat():
            continue
        before = by_id.get(asked.pop("before_id", 0))
        if before and (event["at"], event["id"]) >= (before["at"], before["id"]):
            continue
        if all(event[word] == value for word, value in asked.items() if word not in ("since", "until")):
            found.append((event["at"], event["id"]))
    return [each for _, each in sorted(found, reverse=True)]


def test_every_filter_finds_what_a_look_at_everything_finds(filled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store, everything = filled
    chance = random.Random(2)
    times = sorted({event["at"] for event in everything})
    for number in range(300):
        monkeypatch.setattr(event_search, "COUNTED", chance.choice([3, 20_000]))
        words = chance.sample(sorted(ASKED), chance.choice([0, 1, 1, 2, 2, 3]))
        asked = {word: chance.choice([value for value in ASKED[word] if value is not None]) for word in words}
        if chance.random() < 0.3:
            asked["since"] = type(now()).fromisoformat(chance.choice(times))
        if chance.random() < 0.3:
            asked["until"] = type(now()).fromisoformat(chance.choice(times))
        if chance.random() < 0.3:
            asked["before_id"] = chance.choice(everything)["id"]
        which = EventFilter(**asked)
        limit = chance.choice([1, 7, 50, None, 5000])
        found = [event["id"] for event in store.onehost.events(which, limit)]
        assert found == expected(everything, which)[:limit], (number, which)


def test_page_by_page_everything_is_seen_once(filled: Any) -> None:
    store, everything = filled
    seen: list[int] = []
    before = None
    while page := [event["id"] for event in store.onehost.events(EventFilter(noun="account", before_id=before), 7)]:
        seen += page
        before = page[-1]
    assert seen == expected(everything, EventFilter(noun="account"))


def test_a_cursor_that_never_was_still_turns_pages(filled: Any) -> None:
    store, _ = filled
    assert list(store.onehost.events(EventFilter(before_id=1 << 40), 3)) == list(store.onehost.events(EventFilter(), 3))
