"""The command line on a store of its own, in this process or in another: what tests of it stand on."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click.testing
from sqlalchemy import create_engine, inspect, text

from onehost.producer.cli.root import root

#: Nothing listens there: a broker that is out of reach.
NOWHERE = "http://127.0.0.1:9"


@dataclass
class CommandLine:
    """`onehost` with its settings and store below a folder. Never a terminal."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "onehost.toml"

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder}/store.db"

    def init(self, *more: str) -> None:
        """A store with its tables; secrets and definitions, but no broker."""
        paths = ("--secrets", f"{self.folder}/secrets", "--definitions", f"{self.folder}/definitions.json")
        done = self.run("init", "--no-broker", "--store", self.store, "--management", NOWHERE, *paths, *more)
        assert done.exit_code == 0, done.output

    def run(self, *words: str, stdin: str | bytes | None = None) -> click.testing.Result:
        """One command in this process."""
        environment = {"ONEHOST_CONFIG": str(self.config), "ONEHOST_ACTOR": "tester", "NO_COLOR": "1"}
        return click.testing.CliRunner().invoke(root, [*words], input=stdin, env=environment)

    def good(self, *words: str, stdin: str | bytes | None = None) -> str:
        """The standard output of a command that must work."""
        done = self.run(*words, stdin=stdin)
        assert done.exit_code == 0, (words, done.output, done.exception)
        return done.stdout

    def process(
        self, *words: str | bytes, stdin: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """One command in a process of its own."""
        known = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "ONEHOST_CONFIG": str(self.config),
            "ONEHOST_ACTOR": "tester",
        }
        program = [sys.executable, "-c", "from onehost.producer.cli import main; main()"]
        return subprocess.run([*program, *words], input=stdin, capture_output=True, timeout=60, env=known | environment,
                              check=False)  # fmt: skip

    def contents(self) -> dict[str, Any]:
        """Every row of every table, and a hash of every other file: what must not change."""
        engine = create_engine(self.store)
        with engine.connect() as connection:
            found: dict[str, Any] = {
                table: sorted(map(repr, connection.execute(text(f'SELECT * FROM "{table}"'))))
                for table in inspect(connection).get_table_names()
            }
        engine.dispose()
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and not path.name.startswith("store.db"):
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode
        return found | {"files": sorted(str(path) for path in self.folder.rglob("*") if ".db-" not in path.name)}
