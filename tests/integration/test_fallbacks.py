"""Clients that know several brokers: one that is gone, or that accepts and never answers, costs one try."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from onehost.broker_config import routing
from onehost.broker_config.apply import synchronise
from onehost.broker_config.bootstrap import bootstrap
from onehost.broker_config.consumer import Consumer, Delivery
from onehost.broker_config.publisher import Letter, Publisher
from onehost.models.settings import Broker, Manager

from .conftest import Process, wait_until

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def settings(rabbitmq: Any, tmp_path_factory: pytest.TempPathFactory) -> Manager:
    made: Manager = rabbitmq.settings(tmp_path_factory.mktemp("fallbacks"))
    bootstrap(made, rabbitmq.ctl)
    synchronise(made, {})
    return made


@pytest.fixture(params=["gone", "silent"])
def dead_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port where nobody listens, or where the kernel accepts for a process that is frozen."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if request.param == "silent":
            taken.listen()
        yield taken.getsockname()[1]


def behind(dead_port: int, broker: Broker) -> Broker:
    """The dead one first."""
    return replace(broker, port=dead_port, fallbacks=(f"127.0.0.1:{broker.port}",))


def test_the_publisher_goes_to_the_next_broker(settings: Manager, dead_port: int) -> None:
    publisher = Publisher(behind(dead_port, settings.as_user("relay")), routing.JOBS, confirm_timeout_seconds=2)
    letters = [Letter("m1", "account.nowhere.apply", b"{}")]
    try:
        assert publisher.send(letters).why
        assert set(publisher.send(letters).unroutable) == {"m1"}
    finally:
        publisher.close()


def test_the_consumer_goes_to_the_next_broker(settings: Manager, dead_port: int) -> None:
    states: list[str] = []
    broker = behind(dead_port, settings.as_user("audit"))

    def store(batch: list[Delivery]) -> list[Delivery]:
        return []

    consumer = Consumer(broker, [routing.AUDIT_QUEUE], store, on_state=states.append)
    process = Process(lambda stop: consumer.run(stop))
    try:
        wait_until(lambda: "consuming" in states, 30)
        assert [state.partition(":")[0] for state in states] == ["waiting for the broker", "consuming"]
    finally:
        process.stop()
