"""The running digest: whatever happens, in whatever order and by whomever at once, it is what a recount gives."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from sqlalchemy import select, text, update

from onehost.models import wire
from onehost.models.digest import Digest
from onehost.models.errors import Refused
from onehost.models.moment import now
from onehost.models.store import Action, Bucket, Event, Placement, digests, reading, writing
from onehost.producer import Wish, resync
from onehost.producer.membership import nodes

from .manager import EPOCH, Store


def act(store: Store, chance: random.Random, node_number: int) -> None:
    """One thing that may happen to a store."""
    names = [f"a{number}" for number in range(4)]
    name = chance.choice(names)
    with reading(store.engine) as connection:
        rows = connection.execute(select(Placement)).all()
        alive = {each.id: each.name for each in nodes(connection).values()}
    row = chance.choice([row for row in rows if row.node_id in alive])
    what = chance.choice(["wish", "wish", "say", "say", "say", "say", "beyond", "node", "tries", "dry"])
    try:
        if what == "wish":
            verb = chance.choice(["create", "apply", "suspend", "remove", "retry"])
            fields = {"domain": f"{name}.example"} if verb == "create" else {}
            fields |= {"aliases": [f"{chance.choice('xyz')}{name}.example"]} if verb == "apply" else {}
            store.onehost.submit([Wish("account", name, verb, fields)])
        elif what == "say":
            generation = chance.choice([row.wanted, row.wanted, max(row.wanted - 1, 0), row.wanted + 1])
            outcome = chance.choice(["applied", "applied", "failed", "retrying"])
            node = alive[row.node_id]
            store.say(store.acked(node, row.resource_id, generation, outcome, epoch=chance.choice([EPOCH, EPOCH + 1])))
        elif what == "beyond":
            with writing(store.engine) as connection:
                resync._raise_above(connection, row.node_id, row.resource_id, row.wanted, now())
        elif what == "node" and chance.random() < 0.3:
            gone = [each for each in alive.values() if each.startswith("n")]
            if gone and chance.random() < 0.5:
                store.onehost.submit([Wish("node", gone[0], "remove")])
            else:
                store.onehost.node_add(f"n{node_number}", f"10.1.0.{node_number}", ["web"])
        elif what == "dry":
            store.onehost.submit([Wish("account", name, "suspend")], dry_run=True)
    except Refused:
        pass


@pytest.mark.parametrize("seed", range(4))
def test_after_any_history_the_sums_are_those_of_a_recount(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(60):
        act(store, chance, number + 10)
        assert store.wrong_digests() == {}
    with reading(store.engine) as connection:
        ids = set(nodes(connection))
        assert set(connection.execute(select(Bucket.node_id)).scalars()) <= ids, "sums of a node that has left"


def test_what_a_failed_transaction_changed_is_in_no_sum(store: Store) -> None:
    with reading(store.engine) as connection:
        row = connection.execute(select(Placement)).all()[0]
    with pytest.raises(RuntimeError), writing(store.engine) as connection:
        digests.changed(connection, [(row.node_id, row.resource_id, (row.wanted, 1), None)])
        raise RuntimeError
    for _ in range(3):
        with reading(store.engine) as connection:
            assert digests.read(connection, row.node_id).sums == digests.read(connection, row.node_id).sums
        store.onehost.account_create(f"b{_}", domain=f"b{_}.example")
    assert store.wrong_digests() == {}


def hello(store: Store, digest: Digest, **more: Any) -> list[wire.Letter]:
    """What w1 is answered."""
    node_id = store.id("node", "w1")
    body = {"form": "hello", "node": "w1", "hello": "h", "epoch": EPOCH, "incarnation": 0}
    letter = wire.decode(wire.encode(**body | (more or {"digest": digest.text(), "highest": {}})))
    with writing(store.engine) as connection:
        resync.answer(connection, node_id, letter, now())
        found = connection.execute(select(Action).where(Action.node_id == node_id).order_by(Action.id)).all()
        return [wire.decode(row.body) for row in found]


def test_a_wrong_sum_heals_before_a_node_is_troubled(store: Store) -> None:
    store.onehost.account_create("alice", domain="alice.example")
    node_id = store.id("node", "w1")
    with reading(store.engine) as connection:
        right = digests.read(connection, node_id)
    with writing(store.engine) as connection:
        connection.execute(update(Bucket).where(Bucket.node_id == node_id).values(total=4711))
    assert store.wrong_digests()["w1"]
    assert hello(store, right)[-1]["differing"] == []
    assert store.wrong_digests() == {}
    with reading(store.engine) as connection:
        assert connection.execute(select(Event).where(Event.kind == "digest.recount")).one().node == "w1"


def test_a_missing_sum_heals_too(store: Store) -> None:
    store.onehost.account_create("alice", domain="alice.example")
    node_id = store.id("node", "w1")
    with reading(store.engine) as connection:
        right = digests.read(connection, node_id)
    with writing(store.engine) as connection:
        connection.execute(Bucket.__table__.delete().where(Bucket.__table__.c.node_id == node_id))
    assert hello(store, right)[-1]["differing"] == [] and store.wrong_digests() == {}


def test_a_cover_of_many_resources_is_cut_into_letters_that_may_travel(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "LISTED_AT_ONCE", 10)
    for number in range(40):
        store.onehost.account_create(f"a{number}", domain=f"a{number}.example")
        store.ack_all(store.onehost.submit([Wish("account", f"a{number}", "retry")])[0], "s1")
    strangers = [[1 << 40 | number, 1, 1] for number in range(25)]
    letters = hello(store, Digest(), buckets=list(range(256)), rows=strangers)
    covers = [each for each in letters if each.form == "cover"]
    assert len(covers) > 5
    assert sorted(number for each in covers for number in each["buckets"]) == list(range(256))
    wanted = [tuple(row) for each in covers for row in each["wanted"]]
    with reading(store.engine) as connection:
        mine = digests.rows(connection, store.id("node", "w1"), range(256))
    assert sorted(wanted) == [(row.resource_id, row.wanted) for row in mine]
    assert sorted(each for cover in covers for each in cover["orphans"]) == [row[0] for row in strangers]
    for cover in covers:
        assert len(cover["wanted"]) + len(cover["orphans"]) <= 10
        assert {row[0] % 256 for row in cover["wanted"]} <= set(cover["buckets"])


def test_many_at_once_neither_stand_still_nor_lose_a_sum(store: Store) -> None:
    """Wishes and acknowledgements of resources that share buckets, and a recount, from several threads."""
    for number in range(8):
        store.onehost.account_create(f"a{number}", domain=f"a{number}.example")
    failed: list[BaseException] = []

    def guarded(run: Any) -> None:
        try:
            run()
        except BaseException as error:
            failed.append(error)

    def wishes(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(15):
            some = chance.sample(range(8), 3)
            store.onehost.submit([Wish("account", f"a{number}", "retry") for number in some])

    def says() -> None:
        for _ in range(40):
            with reading(store.engine) as connection:
                rows = connection.execute(select(Placement).where(Placement.done < Placement.wanted)).all()
                names = {each.id: each.name for each in nodes(connection).values()}
            store.say(*[store.acked(names[row.node_id], row.resource_id, row.wanted) for row in rows])

    def recounts() -> None:
        for _ in range(30):
            with writing(store.engine) as connection:
                for node_id in sorted(nodes(connection)):
                    digests.recount(connection, node_id, range(256))

    runs = [lambda: wishes(1), lambda: wishes(2), says, recounts]
    threads = [threading.Thread(target=guarded, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads) and failed == []
    assert store.wrong_digests() == {}


def test_a_batch_that_loses_a_deadlock_is_stored_all_the_same(store: Store) -> None:
    """PostgreSQL ends one of two that wait for each other: the audit process goes on as if nothing had been."""
    if store.engine.dialect.name == "sqlite":
        pytest.skip("one writer at a time waits for nobody")
    receipts = [store.onehost.account_create(f"a{number}", domain=f"a{number}.example") for number in range(2)]
    first, last = sorted(receipt.resource_id for receipt in receipts)
    placed = select(Placement.sent).where(Placement.node_id == store.id("node", "s1")).with_for_update()
    batch = [store.acked("s1", receipt.resource_id, receipt.generation) for receipt in receipts]
    saying = threading.Thread(target=store.say, args=batch)
    with writing(store.engine) as connection:
        connection.execute(placed.where(Placement.resource_id == last))
        saying.start()
        waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = :name")
        with reading(store.engine) as other:
            while not other.execute(waiting, {"name": store.engine.url.database}).scalar():
                continue
        connection.execute(placed.where(Placement.resource_id == first))
    saying.join(30)
    assert not saying.is_alive()
    assert [store.placements(each)["s1"].outcome for each in (first, last)] == [1, 1]
