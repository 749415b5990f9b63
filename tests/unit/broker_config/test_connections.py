"""Connections are bounded everywhere, and cheap commands do not pay for the libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from onehost.broker_config.connections import kombu_connection, pika_parameters
from onehost.models.errors import NotFound
from onehost.models.settings import Broker


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    path = tmp_path / "relay"
    path.write_text("p:a@ss/word\n")
    path.chmod(0o600)
    return Broker(host="10.0.0.1", port=5673, user="relay", password_file=path)


def test_a_consumer_is_bounded_and_named(broker: Broker) -> None:
    parameters = pika_parameters(broker, "audit")
    assert (parameters.host, parameters.port, parameters.virtual_host) == ("10.0.0.1", 5673, "onehost")
    assert (parameters.heartbeat, parameters.blocked_connection_timeout, parameters.connection_attempts) == (5, 20, 1)
    assert (parameters.socket_timeout, parameters.stack_timeout) == (5, 10)
    assert parameters.credentials.password == "p:a@ss/word"
    assert parameters.client_properties["connection_name"].startswith("relay audit ")


def test_a_publisher_is_bounded_and_named(broker: Broker) -> None:
    connection = kombu_connection(broker, io_timeout_seconds=7)
    assert (connection.hostname, connection.port, connection.virtual_host) == ("10.0.0.1", 5673, "onehost")
    assert (connection.userid, connection.password, connection.heartbeat) == ("relay", "p:a@ss/word", 10)
    options = connection.transport_options
    assert (options["read_timeout"], options["write_timeout"], connection.connect_timeout) == (7, 7, 5)
    assert options["client_properties"]["connection_name"].startswith("relay publish ")


def test_a_missing_password_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="missing"):
        pika_parameters(Broker(user="relay", password_file=tmp_path / "missing"))


def test_nothing_is_imported_before_it_is_needed() -> None:
    ours = "import onehost.broker_config.publisher, onehost.broker_config.apply, sys"
    code = f"{ours}; print({{*sys.modules}} & {{'pika', 'kombu', 'amqp'}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
