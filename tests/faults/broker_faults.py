"""Rows: the broker dies, freezes, forgets, is full, or somebody meddles with it."""

from __future__ import annotations

import signal
import time
from contextlib import suppress

from onehost.broker_config import bootstrap, routing
from onehost.broker_config.credentials import random_password
from onehost.models.errors import OnehostError
from onehost.producer import nodes

from .cluster import NODES, stopped, wait_until
from .row import Row, Trial

VHOST = "onehost"
FROZEN_SECONDS = 20.0


def killed(trial: Trial) -> None:
    broker = trial.cluster.broker
    broker.stop(signal.SIGKILL)
    broker.start()


def restarted(trial: Trial) -> None:
    broker = trial.cluster.broker
    broker.stop()
    trial.stream.wait_for(5)
    broker.start()


def frozen(trial: Trial) -> None:
    broker = trial.cluster.broker
    broker.freeze()
    try:
        time.sleep(FROZEN_SECONDS)
    finally:
        broker.thaw()


def wiped(trial: Trial) -> None:
    """All data gone; it boots with the definitions that `onehost broker apply` has left."""
    broker = trial.cluster.broker
    broker.stop(signal.SIGKILL)
    broker.wipe()
    broker.extra_configuration.append(f"load_definitions = {trial.cluster.settings.definitions}")
    try:
        broker.start()
    finally:
        broker.extra_configuration.pop()


def wiped_bare(trial: Trial) -> None:
    """All data gone and no definitions either: a person says `onehost broker apply`."""
    cluster = trial.cluster
    cluster.broker.stop(signal.SIGKILL)
    cluster.broker.wipe()
    cluster.broker.start()
    trial.stream.wait_for(5)
    bootstrap.bootstrap(cluster.settings, lambda words, stdin: cluster.broker.ctl(words, stdin))
    cluster.synchronise()


def _alarm(trial: Trial, on: list[str], off: list[str]) -> None:
    """Publishers are blocked for a while: what is wanted waits in the store and is not called sent."""
    broker = trial.cluster.broker
    broker.ctl(on)
    try:
        trial.stream.wait_for(20)
        status = trial.cluster.onehost.status()
        trial.notes.append(f"{status['placements_open']} placements waited")
        assert status["placements_open"], "nothing was held back by the alarm"
    finally:
        broker.ctl(off)


def memory_alarm(trial: Trial) -> None:
    _alarm(trial, ["set_vm_memory_high_watermark", "absolute", "1"], ["set_vm_memory_high_watermark", "0.4"])


def disk_alarm(trial: Trial) -> None:
    _alarm(trial, ["set_disk_free_limit", "9000GB"], ["set_disk_free_limit", "50MB"])


def _node(trial: Trial) -> str:
    return trial.chance.choice(list(NODES))


def queue_deleted(trial: Trial) -> None:
    trial.cluster.api().delete("queues", VHOST, routing.node_queue(_node(trial)))
    trial.stream.wait_for(10)


def audit_queue_deleted(trial: Trial) -> None:
    """Nobody publishes to it but nodes: they find their acknowledgements unroutable."""
    trial.cluster.api().delete("queues", VHOST, routing.AUDIT_QUEUE)
    trial.stream.wait_for(10)


def exchange_deleted(trial: Trial) -> None:
    """The next publish is answered by a closed channel: 404."""
    trial.cluster.api().delete("exchanges", VHOST, routing.JOBS)
    trial.stream.wait_for(10)


def queue_purged(trial: Trial) -> None:
    """What was sent and not yet read is gone, and nobody is told: only the digest shows it."""
    node = _node(trial)
    with stopped(trial.cluster.kept[node]):
        _purge(trial, routing.node_queue(node))


def acknowledgements_purged(trial: Trial) -> None:
    with stopped(trial.cluster.kept["audit"]):
        _purge(trial, routing.AUDIT_QUEUE)


def _purge(trial: Trial, queue: str) -> None:
    """As the owner of the queue's virtual host; waits until there is something to lose."""
    wait_until(lambda: _depth(trial, queue) > 2, what=f"messages in {queue}")
    trial.notes.append(f"{_depth(trial, queue)} messages purged")
    trial.cluster.broker.ctl(["purge_queue", "-p", VHOST, queue])


