"""The consumer on a broker that has lost its channel and not its connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onehost.broker_config import consumer as module
from onehost.broker_config import routing
from onehost.broker_config.apply import synchronise
from onehost.broker_config.bootstrap import bootstrap
from onehost.broker_config.consumer import Consumer, Delivery

from ..services.rabbitmq import RabbitMQ
from .conftest import Process, wait_until

pytestmark = pytest.mark.broker

#: The channels of one user answer nothing any more; heartbeats, which are the connection's, go on.
SUSPEND = """
[sys:suspend(Channel) || Channel <- rabbit_channel:list(),
                         rabbit_channel:info(Channel, [user]) == [{user, <<"audit">>}]].
"""


def test_a_probe_without_an_answer_is_ended_from_outside(
    rabbitmq: RabbitMQ, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: Any = rabbitmq.settings(tmp_path)
    bootstrap(settings, rabbitmq.ctl)
    synchronise(settings, {})
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(module, "PROBE_ANSWER_SECONDS", 1.0)
    states: list[str] = []

    def store(batch: list[Delivery]) -> list[Delivery]:
        return []

    consumer = Consumer(settings.as_user("audit"), [routing.AUDIT_QUEUE], store, on_state=states.append)
    process = Process(consumer.run)
    try:
        wait_until(lambda: "consuming" in states)
        rabbitmq.ctl(["eval", SUSPEND])
        wait_until(lambda: consumer.is_hung(1.5))
        consumer.unstick()
        wait_until(lambda: states.count("consuming") == 2)
        assert not consumer.is_hung(1.5)
    finally:
        process.stop()
