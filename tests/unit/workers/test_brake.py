"""The brake on the node: no round while it is pulled, whatever has arrived; questions go on; a restart keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from onehost.workers.ledger import Ledger

from .test_executor import Node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.ledger.close()


def test_no_round_while_it_is_pulled_and_questions_are_answered(node: Node) -> None:
    node.ledger.brake.put(True)
    node.want("a", "b")
    answered: list[bool] = []
    node.executor.between_rounds(lambda: answered.append(node.executor.is_paused))
    node.run(lambda: answered == [True])
    assert node.executor.rounds == 0 and node.ledger.counts()["open"] == 2
    assert "serve" in node.events, "nothing urgent is open: it serves on"


def test_what_was_interrupted_waits_too(node: Node) -> None:
    node.want("a", "b")
    node.ledger.start(node.ledger.take())
    node.ledger.brake.put(True)
    node.restart()
    node.run(lambda: node.executor.is_paused and "ready" in node.events)
    assert node.executor.rounds == 0


def test_let_go_it_runs_what_has_arrived(node: Node) -> None:
    node.ledger.brake.put(True)
    node.want("a", "b")

    def let_go() -> None:
        node.ledger.brake.put(False)
        node.executor.wake()  # as the receiver does

    node.executor.between_rounds(let_go)
    node.run(lambda: node.ledger.counts()["open"] == 0)
    assert not node.executor.is_paused


@pytest.mark.parametrize("is_pulled", [True, False])
def test_it_holds_after_a_restart(tmp_path: Path, is_pulled: bool) -> None:
    path = tmp_path / "ledger.db"
    for put in (True, is_pulled):
        ledger = Ledger(path)
        ledger.brake.put(put)
        ledger.close()
    ledger = Ledger(path)
    assert ledger.brake.is_pulled is is_pulled
    ledger.close()
