"""Three brokers that are one cluster: what is killed or frozen of it costs time, never a wish.

Each row measures the longest time that a wish took, from submit to its end on all nodes, and prints it.
"""

from __future__ import annotations

import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from onehost.broker_config import apply, routing
from onehost.broker_config.credentials import secret
from onehost.broker_config.management import Management
from onehost.models.errors import NotFound, Refused, Unreachable
from onehost.producer import nodes

from ..integration.agreement import agree, is_settled
from ..integration.conftest import Cluster, running, wait_until
from ..services.rabbitmq import RabbitMQ
from ..services.rabbitmq_cluster import RabbitMQCluster

FROZEN_SECONDS = 20
#: Longest time until all is well again after a fault has ended, in seconds.
RECOVERY_SECONDS = 60
#: Longest time that RabbitMQ is given to take a thawed broker back by itself, in seconds.
AUTOHEAL_SECONDS = 30
#: Between two wishes.
PACE_SECONDS = 0.2


@pytest.fixture(scope="module")
def cluster(rabbitmq_cluster: RabbitMQCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Manager and four nodes at three brokers."""
    folder = tmp_path_factory.mktemp("brokers")
    with running(rabbitmq_cluster, f"sqlite:///{folder}/store.db", folder) as made:
        yield made


def api(cluster: Cluster) -> Management:
    """RabbitMQ's management API at the first broker."""
    settings = cluster.settings
    return Management(settings.management, "topology", secret(settings.secrets / "topology"))


def queues(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Leader and replicas of each queue."""
    found = api(cluster).get("queues", "onehost", query="columns=name,leader,members,online")
    return {queue["name"]: queue for queue in found}


def is_whole(cluster: Cluster, brokers: RabbitMQCluster) -> bool:
    """Every broker sees every other, and every queue has three replicas that are up."""
    names = sorted(member.node for member in brokers.members)
    try:
        found, held = api(cluster).get("nodes", query="columns=name,running,partitions"), queues(cluster)
    except (Unreachable, NotFound):  # it heals: one that was frozen starts anew, its API route by route
        return False
    return all(node["running"] and not node.get("partitions") for node in found) and all(
        sorted(queue.get("online", [])) == names and queue.get("leader") for queue in held.values()
    )


def heals(cluster: Cluster, brokers: RabbitMQCluster) -> None:
    """Waits until the cluster of brokers is whole again; if it is not, shows what the brokers say."""
    try:
        wait_until(lambda: is_whole(cluster, brokers), RECOVERY_SECONDS)
    except AssertionError:
        for member in brokers.members:
            print(f"---- {member.node}", *member.log().splitlines()[-40:], sep="\n")
        raise


@contextmanager
def load(cluster: Cluster, prefix: str, capsys: Any) -> Iterator[list[int]]:
    """Wishes all the time; at the end of the block everything is applied and nothing was lost or done twice."""
    stop, jobs = threading.Event(), list[int]()

    def work() -> None:
        for number in range(100_000):
            if stop.is_set():
                return
            name = f"{prefix}{number // 2}"
            if number % 2:
                receipt = cluster.onehost.account_set(name, document_root="other")
            else:
                receipt = cluster.onehost.account_create(name, domain=f"{name}.example.com")
            jobs.append(receipt.job_id)
            stop.wait(PACE_SECONDS)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        wait_until(lambda: len(jobs) > 10)
        yield jobs
    finally:
        stop.set()
        thread.join(30)
    began = time.monotonic()
    wait_until(lambda: is_settled(cluster), RECOVERY_SECONDS)
    agree(cluster)
    ends = [cluster.onehost.job(job) for job in jobs]
    assert {job["state"] for job in ends} <= {"applied", "superseded"}
    took = sorted((job["ended_at"] - job["submitted_at"]).total_seconds() for job in ends)
    words = f"{len(jobs)} wishes, none lost; longest {took[-1]:.1f} s, median {took[len(took) // 2]:.2f} s"
    with capsys.disabled():
        print(f"\n  {prefix}: {words}, settled {time.monotonic() - began:.1f} s after the last one")


def leader_of(cluster: Cluster, brokers: RabbitMQCluster, node: str) -> RabbitMQ:
    """The broker that leads a node's queue."""
    return brokers.member(queues(cluster)[routing.node_queue(node)]["leader"])


def test_every_queue_has_three_replicas_and_different_leaders(
    cluster: Cluster, rabbitmq_cluster: RabbitMQCluster
) -> None:
    wait_until(lambda: is_whole(cluster, rabbitmq_cluster))
    assert len({queue["leader"] for queue in queues(cluster).values()}) > 1
    assert apply.check(cluster.settings, nodes.hashes(cluster.onehost.engine)) == []


def test_a_queue_that_lacks_a_replica_gets_it(cluster: Cluster, rabbitmq_cluster: RabbitMQCluster) -> None:
    """As one that was made before its broker was joined."""
    first, lacking = rabbitmq_cluster.members[0], queues(cluster)[routing.DEAD_QUEUE]
    gone = next(node for node in lacking["members"] if node != lacking["leader"])
    first.ctl(["delete_member", "-p", "onehost", routing.DEAD_QUEUE, gone], program="rabbitmq-queues")
    hashes = nodes.hashes(cluster.onehost.engine)
    # What 3.10 tells of replicas may be some seconds old.
    lack = [f"create replica onehost.dead on {gone}"]
    wait_until(lambda: [str(step) for step in apply.check(cluster.settings, hashes)] == lack)
    try:
        apply.synchronise(cluster.settings, hashes)
    except Refused as error:
        assert api(cluster).version() < (4, 0)
        # It says what to type.
        program, *words = shlex.split(error.hint.partition(": ")[2])
        first.ctl(words, program=program)
    wait_until(lambda: apply.check(cluster.settings, hashes) == [])
    wait_until(lambda: is_whole(cluster, rabbitmq_cluster))


def test_the_leader_of_a_node_s_queue_is_killed(
    cluster: Cluster, rabbitmq_cluster: RabbitMQCluster, capsys: Any
) -> None:
    with load(cluster, "killed", capsys) as jobs:
        leader = leader_of(cluster, rabbitmq_cluster, "web1")
        leader.stop(signal.SIGKILL)
        # The two that are left go on by themselves.
        goes_on(cluster, jobs)
        leader.start()
    heals(cluster, rabbitmq_cluster)


@pytest.mark.parametrize("who", ["first", "leader"])
def test_one_is_frozen(cluster: Cluster, rabbitmq_cluster: RabbitMQCluster, capsys: Any, who: str) -> None:
    first, *_ = rabbitmq_cluster.members
    with load(cluster, f"froze{who}", capsys) as jobs:
        frozen = first if who == "first" else leader_of(cluster, rabbitmq_cluster, "web1")
        frozen.freeze()
        time.sleep(FROZEN_SECONDS)
        try:
            # Whoever was connected to it has gone to another one: nothing waits for the thaw.
            goes_on(cluster, jobs)
        finally:
            frozen.thaw()
    try:
        wait_until(lambda: is_whole(cluster, rabbitmq_cluster), AUTOHEAL_SECONDS)
    except AssertionError:
        # RabbitMQ's autoheal sometimes leaves a thawed broker parted, on 3.10 and 4.0 alike. onehost goes on at the
        # other two; `onehost status` says parted, and the broker is restarted as docs/operating.md tells.
        with capsys.disabled():
            print("  RabbitMQ left the thawed broker parted: restarted")
        frozen.stop()
        frozen.start()
    heals(cluster, rabbitmq_cluster)


def test_two_of_three_are_killed_and_come_back(
    cluster: Cluster, rabbitmq_cluster: RabbitMQCluster, capsys: Any
) -> None:
    with load(cluster, "two", capsys) as jobs:
        killed = rabbitmq_cluster.members[:2]
        for member in killed:
            member.stop(signal.SIGKILL)
        # Wishes are taken and wait: no queue has a majority of its replicas.
        before = len(jobs)
        wait_until(lambda: len(jobs) > before + 10)
        for member in killed:
            member.launch()
        for member in killed:
            member.wait()
    heals(cluster, rabbitmq_cluster)


def goes_on(cluster: Cluster, jobs: list[int]) -> None:
    """Waits until a wish of now is applied everywhere."""
    newest = len(jobs)
    wait_until(lambda: len(jobs) > newest + 1, RECOVERY_SECONDS)
    job = jobs[newest + 1]
    wait_until(lambda: cluster.onehost.job(job)["ended_at"], RECOVERY_SECONDS)
