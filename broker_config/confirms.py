"""The book of one confirming channel: which letters are in flight, which were settled, and how. Knows no network."""

from __future__ import annotations

from .letters import Report


class Confirms:
    """Ties the broker's delivery tags to message ids, and returns (which precede their own ack) to the ack.

    `settlements` counts what was settled: a caller sees progress by it.
    """

    def __init__(self) -> None:
        self.settlements = 0
        self._last_tag = 0
        #: Delivery tag to message id. Tags rise, so insertion order is tag order.
        self._in_flight: dict[int, str] = {}
        self._returned: dict[str, str] = {}
        self._sent: list[str] = []
        self._unroutable: dict[str, str] = {}
        self._nacked: list[str] = []

    def __len__(self) -> int:
        """How many letters are in flight."""
        return len(self._in_flight)

    def register(self, message_id: str) -> None:
        """Take the next tag for this letter. Before the write: its ack may arrive within it."""
        self._last_tag += 1
        self._in_flight[self._last_tag] = message_id

    def returned(self, message_id: str, why: str) -> None:
        """The broker found no queue for this letter; its ack is still to come."""
        self._returned[message_id] = why

    def settle(self, tag: int, multiple: bool, accepted: bool) -> None:
        """The broker settled `tag`, and with `multiple` every earlier one too."""
        tags = [tag]
        if multiple:
            tags = [earlier for earlier in self._in_flight if earlier <= tag]
        for settled in tags:
            message_id = self._in_flight.pop(settled, None)
            if message_id is None:
                continue
            self.settlements += 1
            why = self._returned.pop(message_id, None)
            if not accepted:
                self._nacked.append(message_id)
            elif why is not None:
                self._unroutable[message_id] = why
            else:
                self._sent.append(message_id)

    def report(self, why: str = "", code: int = 0) -> Report:
        """What was settled since the last report."""
        report = Report(self._sent, self._unroutable, self._nacked, why, code)
        self._sent, self._unroutable, self._nacked = [], {}, []
        return report
