"""The audit store with a million events: every filter of `onehost audit list`, its proof, its export, its inserts.

Values are asked for that are frequent, rare, long gone and unknown; each must be answered from an index.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from results import Row
from sqlalchemy import event as listen
from sqlalchemy import select

from onehost import migrations
from onehost.models import settings
from onehost.models.store import Event, reading, writing
from onehost.producer import EventFilter, Onehost, seal
from onehost.producer.events import Happened, record

BATCH = 1000
DAYS = 90
START = datetime(2026, 8, 1, tzinfo=UTC)
NODES, ACCOUNTS, ACTORS = 100, 20_000, 50
VERBS = ("create", "set", "suspend", "unsuspend", "password", "remove")
#: How often each question is asked.
TIMES = 20


def happened(count: int) -> Iterator[Happened]:
    """A history: jobs of accounts on three nodes each, their acknowledgements and ends, and what befalls nodes."""
    chance = random.Random(7)
    step = timedelta(days=DAYS) / count
    numbers = dict.fromkeys(range(1, NODES + 1), 0)
    made, job = 0, 0

    def at() -> datetime:
        return START + step * made

    while made < count:
        job += 1
        number = chance.randrange(ACCOUNTS)
        who = ("account", f"account{number}", NODES + number)
        actor = "old-panel" if made < count // 50 else f"panel{int(chance.paretovariate(1)) % ACTORS}"
        verb = chance.choices(VERBS, (10, 50, 10, 10, 15, 5))[0]
        detail = {"difference": {"access": "sftp", "document_root": "web"}, "generation": 3, "source": "panel 10.0.0.7"}
        yield Happened(f"account.{verb}", actor, at(), *who, job_id=job, outcome="submitted", detail=detail)
        made += 1
        for node in chance.sample(range(1, NODES + 1), 3):
            numbers[node] += 1
            outcome = chance.choices(("applied", "failed", "retrying"), (970, 20, 10))[0]
            seconds = {"node": 0.21, "compare": 0.002, "files": 0.05, "validate": 0.1, "signal": 0.02, "ledger": 0.01}
            yield Happened("acknowledgement", f"node-n{node:04}", at(), *who, f"n{node:04}", node, job, outcome, 7,
                           numbers[node], {"difference": {"site": "changed", "pool": "changed"}, "generation": 3,
                                           "reason": "", "at": at().isoformat(), "seconds": seconds})  # fmt: skip
            made += 1
        yield Happened("job.end", "onehost", at(), *who, job_id=job, outcome="applied", detail={"applied": 3})
        made += 1
        if not chance.randrange(2000):
            node = chance.randrange(1, NODES + 1)
            yield Happened("node.offline", "onehost", at(), "node", f"n{node:04}", node, f"n{node:04}", node)
            made += 1
        if not chance.randrange(20_000):
            strange = ("n0007", 7, job, "strange", 6, made)
            yield Happened("acknowledgement", "node-n0007", at(), *who, *strange)
            made += 1


def fill(bench: Any, onehost: Onehost, count: int, kind: str) -> None:
    """By the audit process's own insert, a batch a transaction; then sealed."""
    story = happened(count)
    rows, rates = [], []
    for one in story:
        rows.append(one)
        if len(rows) == BATCH:
            began = time.perf_counter()
            with writing(onehost.engine) as connection:
                record(connection, rows)
            rates.append(BATCH / (time.perf_counter() - began))
            rows = []
    with writing(onehost.engine) as connection:
        record(connection, rows)
    last = rates[-max(len(rates) // 10, 1) :]
    bench.results.add(Row(f"audit insert, the last tenth of {count:,}, {kind}", "rows/s", {"onehost": last}))
    began, sealed = time.perf_counter(), 0
    while True:
        with writing(onehost.engine) as connection:
            new = seal.seal(connection)
        sealed += new
        if not new:
            break
    took = time.perf_counter() - began
    bench.results.add(Row(f"seal of {sealed:,}, {kind}", "rows/s", {"onehost": [sealed / took]}))
    if kind == "postgresql":
        with onehost.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


def questions(onehost: Onehost, count: int) -> dict[str, EventFilter]:
    """What people ask."""
    with reading(onehost.engine) as connection:
        page = connection.execute(select(Event.id).order_by(Event.id).offset(count // 2).limit(1)).scalar_one()
    end = START + timedelta(days=DAYS)
    hour, month = end - timedelta(hours=1), START + timedelta(days=30)
    asked: dict[str, dict[str, Any]] = {
        "nothing": {},
        "noun": {"noun": "account"},
        "noun rare": {"noun": "node"},
        "noun unknown": {"noun": "virtual_service"},
        "resource": {"noun": "account", "name": "account77"},
        "resource unknown": {"noun": "account", "name": "nobody"},
        "node": {"node": "n0007"},
        "node unknown": {"node": "n9999"},
        "actor": {"actor": "panel1"},
        "actor long gone": {"actor": "old-panel"},
        "actor unknown": {"actor": "nobody"},
        "kind": {"kind": "acknowledgement"},
        "kind rare": {"kind": "node.offline"},
        "kind account.*": {"kind": "account.*"},
        "kind node.*": {"kind": "node.*"},
        "kind unknown.*": {"kind": "unknown.*"},
        "outcome": {"outcome": "applied"},
        "outcome failed": {"outcome": "failed"},
        "outcome rare": {"outcome": "strange"},
        "outcome unknown": {"outcome": "nothing"},
        "job": {"job_id": count // 20},
        "job unknown": {"job_id": 10 * count},
        "since an hour": {"since": hour},
        "since a month": {"since": month},
        "since the future": {"since": end + timedelta(days=1)},
        "until a month": {"until": month},
        "until before": {"until": START},
        "since and until": {"since": month, "until": month + timedelta(hours=1)},
        "node and outcome": {"node": "n0007", "outcome": "failed"},
        "node and rare outcome": {"node": "n0007", "outcome": "strange"},
        "node and until": {"node": "n0007", "until": month},
        "node, kind.* and since": {"node": "n0007", "kind": "node.*", "since": month},
        "actor and kind": {"actor": "panel1", "kind": "account.suspend"},
        "actor long gone, since": {"actor": "old-panel", "since": month},
        "actor and kind.* and until": {"actor": "panel1", "kind": "account.*", "until": month},
        "kind and outcome": {"kind": "acknowledgement", "outcome": "failed"},
        "kind and outcome, nothing": {"kind": "acknowledgement", "outcome": "submitted"},
        "noun and outcome": {"noun": "account", "outcome": "failed"},
        "noun and rare outcome": {"noun": "account", "outcome": "strange"},
        "noun and kind, nothing": {"noun": "node", "kind": "acknowledgement"},
        "resource and kind": {"noun": "account", "name": "account77", "kind": "account.*"},
        "actor and node, nothing": {"actor": "panel1", "node": "n0007"},
        "next page": {"before_id": page},
        "next page, noun": {"noun": "account", "before_id": page},
        "next page, node": {"node": "n0007", "before_id": page},
        "next page, kind.*": {"kind": "account.*", "before_id": page},
        "next page, outcome": {"outcome": "failed", "before_id": page},
        "next page, actor long gone": {"actor": "old-panel", "before_id": page},
    }  # fmt: skip
    return {name: EventFilter(**given) for name, given in asked.items()}


def ask(bench: Any, onehost: Onehost, count: int, kind: str) -> None:
    """Milliseconds of the first page of each question, and by which index it was found."""
    worst: list[float] = []
    for name, which in questions(onehost, count).items():
        times = []
        for _ in range(TIMES):
            began = time.perf_counter()
            found = len(list(onehost.events(which)))
            times.append((time.perf_counter() - began) * 1000)
        p95 = statistics.quantiles(times, n=20)[18]
        worst.append(p95)
        words = f"{found} rows by {plan(onehost, which)}"
        bench.results.add(Row(f"audit list, {name}, {kind}", "ms", {"p50": [statistics.median(times)], "p95": [p95]},
                              note=words))  # fmt: skip
    bench.results.add(
        Row(f"audit list, the slowest p95, {kind}", "ms", {"onehost": [max(worst)]}, note="(at most 100)")
    )


def plan(onehost: Onehost, which: EventFilter) -> str:
    """The indexes by which the database says that it finds these events."""
    asked: list[tuple[str, Any]] = []

    def hear(_c: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        if "event" in statement:
            asked.append((statement, parameters))

    listen.listen(onehost.engine, "before_cursor_execute", hear)
    list(onehost.events(which))
    listen.remove(onehost.engine, "before_cursor_execute", hear)
    explain = "EXPLAIN QUERY PLAN " if onehost.engine.dialect.name == "sqlite" else "EXPLAIN "
    with reading(onehost.engine) as connection:
        lines = [" ".join(map(str, row)) for row in connection.exec_driver_sql(explain + asked[-1][0], asked[-1][1])]
    words = []
    for line in lines:
        if "Seq Scan" in line or ("SCAN event" in line and "INDEX" not in line):
            words.append("A WHOLE TABLE" if "Seq" in line else "primary key, newest first")
        if "Sort" in line or "TEMP B-TREE" in line:
            words.append("a sort")
        words += [word.strip("()") for word in line.split() if word.startswith(("ix_", "uq_", "pk_"))]
        words += ["primary key"] * ("INTEGER PRIMARY KEY" in line)
    return ", ".join(dict.fromkeys(words))


def prove(bench: Any, onehost: Onehost, count: int, kind: str) -> None:
    """Rows a second of `audit verify`, and what an idle second of the sealer costs."""
    began = time.perf_counter()
    verdict = onehost.verify()
    took = time.perf_counter() - began
    assert not verdict.problem and verdict.events == count, verdict
    bench.results.add(Row(f"audit verify of {count:,}, {kind}", "rows/s", {"onehost": [count / took]},
                          note="(at least 100,000)"))  # fmt: skip
    acts = {"status": onehost.status, "idle second of the sealer": lambda: _seal(onehost, look_back=False),
            "the sealer looks back": lambda: _seal(onehost, look_back=True)}  # fmt: skip
    for name, act in acts.items():
        times = []
        for _ in range(TIMES):
            began = time.perf_counter()
            act()
            times.append((time.perf_counter() - began) * 1000)
        bench.results.add(Row(f"{name}, {count:,} events, {kind}", "ms", {"onehost": times}))


def _seal(onehost: Onehost, *, look_back: bool) -> None:
    with writing(onehost.engine) as connection:
        seal.seal(connection, look_back=look_back)


def indexes(bench: Any, onehost: Onehost, kind: str) -> None:
    """What the indexes of events cost: rows inserted a second with them and, last of all, without."""
    rates: dict[str, list[float]] = {"with indexes": [], "without": []}
    story = happened(50 * BATCH)
    for side, samples in rates.items():
        if side == "without":
            with writing(onehost.engine) as connection:
                for index in Event.__table__.indexes:
                    if not index.unique:
                        connection.exec_driver_sql(f"DROP INDEX {index.name}")
        for _ in range(20):
            rows = [replace(next(story), epoch=None, number=None) for _ in range(BATCH)]
            began = time.perf_counter()
            with writing(onehost.engine) as connection:
                record(connection, rows)
            samples.append(BATCH / (time.perf_counter() - began))
    bench.results.add(Row(f"audit insert, {kind}", "rows/s", rates, ("with indexes", "without", "share that is left")))


EXPORT = """
import resource, sys
from onehost.models import settings
from onehost.producer import EventFilter, Onehost
from onehost.producer.cli.export import write
with Onehost(settings.Manager(store=sys.argv[1]), actor="bench") as onehost:
    write(onehost.events(EventFilter(), int(sys.argv[2])), "jsonl", sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def export(bench: Any, onehost: Onehost, count: int, kind: str, folder: Path) -> None:
    """Seconds and the highest resident memory of a process that exports a tenth, and all."""
    rows: dict[str, list[float]] = {}
    for part in (count // 10, count):
        began = time.perf_counter()
        command = [sys.executable, "-c", EXPORT, onehost.settings.store, str(part), str(folder / "events.jsonl")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows[f"{part:,}"] = [float(done.stdout)]
        took = time.perf_counter() - began
        (folder / "events.jsonl").unlink()
    bench.results.add(Row(f"audit export, highest memory, {kind}", "MiB", rows, note=f"{count / took:,.0f} rows/s"))


def measure(bench: Any) -> None:
    """Fills a store by store, and asks."""
    count = 50_000 if bench.options.small else 1_000_000
    for kind in bench.options.stores:
        place = bench.place()
        store = bench.store(kind, place)
        migrations.upgrade(store)
        with Onehost(settings.Manager(store=store, secrets=place / "secrets"), actor="bench") as onehost:
            fill(bench, onehost, count, kind)
            with reading(onehost.engine) as connection:
                count = seal.head(connection).position
            ask(bench, onehost, count, kind)
            prove(bench, onehost, count, kind)
            export(bench, onehost, count, kind, place)
            indexes(bench, onehost, kind)
