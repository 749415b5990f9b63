"""One row of the fault table, and how it is run: wishes stream, the fault comes and ends, then all must be true."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from onehost.broker_config import routing
from onehost.models.errors import OnehostError

from .checks import CHECKS, Run, wait_for_quiet
from .cluster import NODES, Cluster, wait_until
from .model import Call, Model
from .stream import Stream
from .watch import Watch

#: P7: back at work this soon after the fault's end, in seconds.
BACK_SECONDS = 30.0
#: The account by which it is seen that all are back at work.
MARKER = "marker"
#: Of a machine that has other work: a run may say that all is slower here.
PATIENCE = float(os.environ.get("ONEHOST_TEST_PATIENCE", "1"))


@dataclass
class Trial:
    """What a fault is given: the cluster under load, chance, and whoever looks on."""

    cluster: Cluster
    stream: Stream
    watch: Watch
    chance: random.Random
    #: What a row found worth saying.
    notes: list[str] = field(default_factory=list)

    def wish(self, name: str, verb: str) -> dict[str, Any]:
        """A wish about a name of the row's own, that the model is told of. Its job, when every node is done."""
        return _wish(self.cluster, self.stream, name, verb, 60 * PATIENCE)


Fault = Callable[[Trial], None]


@dataclass(frozen=True)
class Row:
    """A fault by name and the promises it is to break. It returns when the fault has ended."""

    name: str
    fault: Fault
    promises: str
    store: str = "sqlite"
    #: Whether the broker's version may matter: run on both.
    version: bool = False
    #: Needs a cluster of its own; it is not given to another row.
    fresh: bool = False
    #: Crash points that this row meets.
    points: tuple[str, ...] = ()
    #: What stands on a small disk that the row fills: "store" or a node.
    small: str = ""
    #: What may be said about P7 in this row, in seconds.
    back_seconds: float = BACK_SECONDS


def run(row: Row, cluster: Cluster, model: Model, seed: str) -> str:
    """Runs a row to its end; what is to be printed. Raises AssertionError naming the promise that was broken."""
    chance = random.Random(f"{seed}:{row.name}")
    watch = Watch(cluster)
    stream = Stream(cluster.onehost, model, f"{seed}:{row.name}")
    trial = Trial(cluster, stream, watch, chance)
    try:
        stream.start()
        stream.wait_for(5)
        row.fault(trial)
        ended = time.monotonic()
        back = _wait_for_work(cluster, stream, row.back_seconds * PATIENCE) - ended
        stream.wait_for(3)
        stream.end()
        wait_for_quiet(cluster, 60.0 * PATIENCE)
    except BaseException:
        stream.halt()
        print("\n".join(map(str, stream.calls)))
        raise
    finally:
        watch.end()
    found = Run(cluster, model, stream.calls, watch)
    for check in CHECKS:
        check(found)
    outcomes = {word: sum(call.outcome == word for call in stream.calls) for word in ("ok", "refused", "lost")}
    words = ", ".join(f"{count} {word}" for word, count in outcomes.items() if count)
    return "; ".join([f"back after {back:.1f} s", words, *trial.notes])


def _wait_for_work(cluster: Cluster, stream: Stream, seconds: float) -> float:
    """P7: waits until every queue is consumed and a new wish is applied everywhere. When that was."""
    wait_until(lambda: _is_consumed(cluster), seconds, "P7: a consumer on every queue")
    job = _wish(cluster, stream, MARKER, "delete" if stream.model.living(MARKER) else "create", seconds)
    assert job["state"] == "applied", f"P7: {job}"
    return time.monotonic()


def _wish(cluster: Cluster, stream: Stream, name: str, verb: str, seconds: float) -> dict[str, Any]:
    with stream.paused():
        receipt = cluster.onehost.do("account", name, verb)
        call = Call(verb, name, {}, "", "ok", receipt.resource_id, receipt.generation, receipt.job_id)
        stream.model.take(call)
    return cluster.onehost.wait(receipt, seconds=seconds, everyone=True)


def _is_consumed(cluster: Cluster) -> bool:
    try:
        queues = {queue["name"]: queue.get("consumers", 0) for queue in cluster.api().get("queues", "onehost")}
    except OnehostError:
        return False
    wanted = [routing.AUDIT_QUEUE, *map(routing.node_queue, NODES)]
    return all(queues.get(name) for name in wanted)
