"""How far Apache's log is split, and what each account has sent so far: in the ledger, so that both go on together."""

from __future__ import annotations

import json
from collections.abc import Mapping

from .ledger_file import LedgerFile

_PUT = "INSERT OR REPLACE INTO fact (name, value) VALUES ('split', ?)"


class LogProgress:
    """The part of the log at work is a file's name, where it begins and where it ends, in bytes.

    Of each account it is known whether its logs of this part are about to be written, and where to, or are written.
    """

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def at_work(self) -> str:
        """The file that was worked at last: it must be done before another one is begun."""
        return str(self._fact()[0])

    def part(self, name: str) -> tuple[int, int]:
        """Where to go on in a file; the end is 0 if no part of it was begun there."""
        found, start, end = self._fact()
        return (start, end) if found == name else (0, 0)

    def _fact(self) -> tuple[str, int, int]:
        row = self._file.one("SELECT value FROM fact WHERE name = 'split'")
        return tuple(json.loads(row[0])) if row else ("", 0, 0)

    def begin(self, name: str, start: int, end: int) -> None:
        """Takes up a part, where it was left if it was begun before."""
        if self.part(name) != (start, end):
            self._move(name, start, end)

    def end(self, name: str, end: int) -> None:
        """Every account has its lines of this part."""
        self._move(name, end, 0)

    def _move(self, name: str, start: int, end: int) -> None:
        with self._file.transaction() as db:
            db.execute("DELETE FROM split")
            db.execute(_PUT, (json.dumps([name, start, end]),))

    def places(self, account: int) -> dict[str, list[int]] | None:
        """Where this part's lines of an account go, by site, if that was settled before."""
        row = self._file.one("SELECT places FROM split WHERE account = ?", (account,))
        return json.loads(row[0]) if row else None

    def is_written(self, account: int) -> bool:
        """Whether the account has its lines of this part."""
        return self._file.one("SELECT 1 FROM split WHERE account = ? AND written = 1", (account,)) is not None

    def settle(self, account: int, places: Mapping[str, list[int]]) -> None:
        """Before an account's lines are written: where they go."""
        self._file.write("INSERT INTO split (account, places, written) VALUES (?, ?, 0)",
                         [(account, json.dumps(places))])  # fmt: skip

    def written(self, account: int, sent: Mapping[int, int]) -> None:
        """After they are: they are not written again, and what was sent is counted, in one commit."""
        with self._file.transaction() as db:
            db.execute("""INSERT INTO split (account, places, written) VALUES (?, '{}', 1)
                          ON CONFLICT (account) DO UPDATE SET written = 1""", (account,))  # fmt: skip
            db.executemany(
                """INSERT INTO sent (account, month, bytes) VALUES (?, ?, ?)
                   ON CONFLICT (account, month) DO UPDATE SET bytes = bytes + excluded.bytes""",
                [(account, month, number) for month, number in sent.items()],
            )

    def sent(self, first: int) -> list[list[int]]:
        """[account, month, bytes] since the month `first`: all that was ever counted here. Earlier months go."""
        self._file.write("DELETE FROM sent WHERE month < ?", [(first,)])
        return [list(row) for row in self._file.read("SELECT account, month, bytes FROM sent ORDER BY account, month")]
