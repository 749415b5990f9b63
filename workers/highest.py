"""The highest number of each kind (uid) that this node was ever given. It only rises, whatever becomes of resources.

A store restored from a backup asks for it before it gives out a number: what was given after the backup stands here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from ..models import nouns
from .ledger_file import LedgerFile

_PREFIX = "highest."


class Highest:
    """Kept as facts of the ledger."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file
        self._numbers: dict[str, int] = {}
        self.read()

    def numbers(self) -> dict[str, int]:
        """By kind."""
        return dict(self._numbers)

    def read(self) -> None:
        """Takes what is on disk: at start, and when a transaction was taken back."""
        rows = self._file.read("SELECT name, value FROM fact WHERE name LIKE ?", (_PREFIX + "%",))
        self._numbers = {row["name"].removeprefix(_PREFIX): int(row["value"]) for row in rows}
        if not rows:
            self._collect()

    def _collect(self) -> None:
        """From the entries: an earlier version of the worker kept no such facts."""
        entries = self._file.read("SELECT noun, spec, applied_spec FROM entry")
        with self._file.transaction() as db:
            for row in entries:
                for spec in (row["spec"], row["applied_spec"]):
                    self.note(db, row["noun"], None if spec is None else json.loads(spec))

    def note(self, db: sqlite3.Connection, noun: str, spec: Mapping[str, Any] | None) -> None:
        """Part of a transaction of the ledger: a spec has come."""
        known = nouns.nouns().get(noun)
        for kind, number in (known.numbers(spec) if known and spec else {}).items():
            if number > self._numbers.get(kind, 0):
                self._numbers[kind] = number
                db.execute("INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?)", (_PREFIX + kind, str(number)))
