"""Seed, broker, stores and clusters of the fault suite, and a line of output for each row."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ..services.process import is_missing
from .cluster import Cluster, prepare
from .model import Model
from .row import Row

SEED = os.environ.get("ONEHOST_SEED") or str(random.SystemRandom().randrange(10**9))

SMALL_DISK = "16m"


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
    mounted: list[Path] = []

    def give(row: Row) -> tuple[Cluster, Model]:
        taken.append(row)
        kind = f"{row.name if row.fresh else ''} {row.store}"
        for other in [key for key in clusters if key != kind]:
            clusters.pop(other)[0].close()
        if kind not in clusters:
            folder = tmp_path_factory.mktemp("cluster")
            if row.small:
                mounted.append(_small_disk(folder / "small"))
            store, template = stores(row.store, folder / "small" if row.small == "store" else folder)
            server = request.getfixturevalue("postgresql") if row.store == "postgresql" else None
            clusters[kind] = Cluster(rabbitmq, store, template, folder, seed, row.small, server), Model()
        return clusters[kind]

    yield give
    failed = request.node.stash.get(_FAILED, False)
    if taken and (failed or taken[0].fresh):
        for cluster, _ in clusters.values():
            if failed:
                print(f"ONEHOST_SEED={seed}\n{cluster.logs()}")
            cluster.close()
        clusters.clear()
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def _small_disk(folder: Path) -> Path:
    """A disk of a few MiB in memory; takes root."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "small", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        is_missing(f"a small disk cannot be had here: {done.stderr.strip()}")
    return folder


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    if report.failed and call.excinfo:
        with suppress(Exception):
            report.sections.append(("seed", f"again: ONEHOST_SEED={SEED} ops/test tests/faults -k '{item.name}'"))
    return report


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Each row by name as it ends: what it was about, how long all took to be back at work, or what was broken."""
    if "test_fault[" not in report.nodeid or not (report.when == "call" or report.skipped or report.failed):
        return
    name = report.nodeid.partition("[")[2][:-1]
    words = dict(report.user_properties).get("row", "")
    if report.failed:
        words = str(getattr(report.longrepr, "reprcrash", report.longrepr)).replace("\n", " ")[-400:]
    if report.skipped:
        words = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
    print(f"\n{report.outcome:7} {report.duration:5.1f} s  {name}: {words}", file=sys.__stdout__, flush=True)
