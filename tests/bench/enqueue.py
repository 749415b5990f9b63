"""How fast one panel process enqueues: accounts created one by one, and many in one transaction; three targets each."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

from results import Row

from onehost import migrations
from onehost.models import settings
from onehost.producer import Onehost, Wish

NODES = (("s1", ["storage"]), ("w1", ["web", "ssh"]), ("w2", ["web", "ssh"]))


def _wishes(onehost: Onehost) -> Iterator[Wish]:
    for number in itertools.count():
        yield onehost.wish("account", f"acct{number}", "create", {"domain": f"acct{number}.example.com"})


def measure(bench: Any) -> None:
    """Submits a second, single and together, on each store. No relay runs: it is the panel's own pace."""
    single, many, rounds = (20, 100, 2) if bench.options.small else (200, 1000, 5)
    for kind in bench.options.stores:
        place = bench.place()
        store = bench.store(kind, place)
        migrations.upgrade(store)
        with Onehost(settings.Manager(store=store, secrets=place / "secrets"), actor="bench") as onehost:
            onehost.submit([onehost.wish("node", name, "add", {"address": f"10.0.0.{n}", "roles": roles})
                            for n, (name, roles) in enumerate(NODES, 1)])  # fmt: skip
            wishes, rates = _wishes(onehost), {"many": [], "single": []}  # type: ignore[var-annotated]
            for _ in range(rounds):
                began = time.perf_counter()
                for wish in itertools.islice(wishes, single):
                    onehost.submit([wish])
                rates["single"].append(single / (time.perf_counter() - began))
                began = time.perf_counter()
                onehost.submit(list(itertools.islice(wishes, many)))
                rates["many"].append(many / (time.perf_counter() - began))
        bench.results.add(Row(f"enqueue, 3 targets, {kind}", "jobs/s", rates, ("many", "single", "at least 5")))
