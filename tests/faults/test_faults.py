"""Every promise broken on purpose, on real processes: one test for each row of the fault table."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from .cluster import Cluster
from .model import Model
from .row import Row, run
from .table import ROWS

#: ONEHOST_FAULTS=version: only the rows that may go otherwise on another broker.
CHOSEN = [row for row in ROWS if row.version or os.environ.get("ONEHOST_FAULTS") != "version"]
pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]


@pytest.mark.parametrize("row", CHOSEN, ids=lambda row: f"{row.name} [{row.store}]")
def test_fault(row: Row, place: Callable[[Row], tuple[Cluster, Model]], seed: str,
               record_property: Callable[[str, object], None]) -> None:  # fmt: skip
    cluster, model = place(row)
    record_property("row", f"{row.promises}: {run(row, cluster, model, seed)}")
