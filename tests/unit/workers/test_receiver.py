"""What comes out of the node's queue: obeyed only from the manager, for this node, in one commit a batch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from onehost.broker_config.consumer import Delivery
from onehost.models import wire
from onehost.models.settings import Broker
from onehost.workers.ledger import Ledger
from onehost.workers.outgoing import Result
from onehost.workers.receiver import Receiver
from onehost.workers.sync import Sync

from .conftest import letter


class Node:
    def __init__(self, ledger: Ledger) -> None:
        self.news: list[int] = []
        self.sync = Sync(ledger, 1000.0, lambda: None)
        self.questions: list[wire.Letter] = []
        self.receiver = Receiver(Broker(), "web1", ledger, self.sync, lambda: self.news.append(1),
                                 self.questions.append, print)  # fmt: skip


@pytest.fixture
def node(ledger: Ledger) -> Node:
    return Node(ledger)


def delivery(body: bytes | wire.Letter, user: str = "relay", **more: Any) -> Delivery:
    data = body if isinstance(body, bytes) else json.dumps({**body.body, **more}).encode()
    return Delivery("onehost.node.web1", "account.web1.apply", user, "m", data, False)


def test_a_batch_is_stored_and_what_is_no_letter_is_given_back(node: Node, ledger: Ledger) -> None:
    bad = [delivery(b"\xff"), delivery(letter(1), user=""), delivery(letter(2), user="node-web2"),
           delivery(letter(3), node="web2"), delivery(letter(4), generation="x"), delivery(b"[" * 100_000)]  # fmt: skip
    good = [delivery(letter(7)), delivery(letter(8)), delivery(letter(7))]
    assert node.receiver.store([bad[0], good[0], *bad[1:4], good[1], *bad[4:], good[2]]) == bad
    assert [entry.id for entry in ledger.take()] == [7, 8] and node.news == [1]


def test_nothing_new_wakes_nobody(node: Node) -> None:
    node.receiver.store([delivery(letter(1))])
    node.receiver.store([delivery(letter(1)), delivery(letter(1, 0))])
    assert node.news == [1]


def test_a_letter_carries_what_the_manager_has(node: Node, ledger: Ledger) -> None:
    node.receiver.store([delivery(letter(1)), delivery(letter(2))])
    ledger.finish([Result(entry, "applied") for entry in ledger.take()])
    node.receiver.store([delivery(letter(3), have=[ledger.outgoing.epoch, 1])])
    assert ledger.outgoing.held() == [[ledger.outgoing.epoch, 2, 2]]


def test_letters_of_the_hello_exchange_reach_it(node: Node) -> None:
    node.receiver.store([delivery(wire.encode(form="hail", node="web1"))])
    (said,) = node.sync.to_say()
    node.receiver.store([delivery(wire.encode(form="welcome", node="web1", hello=said["hello"], incarnation=0,
                                              differing=[], have=[0, 0], is_paused=False))])  # fmt: skip
    assert node.sync.synced.is_set()


def test_a_question_is_passed_on_and_only_from_those_who_may_ask(node: Node, ledger: Ledger) -> None:
    body = wire.encode(form="question", node="web1", question="q", asker="a1", id=1, noun="account", name="alice",
                       generation=1, payload={})  # fmt: skip
    forged = [delivery(body), delivery(letter(1), user="ask")]
    assert node.receiver.store([delivery(body, user="ask"), *forged]) == forged
    assert [question["asker"] for question in node.questions] == ["a1"] and ledger.take() == []
