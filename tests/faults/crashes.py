"""Rows: a process gets SIGKILL at each step between a wish and its acknowledgement."""

from __future__ import annotations

import signal
import subprocess
from functools import partial

from onehost.models.crash import VARIABLE

from .row import Row, Trial
from .stream import GHOST

#: A submit in a process of its own, for a name; it dies at a crash point.
SUBMIT = """
import sys
from onehost.producer import Onehost
with Onehost(actor="crash") as onehost:
    onehost.submit([onehost.wish("account", sys.argv[1], sys.argv[2], idempotency_key=sys.argv[3])])
"""


def crash(process: str, point: str, trial: Trial) -> None:
    """The process dies at the point, twice in a row, each time started anew."""
    kept = trial.cluster.kept[process]
    # Not always the first time: more is under way then.
    kept.crash_at(f"{point}:{trial.chance.randint(1, 2)}", lives=2)
    kept.wait_for_crashes()


def crash_submit(point: str, trial: Trial) -> None:
    """A panel dies within its submit."""
    is_committed = point == "submit.committed"
    cluster = trial.cluster
    config = str(cluster.folder / "relay.toml")
    # Nobody wants the name before: whether it was made is then seen by its name.
    name = GHOST if not is_committed else f"x{trial.chance.randrange(10**8)}"
    done = subprocess.run(cluster.python("-c", SUBMIT, name, "create", name), check=False, timeout=60,
                          env=cluster.environment(ONEHOST_CONFIG=config, **{VARIABLE: point}))  # fmt: skip
    assert done.returncode == -signal.SIGKILL, f"it did not die at {point}"
    if is_committed:
        (made,) = [row for row in cluster.onehost.list("account") if row["name"] == name]
        (job,) = cluster.onehost.jobs(name=name)
        assert cluster.onehost.wait(job["id"], everyone=True)["state"] == "applied", "P1: committed and never applied"
        cluster.onehost.wait(cluster.onehost.account_delete(name), everyone=True)
        assert made["generation"] == 1


def crash_action(trial: Trial) -> None:
    """What is to be done at most once was begun, and nobody knows how far: it says so and is not done again."""
    cluster, name = trial.cluster, "actor"
    with trial.stream.paused():
        trial.wish(name, "create")
        cluster.kept["web1"].crash_at("action.started")
        job = cluster.onehost.do("account", name, "logout").job_id
        cluster.kept["web1"].wait_for_crashes()
        ended = cluster.onehost.wait(job, everyone=True)
        states = {node["node"]: (node["state"], node["reason"]) for node in ended["nodes"]}
        assert states["web1"][0] == "failed" and "worker ended" in states["web1"][1], f"P3: {states}"
        assert {states[node][0] for node in ("web2", "web3")} == {"applied"}, f"P6: {states}"
        trial.wish(name, "delete")


def _row(process: str, point: str, promises: str, store: str = "sqlite") -> Row:
    return Row(f"crash {point}", partial(crash, process, point), promises, store, points=(point,))


ROWS = (
    Row("crash submit.written", partial(crash_submit, "submit.written"), "P2", points=("submit.written",)),
    Row("crash submit.committed", partial(crash_submit, "submit.committed"), "P1", points=("submit.committed",)),
    Row("crash action.started", crash_action, "P3 P6", points=("action.started",)),
    _row("relay", "relay.read", "P1"),
    _row("relay", "relay.confirmed", "P1 P3 P5"),
    _row("relay", "relay.marked", "P1 P3", "postgresql"),
    _row("web1", "receiver.received", "P1"),
    _row("web1", "receiver.stored", "P1 P3"),
    _row("store1", "consumer.settled", "P1 P3"),
    _row("web2", "round.started", "P3 P9"),
    _row("web2", "round.switched", "P3 P9"),
    _row("web3", "round.verified", "P3"),
    _row("store1", "round.recorded", "P1 P3 P11"),
    _row("web1", "reporter.read", "P1 P11"),
    _row("web1", "reporter.confirmed", "P3 P11"),
    _row("audit", "audit.written", "P3 P11", "postgresql"),
    _row("audit", "audit.committed", "P3 P11"),
    _row("audit", "seal.read", "P11"),
    _row("audit", "seal.written", "P11", "postgresql"),
)
