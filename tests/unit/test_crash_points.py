"""Crash points: each one in the source is met by a row of the fault table, and none does anything in a normal run."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from onehost.models import crash

from ..faults.table import ROWS

SOURCE = Path(__file__).resolve().parents[2]
FOLDERS = ("models", "broker_config", "producer", "workers")
CALL = re.compile(r"crash_point\(\"([a-z.]+)\"\)")


def points() -> list[str]:
    """Every crash point of the source."""
    files = (path for folder in FOLDERS for path in (SOURCE / folder).rglob("*.py"))
    return [name for path in files for name in CALL.findall(path.read_text())]


def test_every_point_has_one_name_and_a_row() -> None:
    found = points()
    assert len(found) == len(set(found)) > 10
    assert set(found) == {point for row in ROWS for point in row.points}


def test_rows_have_names_of_their_own() -> None:
    assert len({(row.name, row.store) for row in ROWS}) == len(ROWS)


def test_no_point_is_armed_here() -> None:
    assert crash.crash_point is crash.armed("")
    crash.crash_point(points()[0])


def test_a_point_kills_at_its_third_time() -> None:
    program = (
        "from onehost.models.crash import crash_point as at\nfor n in range(5): print(n, flush=True); at('a'); at('b')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={crash.VARIABLE: "b:3"}, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"0\n1\n2\n")
