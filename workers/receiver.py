"""Takes letters from the node's queue into the ledger: one durable commit per batch, settled at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..broker_config import routing
from ..broker_config.consumer import Consumer, Delivery
from ..models import wire
from ..models.crash import crash_point

if TYPE_CHECKING:
    from ..models.settings import Broker
    from .ledger import Ledger
    from .sync import Sync

log = logging.getLogger(__name__)

#: How often the consumer looks whether it still consumes while nothing arrives, in seconds.
IDLE_SECONDS = 2.0
#: The only broker user whose letters are obeyed.
MANAGER_USER = "relay"
#: The broker user of those who only ask.
ASK_USER = "ask"


class Receiver:
    """`news()` is called after a batch that brought something to do, `asked(question)` for each question."""

    def __init__(self, broker: Broker, node: str, ledger: Ledger, sync: Sync, news: Callable[[], None],
                 asked: Callable[[wire.Letter], None], on_state: Callable[[str], None]) -> None:  # fmt: skip
        self._node = node
        self._ledger = ledger
        self._sync = sync
        self._news = news
        self._asked = asked
        self.consumer = Consumer(broker, [routing.node_queue(node)], self.store, ready=ledger.probe,
                                 on_state=on_state, on_start=sync.say_hello, idle_seconds=IDLE_SECONDS)  # fmt: skip

    def store(self, batch: Sequence[Delivery]) -> list[Delivery]:
        """Writes a batch; gives what is no letter for this node, for the dead-letter queue."""
        crash_point("receiver.received")
        letters, dead = [], []
        for delivery in batch:
            try:
                letters.append(self._checked(delivery))
            except wire.Undecodable as error:
                log.warning("refused a message", extra={"action": "refuse", "why": str(error)})
                dead.append(delivery)
        wishes = [letter for letter in letters if letter.form == "apply"]
        if wishes:
            news = self._ledger.store(wishes, wishes[-1]["have"])
            crash_point("receiver.stored")
            if news:
                self._news()
        doings = [letter for letter in letters if letter.form == "action"]
        if doings and self._ledger.actions.store(doings):
            self._news()
        for letter in letters:
            if letter.form in ("welcome", "cover", "hail"):
                self._sync.hear(letter)
            elif letter.form == "pause":
                self._ledger.brake.put(letter["is_paused"])
                self._news()
            elif letter.form == "question":
                self._asked(letter)
        self._sync.look()
        return dead

    def _checked(self, delivery: Delivery) -> wire.Letter:
        letter = wire.decode(delivery.body)
        if delivery.user != (ASK_USER if letter.form == "question" else MANAGER_USER):
            raise wire.Undecodable(f"a {letter.form} sent by user {delivery.user!r}, not by the manager")
        if letter.node != self._node:
            raise wire.Undecodable(f"for node {letter.node!r}, not for {self._node!r}")
        return letter
