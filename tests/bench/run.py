"""Measures onehost against the bare reference on services of its own, and against itself.

    .venv/bin/python tests/bench/run.py [--out build/bench] [--only fan,sustained,enqueue,idle,hello,audit] [--small]
                                        [--stores postgresql,sqlite] [--nodes 1,10,100,1000] [--rounds 15]

Prints a table and leaves bench.json, bench.txt and bench.svg. What each number means stands in README.md beside this.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import audit
import enqueue
import hello
import idle
from results import Results, Row
from services.postgresql import private_postgresql
from services.rabbitmq import private_rabbitmq
from sides import Bare, Chain

#: Warming up, not counted.
WARM = 3
#: A side that goes on has beats and clocks to catch up with; it is left alone for this long, in seconds.
REST_SECONDS = 0.2
#: So many nodes are measured without the reference: two quorum queues for each are too many for one broker.
MANY = 1000
#: PostgreSQL as it is installed: fsync on. More connections than a test has.
POSTGRESQL = ("fsync=on", "max_connections=60")


class Bench:
    """The services and options of one run."""

    def __init__(self, options: argparse.Namespace, broker: Any, postgresql: Any, folder: Path) -> None:
        self.options, self.broker, self.postgresql, self.folder = options, broker, postgresql, folder
        self.results = Results(options.out)
        self.made = 0

    def place(self) -> Path:
        """A new empty folder."""
        self.made += 1
        place = self.folder / f"{self.made}"
        place.mkdir()
        return place

    def store(self, kind: str, place: Path, *, bare: bool = False) -> str:
        """A new empty store: a URL, or for the reference a path or words for psycopg."""
        if kind == "sqlite":
            return f"{place}/bare.db" if bare else f"sqlite:///{place}/store.db"
        url: str = self.postgresql.new_database()
        database = url.partition("?")[0].rpartition("/")[2]
        return f"host={self.postgresql.socket_folder} user=postgres dbname={database}" if bare else url

    @contextmanager
    def alone(self, kind: str, nodes: int, accounts: int) -> Iterator[Chain]:
        """onehost without the reference."""
        place = self.place()
        chain = Chain(place / "onehost", nodes, self.store(kind, place), self.broker, accounts)
        try:
            chain.run()
            yield chain
        finally:
            chain.stop()

    @contextmanager
    def sides(self, kind: str, nodes: int, accounts: int) -> Iterator[tuple[Chain, Bare]]:
        """Both sides, running."""
        place = self.place()
        with ExitStack() as stack:
            chain = Chain(place / "onehost", nodes, self.store(kind, place), self.broker, accounts)
            stack.callback(chain.stop)
            bare = Bare(place / "bare", nodes, self.store(kind, place, bare=True), self.broker, accounts)
            stack.callback(bare.stop)
            chain.run()
            bare.run()
            yield chain, bare


def compared(chain: Chain, bare: Bare, jobs: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of both sides in turn, the other one frozen."""
    samples: dict[str, list[float]] = {chain.name: [], bare.name: []}
    for number in range(rounds + WARM):
        for mine, other in ((chain, bare), (bare, chain)):
            with other.frozen():
                time.sleep(REST_SECONDS)
                took = mine.took(jobs)
            if number >= WARM:
                samples[mine.name].append(took)
    return samples


def fan(bench: Bench) -> None:
    """One job to so many nodes, from submit to the last durable acknowledgement."""
    for kind in bench.options.stores:
        medians: dict[int, list[float]] = {}
        for nodes in bench.options.nodes:
            if nodes >= MANY:
                with bench.alone(kind, nodes, 8) as chain:
                    medians[nodes] = [chain.took() for _ in range(WARM + 5)][WARM:]
                continue
            with bench.sides(kind, nodes, 8) as (chain, bare):
                samples = compared(chain, bare, 1, bench.options.rounds)
            medians[nodes] = samples["onehost"]
            goal = ("onehost", "bare", "at most 1.5" if nodes in (1, 100) else "no goal")
            bench.results.add(Row(f"one job to {nodes} nodes, {kind}", "s", samples, goal))
        if {100, 1000} <= medians.keys():
            both = {"1000": medians[1000], "100": medians[100]}
            bench.results.add(Row(f"1,000 nodes against 100, {kind}", "s", both, ("1000", "100", "at most 12")))


def sustained(bench: Bench) -> None:
    """Many jobs at once to ten nodes: acknowledgements a second."""
    jobs, nodes = (50, 10) if bench.options.small else (500, 10)
    for kind in bench.options.stores:
        with bench.sides(kind, nodes, jobs) as (chain, bare):
            samples = compared(chain, bare, jobs, 1 if bench.options.small else 5)
        rates = {side: [jobs * nodes / each for each in taken] for side, taken in samples.items()}
        bench.results.add(
            Row(f"sustained, {nodes} nodes, {jobs} jobs, {kind}", "ack/s", rates, ("onehost", "bare", "at least 0.5"))
        )


MEASURES: dict[str, Callable[[Any], None]] = {
    "fan": fan, "sustained": sustained, "enqueue": enqueue.measure, "idle": idle.measure, "hello": hello.measure,
    "audit": audit.measure,
}  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, default=Path("build/bench"))
    arguments.add_argument("--only", type=lambda text: text.split(","), default=list(MEASURES))
    arguments.add_argument("--stores", type=lambda text: text.split(","), default=["postgresql", "sqlite"])
    arguments.add_argument("--nodes", type=lambda text: [int(n) for n in text.split(",")], default=[])
    arguments.add_argument("--rounds", type=int, default=0)
    arguments.add_argument("--small", action="store_true", help="few of everything: done in a minute or two")
    options = arguments.parse_args()
    options.nodes = options.nodes or ([1, 10] if options.small else [1, 10, 100, 1000])
    options.rounds = options.rounds or (3 if options.small else 15)
    with tempfile.TemporaryDirectory(prefix="onehost-bench-") as folder, \
            private_rabbitmq() as broker, private_postgresql(*POSTGRESQL) as postgresql:  # fmt: skip
        bench = Bench(options, broker, postgresql, Path(folder))
        for name in options.only:
            MEASURES[name](bench)
    print(f"written: {options.out}/bench.json, bench.txt, bench.svg")


if __name__ == "__main__":
    main()
