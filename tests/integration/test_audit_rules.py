"""What acknowledgements may and may not do, on both databases: the rules that histories of faults have taught.

Numbers of rules are not repeated here; each test says the history it stands for.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from onehost.broker_config.publisher import Publisher
from onehost.models import wire
from onehost.models.digest import Digest
from onehost.models.moment import now
from onehost.models.store import Action, Event, Hello, NodeStatus, Placement, Resource, reading, writing
from onehost.producer import EventFilter, resync
from onehost.producer.relay import Relay

from .manager import EPOCH, Store


def events(store: Store, **which: Any) -> list[dict[str, Any]]:
    return list(store.onehost.events(EventFilter(**which), None))


def on(store: Store, resource_id: int, node: str = "w1") -> tuple[int, int, int, int]:
    row = store.placements(resource_id)[node]
    return row.wanted, row.done, row.applied, row.outcome


# ---- one acknowledgement


def test_one_that_is_beyond_what_is_wanted_is_kept_and_changes_nothing(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    before = on(store, receipt.resource_id, "s1")
    for generation in (2, 99):
        store.ack("s1", receipt.resource_id, generation)
    store.ack("s1", 4711, 1)
    store.ack("w1", receipt.resource_id, 1)
    assert on(store, receipt.resource_id, "s1") == before and store.job(receipt.job_id)["state"] == "running"
    assert len(events(store, outcome="strange")) == 4
    assert store.placements(receipt.resource_id).keys() == {"s1"}


def test_the_same_one_again_changes_nothing(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    ack = store.acked("s1", receipt.resource_id, 1)
    assert store.say(ack) == []
    before = store.dump()
    assert store.say(ack) == [] and store.say(ack, ack, ack) == []
    assert store.dump() == before


def test_the_same_number_with_other_words_is_passed_over(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    store.ack("s1", receipt.resource_id, 1, number=500)
    before = store.dump()
    store.ack("s1", receipt.resource_id, 1, "failed", number=500, reason="forged")
    assert store.dump() == before


def test_an_older_generation_moves_no_number_back(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    store.ack_all(receipt)
    second = store.onehost.account_set("alice", php=False)
    store.ack_all(second)
    before = on(store, receipt.resource_id)
    store.ack("w1", receipt.resource_id, 1, "failed", reason="late")
    assert on(store, receipt.resource_id) == before == (2, 2, 2, 1)


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [({"number": 1000}, {"number": 1001}, 1), ({"number": 1001}, {"number": 1000}, 2),
     ({"number": 1000, "epoch": 5}, {"number": 900}, 1), ({"number": 1000}, {"number": 2000, "epoch": 5}, 2)],
    ids=["later number", "earlier number", "the present life", "an earlier life"],
)  # fmt: skip
@pytest.mark.parametrize("together", [False, True])
def test_at_equal_generation_the_later_word_counts_but_not_the_job(
    store: Store, first: dict[str, int], second: dict[str, int], outcome: int, together: bool
) -> None:
    """A child failed for want of its parent; the parent is retried; the child then applies at its old generation."""
    receipt = store.onehost.account_create("alice")
    store.ack("s1", receipt.resource_id, 1)
    said = [store.acked("w1", receipt.resource_id, 1, "failed", reason="no parent", **first),
            store.acked("w1", receipt.resource_id, 1, "applied", **second)]  # fmt: skip
    if together:
        store.say(*said)
    else:
        for each in said:
            store.say(each)
    assert on(store, receipt.resource_id) == (1, 1, 1 if outcome == 1 else 0, outcome)
    if not together:
        store.ack("w2", receipt.resource_id, 1)
        job = store.job(receipt.job_id)
        assert (job["state"], job["failed"], store.targets(receipt.job_id)["w1"]) == ("partial", 1, "failed")


def test_a_node_that_tries_again_says_why_and_nothing_is_counted(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    store.ack("s1", receipt.resource_id, 1, "retrying", reason="disk full")
    job = store.job(receipt.job_id)
    assert (job["nodes"][0]["state"], job["nodes"][0]["reason"]) == ("waiting", "trying again: disk full")
    assert on(store, receipt.resource_id, "s1") == (1, 0, 0, 0)
    store.ack("s1", receipt.resource_id, 1)
    store.ack("s1", receipt.resource_id, 1, "retrying", reason="late", number=400)
    assert on(store, receipt.resource_id, "s1") == (1, 1, 1, 1)


# ---- one batch


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_two_words_on_one_placement_are_collapsed_to_the_newest(store: Store, order: list[int]) -> None:
    first = store.onehost.account_create("alice")
    store.ack_all(first)
    second = store.onehost.account_set("alice", php=False)
    third = store.onehost.account_set("alice", php=True)
    acks = [store.acked("w1", first.resource_id, second.generation, "failed", reason="no", number=100),
            store.acked("w1", first.resource_id, third.generation, number=101)]  # fmt: skip
    assert store.say(*(acks[n] for n in order)) == []
    assert on(store, first.resource_id) == (3, 3, 3, 1)
    assert store.targets(second.job_id)["w1"] == "superseded" and store.targets(third.job_id)["w1"] == "applied"
    assert len(events(store, kind="acknowledgement", node="w1", name="x")) >= 3, "each is an event all the same"


def test_a_batch_of_many_nodes_and_resources(store: Store) -> None:
    receipts = [store.onehost.account_create(f"user{n}") for n in range(30)]
    store.say(*(store.acked("s1", r.resource_id, 1) for r in receipts))
    store.say(*(store.acked(node, r.resource_id, 1) for r in receipts for node in ("w2", "w1")))
    assert store.onehost.status()["placements_open"] == 0
    assert {job["state"] for job in store.onehost.jobs(kind="account.*")} == {"applied"}


def test_good_and_bad_in_one_batch(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    good = store.acked("s1", receipt.resource_id, 1)
    alice = receipt.resource_id
    bad = [store.acked("s1", alice, 1, user="node-w1"), store.acked("s1", alice, 1, user=""),
           store.acked("s1", alice, 1, user="relay"), store.acked("ghost", alice, 1),
           store.letter("s1", {"form": "ack", "node": "w1"}), store.letter("s1", {"form": "conquer"}),
           store.letter("s1", {"form": "hello", "hello": "h", "epoch": 1, "incarnation": 0, "digest": "x"}),
           store.acked("s1", alice, 1, at=1e300), store.acked("s1", alice, 1, noun="n" * 99),
           store.acked("s1", alice, 1, reason="a\0b"), store.acked("s1", alice, 1, name="\ud800"),
           store.beat("s1", blocked={"a": {"b": [1]}})]  # fmt: skip
    given_back = store.say(*bad[:6], good, *bad[6:])
    assert sorted(map(id, given_back)) == sorted(map(id, bad))
    assert on(store, receipt.resource_id, "s1")[1] == 1
    refused = events(store, kind="bus.refuse")
    assert len(refused) == len(bad) and {e["actor"] for e in refused} >= {"node-w1", "nobody", "relay", "node-ghost"}


def test_one_node_cannot_speak_for_another_nor_open_what_is_not_open(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    store.ack("w1", receipt.resource_id, 1)
    assert store.placements(receipt.resource_id).keys() == {"s1"} and store.job(receipt.job_id)["applied"] == 0


def test_much_talk_is_cut(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    store.ack("s1", receipt.resource_id, 1, "failed", reason="x" * 50_000, difference={"site": "y" * 50_000})
    row = store.placements(receipt.resource_id)["s1"]
    assert len(row.reason) == wire.MAX_TEXT and len(row.difference) < 1000
    assert len(str(events(store, kind="acknowledgement", outcome="failed"))) < 5000


# ---- jobs and stages


def test_only_targets_are_counted_and_once(store: Store) -> None:
    """A job of one stage's nodes; another node acknowledges its generation."""
    first = store.onehost.account_create("alice")
    store.onehost.account_delete("alice")  # only s1 had it opened
    store.ack("s1", first.resource_id, 2)
    store.ack("w1", first.resource_id, 2)
    assert store.onehost.jobs(kind="account.delete")[0]["applied"] == 1


