"""Daemons that somebody stopped on purpose on this node, kept in the ledger: they stay stopped after a restart, too."""

from __future__ import annotations

import json

from .ledger_file import LedgerFile


class Stopped:
    """By name, when it was stopped and by which job, in words."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file
        row = file.one("SELECT value FROM fact WHERE name = 'stopped'")
        #: As written last.
        self.all: dict[str, str] = json.loads(row[0]) if row else {}

    def put(self, daemon: str, words: str) -> None:
        """Remembers that it is stopped; empty words: that it is not. In one durable commit."""
        rest = {name: text for name, text in self.all.items() if name != daemon}
        self.all = rest | ({daemon: words} if words else {})
        rows = [("stopped", json.dumps(self.all))]
        self._file.write("INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?)", rows)
