"""Seed, broker, stores and clusters of the fault suite, and its table at the end of the output."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from .cluster import Cluster, prepare
from .model import Model
from .row import Row

SEED = os.environ.get("ONEHOST_SEED") or str(random.SystemRandom().randrange(10**9))


def pytest_report_header() -> str:
    return f"faults: ONEHOST_SEED={SEED}"


@pytest.fixture(scope="session")
def seed() -> str:
    """Where all chance of a run comes from."""
    return SEED


@pytest.fixture(scope="session")
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Any]:
    """Makes a store of a kind for a folder: a copy of one with its nodes. Gives its URL and the template's folder."""
    templates: dict[str, tuple[str, Path]] = {}

    def make(kind: str, folder: Path) -> tuple[str, Path]:
        server = request.getfixturevalue("postgresql") if kind == "postgresql" else None
        if kind not in templates:
            home = tmp_path_factory.mktemp("template")
            url = server.new_database() if server else f"sqlite:///{home}/store.db"
            prepare(url, home)
            templates[kind] = url, home
        url, home = templates[kind]
        if server:
            return server.new_database(template=url), home
        shutil.copy(home / "store.db", folder / "store.db")
        return f"sqlite:///{folder}/store.db", home

    return make


@pytest.fixture(scope="session")
def clusters() -> Iterator[dict[str, tuple[Cluster, Model]]]:
    """The one cluster that is up, by its kind of store: rows share it as long as it is whole."""
    up: dict[str, tuple[Cluster, Model]] = {}
    yield up
    for cluster, _ in up.values():
        cluster.close()


@pytest.fixture
def place(request: pytest.FixtureRequest, clusters: dict[str, tuple[Cluster, Model]], stores: Any, rabbitmq: Any,
          seed: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Row], Any]]:  # fmt: skip
    """Gives a row its cluster, and what is wanted of it so far. One that failed a row is not used again."""
    taken: list[Row] = []

    def give(row: Row) -> tuple[Cluster, Model]:
        taken.append(row)
        kind = f"{row.name if row.fresh else ''} {row.store}"
        for other in [key for key in clusters if key != kind]:
            clusters.pop(other)[0].close()
        if kind not in clusters:
            folder = tmp_path_factory.mktemp("cluster")
            store, template = stores(row.store, folder)
            clusters[kind] = Cluster(rabbitmq, store, template, folder, seed), Model()
        return clusters[kind]

    yield give
    failed = request.node.stash.get(_FAILED, False)
    if taken and (failed or taken[0].fresh):
        for cluster, _ in clusters.values():
            if failed:
                print(f"ONEHOST_SEED={seed}\n{cluster.logs()}")
            cluster.close()
        clusters.clear()


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    if report.failed and call.excinfo:
        with suppress(Exception):
            report.sections.append(("seed", f"again: ONEHOST_SEED={SEED} ops/test tests/faults -k '{item.name}'"))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table: every row by name, what it was about, and how long all took to be back at work."""
    terminalreporter.section(f"faults, ONEHOST_SEED={SEED}")
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            if report.when == ("setup" if outcome == "skipped" else "call") and "test_fault[" in report.nodeid:
                name = report.nodeid.partition("[")[2][:-1]
                words = dict(report.user_properties).get("row", outcome)
                terminalreporter.write_line(f"{outcome:7} {report.duration:5.1f} s  {name}: {words}")
