"""Queues without a leader: told from those that have one, and made anew."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onehost.broker_config import routing
from onehost.broker_config.apply import check, synchronise
from onehost.broker_config.bootstrap import bootstrap
from onehost.broker_config.credentials import NO_PASSWORD, secret
from onehost.broker_config.leaders import leaderless
from onehost.broker_config.management import Management
from onehost.broker_config.publisher import Letter, Publisher
from onehost.models.errors import Unreachable
from onehost.models.settings import Broker, Manager
from onehost.producer import EventFilter

from ..services.leaderless import lose_leaders
from ..services.rabbitmq import RabbitMQ
from .conftest import running, wait_until

pytestmark = pytest.mark.broker

QUEUE = routing.node_queue("web1")
QUEUES = [QUEUE, routing.AUDIT_QUEUE, routing.BEAT_QUEUE, routing.DEAD_QUEUE]


@pytest.fixture
def settings(rabbitmq: RabbitMQ, tmp_path: Path) -> Iterator[Manager]:
    """A manager whose broker has one node's queue, and nobody who reads."""
    made = rabbitmq.settings(tmp_path)
    bootstrap(made, rabbitmq.ctl)
    api(made).delete("vhosts", routing.VHOST)
    synchronise(made, hashes(made))
    yield made
    synchronise(made, hashes(made))


def hashes(settings: Manager) -> dict[str, str]:
    return {"web1": NO_PASSWORD}


def api(settings: Manager) -> Management:
    return Management(settings.management, "topology", secret(settings.secrets / "topology"))


def topology(settings: Manager) -> Broker:
    return replace(settings.as_user("topology"), vhost=routing.VHOST)


def publish(settings: Manager) -> list[str]:
    """The ids of what came through to a node."""
    publisher = Publisher(settings.as_user("relay"), routing.JOBS, confirm_timeout_seconds=2.0)
    try:
        return publisher.send([Letter("1", routing.job_key("account", "web1", "create"), b"{}")]).sent
    finally:
        publisher.close()


def test_queues_without_a_leader_are_found_and_made_anew(rabbitmq: RabbitMQ, settings: Manager) -> None:
    lost = [QUEUE, routing.DEAD_QUEUE]
    lose_leaders(rabbitmq, *lost)
    assert sorted(leaderless(topology(settings), QUEUES)) == sorted(lost)
    assert publish(settings) == []
    steps = list(map(str, check(settings, hashes(settings))))
    assert {step for step in steps if "queue" in step} == {f"change queue {queue}: it has no leader" for queue in lost}
    synchronise(settings, hashes(settings))
    assert leaderless(topology(settings), QUEUES) == []
    assert check(settings, hashes(settings)) == []
    assert publish(settings) == ["1"]


def test_queues_that_answer_keep_what_they_hold(rabbitmq: RabbitMQ, settings: Manager) -> None:
    api(settings).post("bindings", routing.VHOST, "e", routing.JOBS, "q", routing.DEAD_QUEUE, body={"routing_key": "#"})
    assert publish(settings) == ["1"]
    assert leaderless(topology(settings), QUEUES) == []
    wait_until(lambda: [ready(settings, queue) for queue in (QUEUE, routing.DEAD_QUEUE)] == [1, 1])


def ready(settings: Manager, queue: str) -> Any:
    return api(settings).get("queues", routing.VHOST, queue).get("messages_ready")


def test_a_broker_that_stands_still_has_not_lost_its_queues(rabbitmq: RabbitMQ, settings: Manager) -> None:
    rabbitmq.freeze()
    thaw = threading.Timer(3.0, rabbitmq.thaw)
    thaw.start()
    try:
        assert leaderless(topology(settings), QUEUES) == []
    except Unreachable:
        pass  # it was said that nothing is known
    finally:
        thaw.join()


def test_a_cluster_whose_queues_lost_their_leaders_goes_on(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    with running(rabbitmq, f"sqlite:///{tmp_path}/store.db", tmp_path) as cluster:
        cluster.onehost.wait(cluster.onehost.account_create("alice"))
        lose_leaders(rabbitmq, QUEUE, routing.AUDIT_QUEUE)
        receipt = cluster.onehost.account_set("alice", php=False)
        wait_until(lambda: cluster.onehost.job(receipt.job_id)["state"] == "applied", 40)
        repairs = str(list(cluster.onehost.events(EventFilter(kind="broker.repair"))))
        assert f"change queue {QUEUE}: it has no leader" in repairs
        assert f"change queue {routing.AUDIT_QUEUE}: it has no leader" in repairs
