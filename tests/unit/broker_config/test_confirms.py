"""The book of letters in flight: each is settled once, under the right heading."""

from __future__ import annotations

import random

from onehost.broker_config.confirms import Confirms


def registered(*message_ids: str) -> Confirms:
    confirms = Confirms()
    for message_id in message_ids:
        confirms.register(message_id)
    return confirms


def test_multiple_settles_all_up_to_the_tag() -> None:
    confirms = registered("a", "b", "c", "d")
    confirms.settle(3, multiple=True, accepted=True)
    assert (confirms.report().sent, len(confirms)) == (["a", "b", "c"], 1)


def test_single_settles_out_of_order() -> None:
    confirms = registered("a", "b", "c")
    confirms.settle(2, multiple=False, accepted=True)
    confirms.settle(3, multiple=True, accepted=False)
    report = confirms.report()
    assert (report.sent, report.nacked, len(confirms)) == (["b"], ["a", "c"], 0)


def test_a_return_before_its_ack_means_unroutable() -> None:
    confirms = registered("a", "b")
    confirms.returned("a", "312 NO_ROUTE")
    confirms.settle(2, multiple=True, accepted=True)
    report = confirms.report()
    assert (report.sent, report.unroutable) == (["b"], {"a": "312 NO_ROUTE"})


def test_an_unknown_or_repeated_tag_changes_nothing() -> None:
    confirms = registered("a")
    confirms.settle(1, multiple=False, accepted=True)
    confirms.settle(1, multiple=False, accepted=False)
    confirms.settle(9, multiple=False, accepted=True)
    report = confirms.report()
    assert (report.sent, report.nacked) == (["a"], [])


def test_a_report_speaks_once_and_tags_go_on() -> None:
    confirms = registered("a")
    confirms.settle(1, multiple=False, accepted=True)
    assert confirms.report().sent == ["a"]
    confirms.register("b")
    confirms.settle(2, multiple=False, accepted=True)
    assert confirms.report().sent == ["b"]
    assert confirms.settlements == 2


def test_any_order_of_settling_accounts_for_every_letter() -> None:
    dice = random.Random(7)
    names = [f"m{i}" for i in range(500)]
    confirms = registered(*names)
    tags = list(range(1, 501))
    dice.shuffle(tags)
    for tag in tags:
        confirms.settle(tag, multiple=dice.random() < 0.01, accepted=dice.random() < 0.9)
    report = confirms.report()
    assert sorted(report.sent + report.nacked) == sorted(names)
    assert len(confirms) == 0
