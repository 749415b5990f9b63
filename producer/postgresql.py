"""PostgreSQL's own programs for a dump and back: they know their format. No secret stands in their arguments."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from ..models.errors import Refused, Unreachable


def dump(engine: Engine, snapshot: str, to: Path) -> None:
    """Writes the database, as this exported snapshot sees it. Raises Unreachable or Refused."""
    options = ["--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}", f"--file={to}"]
    _run(["pg_dump", *options], engine)


def script(dumped: Path, to: Path) -> None:
    """Writes a dump as SQL; reads all of it. Raises Refused for one that is broken."""
    _run(["pg_restore", "--clean", "--if-exists", "--no-owner", "--no-privileges", f"--file={to}", str(dumped)])


def run_scripts(engine: Engine, scripts: Sequence[Path]) -> None:
    """Runs these files of SQL in one transaction: all of it, or nothing. Raises Unreachable or Refused."""
    options = ["--single-transaction", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null"]
    _run(["psql", *options, *(f"--file={script}" for script in scripts)], engine)


def _run(command: list[str], engine: Engine | None = None) -> None:
    program = command[0]
    if shutil.which(program) is None:
        raise Unreachable(f"{program} is not installed", hint="apt-get install postgresql-client")
    environment = dict(os.environ)
    if engine is not None:
        conninfo, password = _connection(engine)
        command = [*command, f"--dbname={conninfo}"]
        if password:
            environment["PGPASSWORD"] = password
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        why = next((line for line in words if "error" in line.lower()), words[-1] if words else "no word")
        raise Refused(f"{program} ended with {done.returncode}: {why}")


def _connection(engine: Engine) -> tuple[str, str]:
    """How the programs reach the database, and the password apart from it."""
    from psycopg.conninfo import make_conninfo

    values: dict[str, Any] = engine.url.translate_connect_args(database="dbname", username="user")
    password = str(values.pop("password", None) or "")
    for name, value in engine.url.query.items():
        values[name] = value if isinstance(value, str) else ",".join(value)
    return make_conninfo(**values), password
