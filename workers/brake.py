"""The brake that the manager has pulled on this node, kept in the ledger: it holds after a restart, too."""

from __future__ import annotations

from .ledger_file import LedgerFile


class Brake:
    """While it is pulled the worker runs no round. Letters are stored and questions are answered all the same."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file
        #: As heard of last.
        self.is_pulled = file.one("SELECT 1 FROM fact WHERE name = 'paused' AND value = 'yes'") is not None

    def put(self, is_pulled: bool) -> None:
        """Pulls or lets go, in one durable commit."""
        if is_pulled != self.is_pulled:
            row = ("paused", "yes" if is_pulled else "no")
            self._file.write("INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?)", [row])
            self.is_pulled = is_pulled
