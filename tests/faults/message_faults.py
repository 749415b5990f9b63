"""Rows: messages come twice, in any order, long after, or are no messages at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from onehost.broker_config import routing
from onehost.broker_config.connections import pika_parameters
from onehost.broker_config.publisher import Letter, Publisher
from onehost.models.store import reading
from onehost.producer import EventFilter, dead

from .broker_faults import VHOST
from .checks import tree, wait_for_quiet
from .cluster import NODES, Cluster, wait_until
from .row import Row, Trial

SPY = "onehost.spy"


@contextmanager
def _spy(cluster: Cluster) -> Iterator[Any]:
    """A queue that gets a copy of everything sent to nodes."""
    import pika

    with pika.BlockingConnection(pika_parameters(cluster.settings.as_user("topology"), "spy")) as connection:
        channel = connection.channel()
        # Exclusive: what the topology is compared with leaves it alone.
        channel.queue_declare(SPY, exclusive=True)
        channel.queue_bind(SPY, routing.JOBS, "#")
        yield channel


def _heard(channel: Any) -> list[tuple[str, bytes]]:
    heard = []
    while (got := channel.basic_get(SPY, auto_ack=True))[0]:
        heard.append((got[0].routing_key, got[2]))
    return heard


def replayed(trial: Trial) -> None:
    """Everything that was sent comes twice more, shuffled, when all is done: not a byte changes."""
    cluster = trial.cluster
    with _spy(cluster) as spy:
        trial.stream.wait_for(40)
        with trial.stream.paused():
            wait_for_quiet(cluster)
            letters = [(key, body) for key, body in _heard(spy) if json.loads(body)["form"] == "apply"] * 2
            trial.chance.shuffle(letters)
            before = _everything(cluster)
            _publish(cluster, "relay", routing.JOBS, letters)
            wait_until(lambda: _is_drained(cluster), what="the end of the replay")
            wait_for_quiet(cluster)
            assert _everything(cluster) == before, "P3: a replay has changed something"
    trial.notes.append(f"{len(letters)} letters replayed")


def acknowledgements_replayed(trial: Trial) -> None:
    """A node says again everything that it said, shuffled: not an event more, no number moves."""
    cluster = trial.cluster
    with trial.stream.paused():
        wait_for_quiet(cluster)
        acks = []
        for event in cluster.onehost.events(EventFilter(kind="acknowledgement", node="web1"), 200):
            body = {key: event[key] for key in ("epoch", "number", "noun", "name")}
            body |= {"form": "ack", "node": "web1", "id": event["resource_id"], "incarnation": 0, "at": 1.0,
                     "generation": event["detail"]["generation"], "outcome": "failed", "reason": "a lie"}  # fmt: skip
            acks.append((routing.ack_key("web1", event["noun"]), json.dumps(body).encode()))
        trial.chance.shuffle(acks)
        before = _counted(cluster)
        broker = cluster.settings.broker.__class__(
            port=cluster.broker.port, user="node-web1", password_file=cluster.folder / "web1.password"
        )
        publisher = Publisher(broker, routing.EVENTS)
        report = publisher.send([Letter(f"a{n}", key, body) for n, (key, body) in enumerate(acks)])
        publisher.close()
        assert len(report.sent) == len(acks), report
        wait_until(lambda: _is_drained(cluster), what="the end of the replay")
        wait_for_quiet(cluster)
        assert _counted(cluster) == before, "P11: a replay has changed something"
    trial.notes.append(f"{len(acks)} acknowledgements replayed")


def _counted(cluster: Cluster) -> tuple[Any, ...]:
    acks = [event["id"] for event in cluster.onehost.events(EventFilter(kind="acknowledgement"), None)]
    return acks, [job["state"] for job in cluster.onehost.jobs(limit=1000)]


def _everything(cluster: Cluster) -> dict[str, Any]:
    columns = "id, wanted, done, applied, outcome"
    return {
        node: (tree(cluster, node), [tuple(row) for row in cluster.read_ledger(node, f"SELECT {columns} FROM entry")])
        for node in NODES
    }


def _publish(cluster: Cluster, user: str, exchange: str, letters: list[tuple[str, bytes]]) -> None:
    publisher = Publisher(cluster.settings.as_user(user), exchange)
    report = publisher.send([Letter(f"again{n}", key, body) for n, (key, body) in enumerate(letters)])
    publisher.close()
    assert len(report.sent) == len(letters), report


def _publish_raw(cluster: Cluster, letters: list[tuple[str, bytes]]) -> None:
    """As the relay's user, but without the relay's care for what it publishes."""
    import pika

    with pika.BlockingConnection(pika_parameters(cluster.settings.as_user("relay"), "poison")) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for number, (key, body) in enumerate(letters):
            properties = pika.BasicProperties(user_id="relay", message_id=f"poison{number}", delivery_mode=2)
            channel.basic_publish(routing.JOBS, key, body, properties, mandatory=True)


def _is_drained(cluster: Cluster) -> bool:
    words = cluster.broker.ctl(["-q", "list_queues", "-p", VHOST, "name", "messages", "--no-table-headers"])
    depths = dict(line.split() for line in words.splitlines() if len(line.split()) == 2)
    return all(depths.get(name) == "0" for name in (routing.AUDIT_QUEUE, *map(routing.node_queue, NODES)))


def _deep(levels: int) -> bytes:
    return b'{"form":"apply","node":"web1","payload":' + b'{"a":' * levels + b"1" + b"}" * levels + b"}"


def poison(trial: Trial) -> None:
    """What is no letter becomes a dead letter; what is too new fails with a reason; nobody else notices."""
    cluster = trial.cluster
    key = routing.job_key("account", "web1", "apply")
    good = {"form": "apply", "node": "web1", "id": 10**9, "noun": "galaxy", "version": [1, 0], "name": "milky",
            "generation": 1, "incarnation": 0, "payload": {}}  # fmt: skip
    bodies = {
        "no JSON": b"\x00\xffnot json", "empty": b"", "a list": b"[]", "2 MiB": b'{"x":"' + b"x" * (2 << 20) + b'"}',
        "deep": _deep(100_000), "many keys": json.dumps({f"k{n}": n for n in range(20_000)}).encode(),
        "twice a key": b'{"form":"hail","form":"apply","node":"web1"}',
        "a huge number": b'{"form":"apply","node":"web1","id":' + b"9" * 5000 + b"}",
        "another node": json.dumps(good | {"node": "web2"}).encode(),
    }  # fmt: skip
    strange = {
        "unknown noun": good,
        "newer schema": good | {"id": 10**9 + 1, "noun": "account", "name": "future", "version": [99, 0]},
        "unknown field": good | {"id": 10**9 + 2, "noun": "account", "name": "odd", "payload": {"warp": 9}},
    }
    letters = [(key, body) for body in [*bodies.values(), *(json.dumps(each).encode() for each in strange.values())]]
    trial.chance.shuffle(letters)
    before = _dead(cluster)
    _publish_raw(cluster, letters)
    wait_until(lambda: _dead(cluster) >= before + len(bodies), what="the dead letters")
    trial.stream.wait_for(10)
    assert _dead(cluster) == before + len(bodies)
    trial.notes.append(f"{len(bodies)} dead letters")


def _dead(cluster: Cluster) -> int:
    with reading(cluster.onehost.engine) as connection:
        return dead.count(connection, dead.DeadFilter())


ROWS = (
    Row("letters replayed, shuffled", replayed, "P3 P4", version=True),
    Row("acknowledgements replayed, shuffled", acknowledgements_replayed, "P3 P11", "postgresql"),
    Row("poison", poison, "P8"),
)
