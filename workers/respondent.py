"""Answers questions: what would change, what differs, how a daemon is. Looks, and changes nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
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

#: Answers to what is no dry run, by what is asked: from what is said beside it to what is told.
Answers = Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]


class Respondent:
    """Takes questions from the receiver, looks between rounds, answers through the reporter."""

    def __init__(self, ledger: Ledger, host: Host, reconcilers: Mapping[str, Reconciler], executor: Executor,
                 reporter: Reporter, answers: Answers) -> None:  # fmt: skip
        self._ledger = ledger
        self._host = host
        self._reconcilers = reconcilers
        self._executor = executor
        self._reporter = reporter
        self._answers = answers

    def ask(self, question: wire.Letter) -> None:
        """Queues a question."""
        asked_at = time.monotonic()
        self._executor.between_rounds(lambda: self._answer(question, asked_at))

    def all(self, noun: str) -> list[Entry]:
        """What a reconciler may look at: other resources of this node."""
        return self._ledger.entries(noun)

    def _answer(self, question: wire.Letter, asked_at: float) -> None:
        if time.monotonic() - asked_at > question["seconds"]:
            return  # it had to wait for a round, and nobody listens any more
        body: dict[str, Any] = {"question": question["question"]}
        try:
            if question["asks"] == "dry-run":
                body["difference"] = self._compared(question)
            elif answer := self._answers.get(question["asks"]):
                body["told"] = answer(question["payload"] or {})
            else:
                body["reason"] = f"needs a worker that knows the question {question['asks']}"
        except Exception as error:  # a question must not end the worker, whatever it found
            log.info("cannot answer", extra={"action": "answer", "why": f"{type(error).__name__}: {error}"})
            body["reason"] = wire.clean(str(error) or type(error).__name__, wire.MAX_TEXT)
        self._reporter.answer(question["asker"], body)

    def _compared(self, question: wire.Letter) -> dict[str, str]:
        difference = self._reconcilers[question["noun"]].compare(self._entry(question), self._host, self)
        return {wire.clean(k, wire.MAX_WORD): wire.clean(v, 200) for k, v in difference.items()}

    def _entry(self, question: wire.Letter) -> Entry:
        """As if it had arrived: the spec asked about, beside what this node applied last."""
        known = next((each for each in self._ledger.entries(question["noun"]) if each.id == question["id"]), None)
        spec = None if question["payload"] is None else question["payload"] | question["secrets"]
        return Entry(
            id=question["id"], noun=question["noun"], name=question["name"], generation=question["generation"],
            spec=spec, applied_spec=known.applied_spec if known else None, applied=known.applied if known else 0,
            roles=frozenset(question["roles"]), replaces=question["replaces"],
        )  # fmt: skip
