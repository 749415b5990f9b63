"""The publisher against a real broker and its faults: every letter is accounted for, and nothing hangs."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from onehost.broker_config import routing
from onehost.broker_config.apply import synchronise
from onehost.broker_config.bootstrap import bootstrap
from onehost.broker_config.connections import pika_parameters
from onehost.broker_config.credentials import password_hash, secret
from onehost.broker_config.management import Management
from onehost.broker_config.publisher import Letter, Publisher, Report
from onehost.models.settings import Broker, Manager

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def settings(rabbitmq: Any, tmp_path_factory: pytest.TempPathFactory) -> Manager:
    made: Manager = rabbitmq.settings(tmp_path_factory.mktemp("publisher"))
    bootstrap(made, rabbitmq.ctl)
    synchronise(made, {node: password_hash(secret(made.secrets / f"node-{node}")) for node in ("web1", "web2")})
    return made


@pytest.fixture
def management(settings: Manager) -> Iterator[Management]:
    api = Management(settings.management, "topology", secret(settings.secrets / "topology"))
    yield api
    for node in ("web1", "web2"):
        api.delete("queues", "onehost", f"onehost.node.{node}", "contents")


@pytest.fixture
def publisher(settings: Manager, management: Management) -> Iterator[Publisher]:
    made = Publisher(settings.as_user("relay"), routing.JOBS, confirm_timeout_seconds=2)
    yield made
    made.close()


def letters(count: int, *nodes: str, body: bytes = b"{}") -> list[Letter]:
    return [
        Letter(f"m{i}", routing.job_key("account", nodes[i % len(nodes)], "apply"), body, f"job{i}", "account.apply")
        for i in range(count)
    ]


def settled(report: Report) -> set[str]:
    return {*report.sent, *report.unroutable, *report.nacked}


def test_all_are_sent_with_every_property(settings: Manager, publisher: Publisher) -> None:
    import pika

    given = [dataclasses.replace(letters(1, "web1")[0], headers={"traceparent": "00-1"}, expiration_ms=60000)]
    assert publisher.send(given) == Report(sent=["m0"])
    with pika.BlockingConnection(pika_parameters(node(settings))) as connection:
        channel = connection.channel()
        arrived: list[Any] = []
        channel.basic_consume("onehost.node.web1", lambda *what: arrived.append(what[1:]))
        connection.process_data_events(time_limit=5)
        channel.basic_ack(arrived[0][0].delivery_tag)
    method, properties, body = arrived[0]
    assert (method.routing_key, body) == ("account.web1.apply", b"{}")
    assert (properties.delivery_mode, properties.content_type) == (2, "application/json")
    assert (properties.message_id, properties.correlation_id) == ("m0", "job0")
    assert (properties.type, properties.user_id) == ("account.apply", "relay")
    assert (properties.headers, properties.expiration) == ({"traceparent": "00-1"}, "60000")
    assert abs(properties.timestamp - time.time()) < 60


def test_what_no_queue_takes_is_named_and_the_rest_is_sent(publisher: Publisher) -> None:
    report = publisher.send(letters(1000, "web1", "nowhere"))
    assert report.sent == [f"m{i}" for i in range(0, 1000, 2)]
    assert set(report.unroutable) == {f"m{i}" for i in range(1, 1000, 2)}
    assert set(report.unroutable.values()) == {"312 NO_ROUTE"}
    assert (report.nacked, report.why) == ([], "")


def test_what_a_full_queue_refuses_is_named_and_the_rest_is_sent(management: Management, publisher: Publisher) -> None:
    tiny = {"max-length": 2, "overflow": "reject-publish"}
    policy = {"pattern": r"^onehost\.node\.web2$", "definition": tiny, "priority": 99, "apply-to": "queues"}
    management.put("policies", "onehost", "tiny", body=policy)
    try:
        deadline = time.monotonic() + 10
        while not (report := publisher.send(letters(400, "web1", "web2"))).nacked and time.monotonic() < deadline:
            pass
        assert report.nacked
        assert set(report.nacked) <= {f"m{i}" for i in range(1, 400, 2)}
        assert settled(report) == {f"m{i}" for i in range(400)}
        assert report.why == ""
    finally:
        management.delete("policies", "onehost", "tiny")


def test_a_connection_closed_by_the_broker_costs_nothing_but_a_second_sending(
    management: Management, publisher: Publisher
) -> None:
    assert publisher.send(letters(1, "web1")).why == ""
    closer = threading.Timer(0.05, lambda: management.delete("connections", "username", "relay"))
    closer.start()
    waiting = letters(20000, "web1")
    report = publisher.send(waiting)
    closer.join()
    assert "CONNECTION_FORCED" in report.why
    assert report.code == 320
    rest = [letter for letter in waiting if letter.message_id not in settled(report)]
    assert rest
    again = publisher.send(rest[:10])
    assert (len(again.sent), again.why) == (10, "")


def test_a_frozen_broker_ends_the_wait_and_later_all_is_sent(rabbitmq: Any, publisher: Publisher) -> None:
    assert publisher.send(letters(1, "web1")).why == ""
    rabbitmq.freeze()
    try:
        started = time.monotonic()
        report = publisher.send(letters(100, "web1"))
        assert time.monotonic() - started < 4
        assert report == Report(why="no confirmation for 2 s")
        started = time.monotonic()
        assert publisher.send(letters(100, "web1")).why
        publisher.close()
        assert time.monotonic() - started < 12
    finally:
        rabbitmq.thaw()
    assert len(publisher.send(letters(100, "web1")).sent) == 100


def test_a_stop_ends_a_sending_soon(rabbitmq: Any, settings: Manager) -> None:
    stop = threading.Event()
    made = Publisher(settings.as_user("relay"), routing.JOBS, confirm_timeout_seconds=60, stop=stop)
    assert made.send(letters(1, "web1")).why == ""
    rabbitmq.freeze()
    try:
        threading.Timer(0.2, stop.set).start()
        started = time.monotonic()
        assert made.send(letters(10, "web1")).why
        made.close()
        assert time.monotonic() - started < 4.5
    finally:
        rabbitmq.thaw()
    assert made.send(letters(1, "web1")).why == "stopping"


def test_an_alarm_ends_the_wait_and_closing_does_not_hang(rabbitmq: Any, publisher: Publisher) -> None:
    assert publisher.send(letters(1, "web1")).why == ""
    rabbitmq.ctl(["set_vm_memory_high_watermark", "0.00001"])
    try:
        reports = [publisher.send(letters(50, "web1")) for _ in range(2)]
        assert {report.why for report in reports} == {"blocked by a broker alarm"}
        started = time.monotonic()
        publisher.close()
        assert time.monotonic() - started < 2
    finally:
        rabbitmq.ctl(["set_vm_memory_high_watermark", "0.4"])
    assert len(publisher.send(letters(50, "web1")).sent) == 50


def test_a_missing_exchange_and_a_forbidden_key_say_their_code(settings: Manager) -> None:
    missing = Publisher(settings.as_user("topology"), "onehost.missing")
    report = missing.send(letters(10, "web1"))
    assert (report.code, settled(report)) == (404, set())
    assert "no exchange 'onehost.missing'" in report.why
    forbidden = Publisher(node(settings), routing.EVENTS)
    report = forbidden.send([Letter("m1", "ack.web2.account", b"{}")])
    assert (report.code, settled(report)) == (403, set())
    assert forbidden.send([Letter("m2", "ack.web1.account", b"{}")]) == Report(sent=["m2"])
    forbidden.close()
    missing.close()


def test_a_refused_login_a_missing_secret_and_a_dead_address_are_reasons(settings: Manager, tmp_path: Any) -> None:
    wrong = tmp_path / "wrong"
    secret(wrong)
    relay = settings.as_user("relay")
    faults = {
        "AccessRefused": dataclasses.replace(relay, password_file=wrong),
        "secret file": dataclasses.replace(relay, password_file=tmp_path / "missing"),
        "ConnectionRefusedError": dataclasses.replace(relay, port=1),
        "gaierror": dataclasses.replace(relay, host="no-such-host.invalid"),
    }
    for why, broker in faults.items():
        report = Publisher(broker, routing.JOBS).send(letters(1, "web1"))
        assert report.why.startswith(why)
        assert settled(report) == set()


def test_an_idle_publisher_that_ticks_keeps_its_connection(publisher: Publisher) -> None:
    publisher.send(letters(1, "web1"))
    for _ in range(3):
        assert publisher.tick() == ""
        time.sleep(0.1)
    assert publisher.send(letters(1, "web1")).why == ""


def test_a_tick_finds_a_lost_connection(management: Management, publisher: Publisher) -> None:
    publisher.send(letters(1, "web1"))
    management.delete("connections", "username", "relay")
    until = time.monotonic() + 5
    while not (why := publisher.tick()) and time.monotonic() < until:
        pass
    assert "CONNECTION_FORCED" in why
    assert publisher.tick() == ""


def test_a_killed_broker_is_survived(rabbitmq: Any, publisher: Publisher) -> None:
    assert publisher.send(letters(1, "web1")).why == ""
    killer = threading.Timer(0.1, lambda: rabbitmq.stop(signal.SIGKILL))
    killer.start()
    report = publisher.send(letters(50000, "web1"))
    killer.join()
    assert report.why
    assert publisher.send(letters(1, "web1")).why.startswith("ConnectionRefusedError")
    rabbitmq.start()
    deadline = time.monotonic() + 30
    while (again := publisher.send(letters(10, "web1"))).why and time.monotonic() < deadline:
        time.sleep(0.5)
    assert len(again.sent) == 10


def test_ten_thousand_are_sent_in_seconds(publisher: Publisher) -> None:
    started = time.monotonic()
    report = publisher.send(letters(10000, "web1", "web2", body=b"x" * 1000))
    assert len(report.sent) == 10000
    assert time.monotonic() - started < 20
    print(f"{10000 / (time.monotonic() - started):.0f} confirmed a second")


def node(settings: Manager) -> Broker:
    return settings.as_user("node-web1")