def _depth(trial: Trial, queue: str) -> int:
    words = trial.cluster.broker.ctl(["-q", "list_queues", "-p", VHOST, "name", "messages_ready", "--no-table-headers"])
    rows = dict(line.split() for line in words.splitlines() if len(line.split()) == 2)
    return int(rows.get(queue, 0))


def consumer_cancelled(trial: Trial) -> None:
    """Queues are deleted and made again at once: consumers are told that they are none any more."""
    for node in NODES:
        trial.cluster.api().delete("queues", VHOST, routing.node_queue(node))
    trial.cluster.api().delete("queues", VHOST, routing.AUDIT_QUEUE)
    trial.cluster.synchronise()


def channel_closed(trial: Trial) -> None:
    """A frozen worker sits on its messages for too long: the broker closes its channel."""
    cluster, node = trial.cluster, _node(trial)
    kept, queue = cluster.kept[node], routing.node_queue(node)
    _eval(trial, "application:set_env(rabbit, consumer_timeout, 1000), "
                 "application:set_env(rabbit, channel_tick_interval, 1000).")  # fmt: skip
    try:
        lives = len(kept.ends)
        kept.kill()  # its next connection is under the new rule
        wait_until(lambda: len(kept.ends) > lives and _consumers(trial, queue), what="the worker's return")
        kept.freeze()
        trial.stream.wait_for(8)
        wait_until(lambda: not _consumers(trial, queue), what="the closing of the channel")
    finally:
        _eval(trial, "application:set_env(rabbit, consumer_timeout, 1800000), "
                     "application:set_env(rabbit, channel_tick_interval, 60000).")  # fmt: skip
        kept.thaw()


def _eval(trial: Trial, words: str) -> None:
    trial.cluster.broker.ctl(["eval", words])


def _consumers(trial: Trial, queue: str) -> bool:
    words = trial.cluster.broker.ctl(["-q", "list_consumers", "-p", VHOST, "queue_name", "--no-table-headers"])
    return queue in words.split()


def connections_closed(trial: Trial) -> None:
    """Every connection is closed from outside, three times."""
    api, closed = trial.cluster.api(), 0
    for _ in range(3):
        # What stands is listed with the broker's statistics, some seconds late.
        wait_until(lambda: api.get("connections", query="columns=name"), what="a list of connections")
        for each in api.get("connections", query="columns=name"):
            with suppress(OnehostError):
                api.delete("connections", each["name"])
                closed += 1
        trial.stream.wait_for(5)
    trial.notes.append(f"{closed} connections closed")


def credentials_rotated(trial: Trial) -> None:
    """New passwords for the relay, the audit process and a node; the old connections are closed."""
    cluster, node = trial.cluster, _node(trial)
    for duty in ("relay", "audit"):
        (cluster.settings.secrets / duty).write_text(random_password())
    (cluster.folder / f"{node}.password").write_text(nodes.credentials(cluster.onehost.engine, node))
    cluster.synchronise()
    cluster.broker.ctl(["close_all_connections", "--vhost", VHOST, "rotated"])


ROWS = (
    Row("broker killed and started", killed, "P1 P3", version=True),
    Row("broker restarted on the same data", restarted, "P1 P3", "postgresql", version=True),
    Row("broker frozen for 20 s", frozen, "P7", version=True),
    Row("broker wiped under load", wiped, "P12", "postgresql", version=True),
    Row("broker wiped, then broker apply", wiped_bare, "P12", version=True),
    Row("broker memory alarm", memory_alarm, "P1 P5", version=True),
    Row("broker disk alarm", disk_alarm, "P1 P5", "postgresql", version=True),
    Row("queue of a node deleted", queue_deleted, "P5 P12", version=True),
    Row("audit queue deleted", audit_queue_deleted, "P11 P12", version=True),
    Row("exchange deleted, channel closed", exchange_deleted, "P1 P7", version=True),
    Row("queue of a node purged", queue_purged, "P1 P12", version=True),
    Row("acknowledgements purged", acknowledgements_purged, "P11 P12", "postgresql", version=True),
    Row("consumers cancelled", consumer_cancelled, "P7", version=True),
    Row("channel closed by the broker", channel_closed, "P7", version=True),
    Row("connections closed from outside", connections_closed, "P7", version=True),
    Row("credentials rotated", credentials_rotated, "P7 P10", version=True),
)
