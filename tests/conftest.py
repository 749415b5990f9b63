"""Real services for the tests: a private RabbitMQ and a private PostgreSQL, on ports and in folders of their own.

A service that is not installed skips its tests, loudly; where CI is set it fails them. Nothing is left running.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .services.postgresql import PostgreSQL, private_postgresql
from .services.rabbitmq import RabbitMQ, private_rabbitmq
from .services.rabbitmq_cluster import RabbitMQCluster, private_rabbitmq_cluster


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A running private RabbitMQ with the management plugin; its data is shared by all tests.

    `bootstrap(settings, rabbitmq.ctl)`, then `synchronise`, makes it what a test wants, whoever used it before.
    """
    with private_rabbitmq() as broker:
        yield broker
        assert broker.deprecations() == []


@pytest.fixture(scope="session")
def rabbitmq_cluster() -> Iterator[RabbitMQCluster]:
    """Three running private brokers that are one cluster; a test leaves all of them running."""
    with private_rabbitmq_cluster() as brokers:
        yield brokers


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A running private PostgreSQL cluster; nothing of it needs to survive a power failure."""
    with private_postgresql("fsync=off") as server:
        yield server
