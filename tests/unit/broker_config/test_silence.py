"""A consumer that the broker counts, and gives nothing of what waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from onehost.broker_config.consumer import Consumer, Deaf
from onehost.models.settings import Broker


class Channel:
    """What a probe asks; `waiting` messages are in the queue."""

    waiting = 3

    def queue_declare(self, queue: str, passive: bool) -> Any:
        return SimpleNamespace(method=SimpleNamespace(consumer_count=1, message_count=self.waiting))


@pytest.fixture
def consumer() -> Consumer:
    made = Consumer(Broker(), ["a queue"], lambda batch: [])
    made._channel = Channel()
    return made


def test_silence_between_two_probes_with_something_waiting(consumer: Consumer) -> None:
    consumer._probe()
    with pytest.raises(Deaf, match="nothing of what waits in a queue"):
        consumer._probe()


def test_a_queue_that_gives_is_only_slow(consumer: Consumer) -> None:
    for _ in range(3):
        consumer._taker("a queue")(None, SimpleNamespace(routing_key="", delivery_tag=1, redelivered=False),
                                   SimpleNamespace(user_id="", message_id="", headers=None), b"")  # fmt: skip
        consumer._probe()


def test_an_empty_queue_is_only_quiet(consumer: Consumer) -> None:
    consumer._channel.waiting = 0
    for _ in range(3):
        consumer._probe()
