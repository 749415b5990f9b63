"""Three private brokers that are one cluster."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from onehost.models.settings import Manager

from .installation import installation
from .process import free_ports
from .rabbitmq import RabbitMQ, new_folder


@dataclass(frozen=True)
class RabbitMQCluster:
    """Looks like one broker where it matters: `settings` know the first member and the others as its fallbacks."""

    members: list[RabbitMQ]

    def settings(self, folder: Path) -> Manager:
        """Settings of a manager that knows every member."""
        first, *others = self.members
        made = first.settings(folder)
        fallbacks = tuple(f"127.0.0.1:{other.port}" for other in others)
        return replace(made, broker=replace(made.broker, fallbacks=fallbacks))

    def ctl(self, arguments: Sequence[str], stdin: bytes = b"") -> str:
        """What `rabbitmqctl` does and says."""
        return self.members[0].ctl(arguments, stdin)

    def member(self, node: str) -> RabbitMQ:
        """The member that calls itself so."""
        return next(member for member in self.members if member.node == node)


@contextmanager
def private_rabbitmq_cluster(size: int = 3) -> Iterator[RabbitMQCluster]:
    """A cluster that runs as long as the block."""
    epmd_port, kind, cookie = free_ports(1)[0], installation(), secrets.token_hex(8)
    members = [
        RabbitMQ(new_folder(), *free_ports(3), epmd_port, kind, cookie=cookie, has_epmd=not number)
        for number in range(size)
    ]
    for member in members:
        member.extra_configuration = [
            "cluster_formation.peer_discovery_backend = classic_config",
            *(f"cluster_formation.classic_config.nodes.{n} = {each.node}" for n, each in enumerate(members, 1)),
            # As docs/operating.md has it.
            "net_ticktime = 10",
            "cluster_partition_handling = autoheal",
        ]
    try:
        for member in members:
            member.launch()
        for member in members:
            member.wait()
        yield RabbitMQCluster(members)
    finally:
        for member in reversed(members):
            member.close()
