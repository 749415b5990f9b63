"""Rows: a node's worker is frozen, there twice, out of disk, without its ledger, by another clock, killed by work."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from ..services.process import is_missing
from . import trace
from .cluster import NODES, OFFLINE_SECONDS, wait_until
from .deadly import KILLER
from .disks import full, strace
from .keeper import Kept
from .row import Row, Trial

FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"
JUMP_SECONDS = 7200
#: Accounts whose letters are followed through a trace.
TRACED = ("tracea", "traceb", "tracec")


def worker_frozen(trial: Trial) -> None:
    """Long enough to be called offline; nobody waits for it meanwhile, and it catches up by itself."""
    cluster = trial.cluster
    kept = cluster.kept["web3"]
    kept.freeze()
    try:
        wait_until(lambda: _state(trial, "web3") == "offline", OFFLINE_SECONDS + 20, "web3 called offline")
        trial.stream.wait_for(10)
    finally:
        kept.thaw()


def _state(trial: Trial, node: str) -> str:
    return str(next(row["state"] for row in trial.cluster.onehost.status()["nodes"] if row["name"] == node))


def second_worker(trial: Trial) -> None:
    """It waits for the ledger, and takes over when the first one dies."""
    first = trial.cluster.kept["web1"]
    other = Kept(
        "second web1", first.command, first.environment, trial.cluster.folder / f"second-web1-{time.monotonic_ns()}.log"
    )
    try:
        other.start()
        wait_until(lambda: "starting" in other.said(), what="the second one's start")
        trial.stream.wait_for(10)
        assert "consuming" not in other.said(), "two workers on one ledger"
        first.stop(signal.SIGKILL)
        wait_until(lambda: "consuming" in other.said(), what="the second one's turn")
        trial.stream.wait_for(5)
        first.start()
        trial.stream.wait_for(5)
    finally:
        other.close()


def node_full(trial: Trial) -> None:
    """Neither ledger nor files can be written: nothing is settled, nothing half done, all is done afterwards."""
    cluster = trial.cluster
    with full(cluster.folder / "small"):
        trial.stream.wait_for(20)
        time.sleep(2)


def ledger_broken(trial: Trial) -> None:
    """Some of the ledger's writes to disk fail with EIO: what is not durable is not settled."""
    kept = trial.cluster.kept["web2"]
    first = trial.chance.randint(5, 20)
    kept.run_as(*strace("-e", "trace=fdatasync", "-e", f"inject=fdatasync:error=EIO:when={first}..{first + 3}"))
    try:
        trial.stream.wait_for(60)
    finally:
        kept.run_plain()


def ledger_lost(trial: Trial) -> None:
    """The file is gone: a new one is filled by hello, and what is live is not emptied."""
    cluster = trial.cluster
    cluster.kept["web1"].stop(signal.SIGKILL)
    trial.stream.wait_for(5)
    for path in cluster.ledger("web1").parent.glob("web1.ledger*"):
        path.unlink()
    trial.watch.forget_ledgers()
    cluster.kept["web1"].start()


def node_lost(trial: Trial) -> None:
    """Ledger and machine are gone: it comes back empty and is filled."""
    cluster = trial.cluster
    cluster.kept["web3"].stop(signal.SIGKILL)
    for path in cluster.ledger("web3").parent.glob("web3.ledger*"):
        path.unlink()
    trial.watch.forget_ledgers()
    machine = cluster.machine("web3")
    machine.rename(machine.with_name("web3.gone"))
    cluster.wiped.add("web3")
    machine.mkdir()
    (machine / "home").symlink_to(cluster.folder / "home")
    trial.stream.wait_for(5)
    cluster.kept["web3"].start()


def clocks(trial: Trial) -> None:
    """The clocks of relay, audit process and two nodes jump two hours ahead, then two hours back."""
    library = next(Path("/").glob(FAKETIME[1:]), None)
    if library is None:
        is_missing("libfaketime is not installed (apt-get install libfaketime)")
    cluster = trial.cluster
    said = cluster.folder / "clock"
    said.write_text("+0\n")
    some = ("relay", "audit", "store1", "web2")
    for name in some:
        cluster.kept[name].run_as(LD_PRELOAD=str(library), FAKETIME_TIMESTAMP_FILE=str(said), FAKETIME_NO_CACHE="1",
                                  FAKETIME_DONT_FAKE_MONOTONIC="1")  # fmt: skip
    try:
        for jump in (JUMP_SECONDS, -JUMP_SECONDS, 0):
            trial.stream.wait_for(12)
            said.write_text(f"{jump:+d}\n")
        trial.stream.wait_for(12)
    finally:
        for name in some:
            cluster.kept[name].run_plain()


def deadly(trial: Trial) -> None:
    """Applying one account kills the worker: it fails alone, with a reason, and everything else is applied."""
    cluster = trial.cluster
    kept, lives = cluster.kept["web1"], len(cluster.kept["web1"].ends)
    kept.run_as(command=cluster.python("-m", "tests.faults.deadly"), PYTHONPATH=str(Path(__file__).parents[2]))
    states = {node["node"]: (node["state"], node["reason"]) for node in trial.wish(KILLER, "create")["nodes"]}
    assert states["web1"][0] == "failed" and "worker died" in states["web1"][1], f"P8: {states}"
    assert {states[node][0] for node in NODES if node != "web1"} == {"applied"}, f"P8: {states}"
    trial.notes.append(f"{len(kept.ends) - lives - 1} deaths")
    trial.stream.wait_for(10)
    kept.run_plain()
    assert trial.wish(KILLER, "retry")["state"] == "applied"
    trial.wish(KILLER, "delete")


def durable_first(trial: Trial) -> None:
    """A trace of a worker: each settlement goes out after the ledger's write has reached the disk, never before."""
    cluster = trial.cluster
    path = cluster.folder / "trace"
    kept = cluster.kept["web2"]
    kept.run_as(*strace("-y", "-s", "65536", "-e", "trace=fdatasync,pwrite64,recvfrom,sendto", into=path))
    try:
        for name in TRACED:
            assert trial.wish(name, "create")["state"] == "applied"
    finally:
        kept.run_plain()
    for name in TRACED:
        story = trace.letter(path, name)
        assert story[-1:] == ["settled"], f"no settlement of {name} in the trace: {story}"
        assert "durable" in story, f"P1: {name} was settled before it was durable: {story}"
        trial.wish(name, "delete")
    trial.notes.append(f"{len(TRACED)} letters written, durable, settled, in this order")


ROWS = (
    Row("worker frozen", worker_frozen, "P6 P7"),
    Row("second worker", second_worker, "P3 P4"),
    Row("node disk full", node_full, "P1 P9", small="web2", fresh=True),
    Row("ledger EIO", ledger_broken, "P1 P3"),
    Row("ledger lost", ledger_lost, "P9 P12"),
    Row("node lost", node_lost, "P9 P12", "postgresql"),
    Row("clocks jump", clocks, "P6"),
    Row("deadly resource", deadly, "P8"),
    Row("fdatasync before settle", durable_first, "P1"),
)
