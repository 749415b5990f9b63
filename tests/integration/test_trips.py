"""What is sent without waiting for each answer, and connections that are used again: refused and lost as before."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, bindparam, insert, select, text
from sqlalchemy.exc import IntegrityError

from onehost import migrations
from onehost.models.errors import Unreachable
from onehost.models.moment import now
from onehost.models.store import Counter, Event, answers, connect, pipelined, reading, rested, together, writing
from onehost.producer.events import Happened, record

TWO = [{"name": "one", "value": 1}, {"name": "two", "value": 2}]


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[Engine]:
    """A store with tables and nothing in them."""
    url = f"sqlite:///{tmp_path}/store.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").new_database()
    migrations.upgrade(url)
    made = connect(url)
    yield made
    made.dispose()


def counters(engine: Engine) -> set[str]:
    with reading(engine) as connection:
        return set(connection.execute(select(Counter.name)).scalars())


def test_what_is_pipelined_is_committed_as_one(engine: Engine) -> None:
    with writing(engine) as connection:
        with pipelined(connection):
            together.add(connection, Counter, TWO)
            together.change(connection, Counter, [{"name": "one", "value": 7}], ("name",))
        assert connection.execute(select(Counter.value).where(Counter.name == "one")).scalar_one() == 7
    assert counters(engine) == {"one", "two"}


@pytest.mark.parametrize("is_last", [True, False])
def test_what_is_refused_in_a_pipeline_is_refused_whole(engine: Engine, is_last: bool) -> None:
    with writing(engine) as connection:
        together.add(connection, Counter, TWO)
    with pytest.raises(IntegrityError), writing(engine) as connection, pipelined(connection):
        together.add(connection, Counter, [{"name": "three", "value": 3}])
        together.add(connection, Counter, TWO)
        if not is_last:
            together.add(connection, Counter, [{"name": "four", "value": 4}])
    assert counters(engine) == {"one", "two"}
    with writing(engine) as connection:
        connection.execute(insert(Counter).values(name="five", value=5))
    assert counters(engine) == {"one", "two", "five"}


def test_words_of_every_kind_travel_as_they_are(engine: Engine) -> None:
    words = ['"', "\\", '\\"', "{}", ",", "NULL", "", " ", "'", "ä€😀", "a\nb\tc", "\x01", None]
    with writing(engine) as connection:
        together.add(connection, Event, [{"at": now(), "kind": "test", "actor": "test", "name": word, "body": b"{}"}
                                         for word in words])  # fmt: skip
    with reading(engine) as connection:
        assert list(connection.execute(select(Event.name).order_by(Event.id)).scalars()) == words


@pytest.mark.parametrize("rest_seconds", [0.0, 60.0])
def test_a_connection_that_was_cut_is_replaced_before_it_is_used(
    postgresql: object, monkeypatch: pytest.MonkeyPatch, rest_seconds: float
) -> None:
    """After a rest by asking, else by looking at it."""
    monkeypatch.setattr(rested, "ASK_SECONDS", rest_seconds)
    url = postgresql.new_database()  # type: ignore[attr-defined]
    engine, other = connect(url), connect(url)
    with reading(engine) as connection:
        first = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with writing(other) as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": first})
        gone = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
        until = time.monotonic() + 20
        while connection.execute(gone, {"pid": first}).scalar_one() and time.monotonic() < until:
            time.sleep(0.01)
    with reading(engine) as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != first
    engine.dispose()
    other.dispose()


def test_a_connection_lost_within_a_pipeline_is_said_to_be(postgresql: object) -> None:
    url = postgresql.new_database()  # type: ignore[attr-defined]
    migrations.upgrade(url)
    engine = connect(url)
    with pytest.raises(Unreachable), writing(engine) as connection, pipelined(connection):
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert counters(engine) == set()
    engine.dispose()


NAMED = select(Counter.value).where(Counter.name == bindparam("name"))
HAPPENED = select(Event.at, Event.body, Event.kind.label("what")).where(Event.at <= bindparam("at")).order_by(Event.id)


def test_what_is_asked_together_is_answered_in_order(engine: Engine) -> None:
    at = now()
    with writing(engine) as connection:
        together.add(connection, Counter, TWO)
        record(connection, [Happened("test.one", "tester", at)])
    with reading(engine) as connection:
        two, none, (event,) = answers(
            connection, (NAMED, {"name": "two"}), (NAMED, {"name": "none"}), (HAPPENED, {"at": at})
        )
        assert [row.value for row in two] == [2] and list(none) == []
        alike = connection.execute(HAPPENED, {"at": at}).one()
    assert (event.at, event.body, event.what) == (alike.at, alike.body, alike.what) and event.at == at


def test_it_sees_what_was_sent_before_it(engine: Engine) -> None:
    with writing(engine) as connection, pipelined(connection):
        together.add(connection, Counter, TWO)
        (row,), _ = answers(connection, (NAMED, {"name": "one"}), (NAMED, {"name": "two"}))
        together.add(connection, Counter, [{"name": "three", "value": row.value}])
    assert counters(engine) == {"one", "two", "three"}


def test_what_is_refused_before_it_is_refused_whole(engine: Engine) -> None:
    with writing(engine) as connection:
        together.add(connection, Counter, TWO)
    with pytest.raises(IntegrityError), writing(engine) as connection, pipelined(connection):
        together.add(connection, Counter, [{"name": "three", "value": 3}])
        together.add(connection, Counter, TWO)
        answers(connection, (NAMED, {"name": "one"}))
    assert counters(engine) == {"one", "two"}
