"""Answers questions: what would change on this node if a resource were wanted so. Looks, and changes nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..models import wire
from .entry import Entry

if TYPE_CHECKING:
    from .executor import Executor
    from .host import Host
    from .ledger import Ledger
    from .reconcilers import Reconciler
    from .reporter import Reporter

log = logging.getLogger(__name__)

#: A question that had to wait longer than this for a round, in seconds, is not answered: nobody listens any more.
STALE_SECONDS = 5.0


class Respondent:
    """Takes questions from the receiver, looks between rounds, answers through the reporter."""

    def __init__(self, ledger: Ledger, host: Host, reconcilers: Mapping[str, Reconciler], executor: Executor,
                 reporter: Reporter) -> None:  # fmt: skip
        self._ledger = ledger
        self._host = host
        self._reconcilers = reconcilers
        self._executor = executor
        self._reporter = reporter

    def ask(self, question: wire.Letter) -> None:
        """Queues a question."""
        asked_at = time.monotonic()
        self._executor.between_rounds(lambda: self._answer(question, asked_at))

    def all(self, noun: str) -> list[Entry]:
        """What a reconciler may look at: other resources of this node."""
        return self._ledger.entries(noun)

    def _answer(self, question: wire.Letter, asked_at: float) -> None:
        if time.monotonic() - asked_at > STALE_SECONDS:
            return
        body: dict[str, Any] = {"question": question["question"]}
        try:
            reconciler = self._reconcilers[question["noun"]]
            difference = reconciler.compare(self._entry(question), self._host, self)
            body["difference"] = {wire.clean(k, wire.MAX_WORD): wire.clean(v, 200) for k, v in difference.items()}
        except Exception as error:  # a dry run must not end the worker, whatever it found
            log.info("cannot answer", extra={"action": "answer", "why": f"{type(error).__name__}: {error}"})
            body["reason"] = wire.clean(str(error) or type(error).__name__, wire.MAX_TEXT)
        self._reporter.answer(question["asker"], body)

    def _entry(self, question: wire.Letter) -> Entry:
        """As if it had arrived: the spec asked about, beside what this node applied last."""
        known = next((each for each in self._ledger.entries(question["noun"]) if each.id == question["id"]), None)
        spec = None if question["payload"] is None else question["payload"] | question["secrets"]
        return Entry(
            id=question["id"], noun=question["noun"], name=question["name"], generation=question["generation"],
            spec=spec, applied_spec=known.applied_spec if known else None, applied=known.applied if known else 0,
            roles=frozenset(question["roles"]), replaces=question["replaces"],
        )  # fmt: skip