def test_a_generation_no_newer_job_owns_gives_its_outcome_to_the_job(store: Store) -> None:
    """Restored store: the relay's answer raised it above what the node had; the raise fails; it was no wish."""
    receipt = store.onehost.account_create("alice")
    with writing(store.engine) as connection:
        resync._raise_above(connection, store.id("node", "s1"), receipt.resource_id, 6, now())
    assert on(store, receipt.resource_id, "s1") == (7, 0, 0, 0)
    store.ack("s1", receipt.resource_id, 7, "failed", reason="no")
    assert store.targets(receipt.job_id) == {"s1": "failed", "w1": "halted", "w2": "halted"}
    assert store.job(receipt.job_id)["state"] == "halted"


def test_never_raised_above_before_its_stage_is_open(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    with writing(store.engine) as connection:
        connection.execute(Placement.__table__.insert().values(
            resource_id=receipt.resource_id, node_id=store.id("node", "w1"), wanted=0))  # fmt: skip
        resync._raise_above(connection, store.id("node", "s1"), receipt.resource_id, 6, now())
    assert on(store, receipt.resource_id, "w1")[0] == 0


def test_a_newer_generation_counts_older_jobs_as_superseded(store: Store) -> None:
    first = store.onehost.account_create("alice")
    store.ack_all(first)
    jobs = [store.onehost.account_set("alice", document_root="web", php=bool(n % 2)) for n in range(1, 5)]
    jobs = [job for job in jobs if job.job_id]
    for node in ("s1", "w1", "w2"):
        store.ack(node, first.resource_id, jobs[-1].generation)
    assert [store.job(job.job_id)["state"] for job in jobs] == ["superseded"] * (len(jobs) - 1) + ["applied"]


# ---- numbers and hello


def hello(store: Store, node: str, **more: Any) -> None:
    body = {"form": "hello", "hello": "h1", "epoch": EPOCH, "incarnation": 0, "digest": Digest().text(),
            "highest": {}, **more}  # fmt: skip
    assert store.say(store.letter(node, body)) == []
    with writing(store.engine) as connection:
        for row in connection.execute(select(Hello).order_by(Hello.id)).all():
            resync.answer(connection, row.node_id, wire.decode(row.body), now())
        connection.execute(Hello.__table__.delete())


def answers(store: Store) -> list[wire.Letter]:
    """Takes what the relay would send."""
    with writing(store.engine) as connection:
        rows = connection.execute(select(Action).order_by(Action.id)).all()
        connection.execute(Action.__table__.delete())
    return [wire.decode(row.body) for row in rows]


def floor(store: Store, node: str) -> tuple[int | None, int]:
    with reading(store.engine) as connection:
        row = connection.execute(
            select(NodeStatus.epoch, NodeStatus.acked).join(Resource, Resource.id == NodeStatus.node_id)
            .where(Resource.name == node)).one()  # fmt: skip
    return row.epoch, row.acked


def test_of_many_hellos_of_a_node_only_the_newest_is_answered(store: Store) -> None:
    """A node that waits too long asks anew, and passes over answers to what it asked before."""
    begins = {"epoch": EPOCH, "incarnation": 0, "form": "hello", "last": 0, "digest": Digest().text(), "highest": {}}
    for name in ("one", "two", "three"):
        assert store.say(*(store.letter(node, begins | {"hello": name}) for node in ("w1", "w2"))) == []
    answers(store)
    Relay(store.engine, Publisher(store.onehost.settings.broker, "nowhere"), fitted_at=float("inf"))._answer_hellos()
    said = sorted((letter.form, letter.node, letter["hello"]) for letter in answers(store))
    assert said == [("welcome", "w1", "three"), ("welcome", "w2", "three")]
    with reading(store.engine) as connection:
        assert connection.execute(select(Hello.id)).all() == []


def test_numbers_without_a_gap_may_be_forgotten(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    assert floor(store, "s1") == (EPOCH, 1)
    store.ack("s1", receipt.resource_id, 1, number=4)
    store.ack("s1", receipt.resource_id, 1, number=3)
    assert floor(store, "s1") == (EPOCH, 1)
    store.ack("s1", receipt.resource_id, 1, number=2)
    assert floor(store, "s1") == (EPOCH, 4)


def test_hello_asks_for_what_is_held_and_closes_what_nobody_has(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    store.ack("s1", receipt.resource_id, 1, number=6)
    hello(store, "s1", held=[[EPOCH, 3, 4], [EPOCH, 6, 6]], last=6)
    (welcome,) = [letter for letter in answers(store) if letter.form == "welcome"]
    assert welcome["lacking"] == [[EPOCH, 3], [EPOCH, 4]] and welcome["kept"] == [[EPOCH, 2]]
    assert sorted(e["number"] for e in events(store, kind="acknowledgement.lost")) == [2, 5]
    store.ack("s1", receipt.resource_id, 1, number=3)
    store.ack("s1", receipt.resource_id, 1, number=4)
    assert floor(store, "s1") == (EPOCH, 6)


def test_what_is_kept_of_earlier_lives_may_be_forgotten_too(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    store.ack("s1", receipt.resource_id, 1, epoch=5, number=8)
    hello(store, "s1", held=[[5, 8, 8], [6, 2, 2]], last=1)
    (welcome,) = [letter for letter in answers(store) if letter.form == "welcome"]
    assert welcome["kept"] == [[5, 8], [6, 1]] and welcome["lacking"] == [[6, 2]]


def test_a_liar_costs_little(store: Store) -> None:
    hello(store, "w1", held=[[n, 1, (1 << 63) - 1] for n in range(1, 2000)] + [[3, 9, 2]], last=(1 << 63) - 1)
    (welcome,) = [letter for letter in answers(store) if letter.form == "welcome"]
    assert len(welcome["lacking"]) == 1000
    assert len(events(store, kind="acknowledgement.lost")) <= 1000


def test_what_a_node_lacks_is_sent_again_and_only_that(store: Store) -> None:
    alice, bob = store.onehost.account_create("alice"), store.onehost.account_create("bob")
    store.ack_all(alice)
    store.ack("s1", bob.resource_id, 1)
    with writing(store.engine) as connection:
        connection.execute(update(Placement).values(sent=Placement.wanted))
    assert store.letters() == []
    node = store.id("node", "w1")
    buckets = [alice.resource_id, bob.resource_id, node]
    rows = [[alice.resource_id, 1, 1], [node, 1, 1]]
    hello(store, "w1", buckets=buckets, digest="", rows=rows)
    (cover,) = answers(store)
    assert sorted(cover["wanted"]) == sorted([[alice.resource_id, 1], [bob.resource_id, 1], [node, 1]])
    assert (cover["again"], cover["orphans"]) == ([], [])
    assert [(letter.node, letter["id"]) for letter in store.letters()] == [("w1", bob.resource_id)]


def test_another_outcome_at_equal_generation_is_asked_for_and_orphans_are_named(store: Store) -> None:
    alice = store.onehost.account_create("alice")
    store.ack_all(alice)
    hello(store, "w1", buckets=[alice.resource_id, 200], digest="", rows=[[alice.resource_id, 1, 2], [200, 5, 1]])
    (cover,) = answers(store)
    assert (cover["again"], cover["orphans"]) == ([alice.resource_id], [200])
    assert store.letters() == [letter for letter in store.letters() if letter["id"] == alice.resource_id]
    assert events(store, kind="node.orphans")[0]["detail"] == {"ids": [200], "count": 1}


def test_a_node_beyond_a_restored_store_gets_a_generation_above(store: Store) -> None:
    alice = store.onehost.account_create("alice", domain="example.com")
    store.ack_all(alice)
    hello(store, "w1", buckets=[alice.resource_id], digest="", rows=[[alice.resource_id, 9, 1]])
    (cover,) = answers(store)
    assert cover["wanted"] == [[alice.resource_id, 10]]
    assert {(letter.node, letter["generation"], letter["payload"]["domain"]) for letter in store.letters()} == {
        ("s1", 10, "example.com"), ("w1", 10, "example.com"), ("w2", 10, "example.com"),
    }  # fmt: skip


def test_a_store_brought_back_from_a_backup_gives_out_numbers_of_its_own(store: Store) -> None:
    alice = store.onehost.account_create("alice")
    with writing(store.engine) as connection:
        from onehost.models.store import Counter

        connection.execute(Counter.__table__.insert().values(name="incarnation", value=3))
        connection.execute(update(NodeStatus).values(reported=3))
    changed, bob = store.onehost.account_set("alice", php=False), store.onehost.account_create("bob")
    assert (changed.resource_id, changed.generation) == (alice.resource_id, (3 << 32) + 1)
    assert (bob.resource_id, bob.generation) == ((3 << 32) + 1, (3 << 32) + 1)


def test_every_acknowledgement_is_an_event_of_its_node(store: Store) -> None:
    receipt = store.onehost.account_create("alice")
    store.ack("s1", receipt.resource_id, 1, difference={"home": "made"}, seconds={"files": 0.5})
    (event,) = events(store, kind="acknowledgement", node="s1", outcome="applied")[:1]
    assert (event["actor"], event["resource_id"], event["epoch"]) == ("node-s1", receipt.resource_id, EPOCH)
    assert event["detail"]["difference"] == {"home": "made"}
    with reading(store.engine) as connection:
        assert connection.execute(select(Event.node_id).where(Event.id == event["id"])).scalar() == store.id(
            "node", "s1"
        )
