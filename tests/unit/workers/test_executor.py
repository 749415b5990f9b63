"""Rounds: a bad resource fails alone, a broken daemon blames nobody, each is signalled once, a kill is survived."""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onehost.models.errors import Pending, Permanent, Temporary
from onehost.workers.entry import Entry
from onehost.workers.executor import Executor
from onehost.workers.ledger import Ledger

from .conftest import letter
from .machine import FakeDaemon, FakeHost, FakeReconciler, Killed


class Node:
    """One node: a ledger, a machine in memory, an executor that may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.db"
        self.host, self.reconciler = FakeHost(), FakeReconciler()
        self.ledger = Ledger(self.path)
        self.start()

    def start(self) -> None:
        self.synced, self.stop, self.events = threading.Event(), threading.Event(), list[str]()
        self.executor = Executor(
            self.ledger, self.host, {"account": self.reconciler}, self.synced,  # type: ignore[arg-type]
            reported=lambda: self.events.append("reported"), ready=lambda: self.events.append("ready"),
            serve=lambda: self.events.append("serve"),
        )  # fmt: skip

    def restart(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.path)
        for daemon in self.host.daemons:
            daemon.staged, daemon.before = dict(daemon.live), None
        self.start()

    def want(self, *texts: str | None, first: int = 1, generation: int = 1) -> None:
        self.ledger.store([letter(first + n, generation, spec=None if text is None else {"document_root": text})
                           for n, text in enumerate(texts)])  # fmt: skip

    def round(self) -> dict[int, tuple[str, str]]:
        results = self.executor.round(self.ledger.take())
        return {result.entry.id: (result.outcome, result.reason) for result in results}

    def run(self, until: Callable[[], bool] = lambda: True, seconds: float = 5.0) -> None:
        """Runs the loop until something is true."""
        thread = threading.Thread(target=self.executor.run, args=(self.stop,))
        thread.start()
        self.synced.set()
        self.executor.wake()
        end = time.monotonic() + seconds
        while not until() and time.monotonic() < end:
            time.sleep(0.01)
        self.stop.set()
        self.executor.wake()
        thread.join(5)
        assert not thread.is_alive() and until()

    def acks(self) -> list[dict[str, Any]]:
        return [json.loads(row["body"]) for row in self.ledger.outgoing.unpublished()]

    @property
    def php(self) -> FakeDaemon:
        return self.host.daemons[0]

    @property
    def apache(self) -> FakeDaemon:
        return self.host.daemons[1]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.ledger.close()


def outcomes(results: dict[int, tuple[str, str]]) -> dict[int, str]:
    return {owner: outcome for owner, (outcome, _) in results.items()}


def test_a_round_of_many_signals_each_daemon_once(node: Node) -> None:
    node.want(*(f"site{n}" for n in range(50)))
    assert set(outcomes(node.round()).values()) == {"applied"}
    for daemon in node.host.daemons:
        assert (len(daemon.told), daemon.validations, len(daemon.live)) == (1, 1, 50)
    assert node.executor.signals == {"php": 1, "apache": 1}
    assert len(node.acks()) == 50 and node.events == ["reported"]
    assert node.acks()[0]["difference"] == {"site": "changed"} and node.acks()[0]["seconds"]["node"] > 0


def test_nothing_changed_is_nothing_told(node: Node) -> None:
    node.want("a")
    node.round()
    node.want("a", generation=2)
    assert outcomes(node.round()) == {1: "applied"}
    assert len(node.apache.told) == 1 and node.apache.validations == 1
    assert node.acks()[1]["difference"] == {}


def test_the_culprit_a_daemon_names_fails_alone(node: Node) -> None:
    node.apache.names_culprits = True
    node.want("a", "bad b", "c", "bad d")
    assert node.round() == {
        1: ("applied", ""), 2: ("failed", "syntax error in bad b"), 3: ("applied", ""),
        4: ("failed", "syntax error in bad d"),
    }  # fmt: skip
    assert node.apache.live.keys() == node.php.live.keys() == {1, 3}, "its files are nowhere, at no daemon"
    assert len(node.apache.told) == 1 and node.apache.validations == 3


@pytest.mark.parametrize("bad", [[1], [16], [7], [1, 16], [7, 8, 9], list(range(1, 17))])
def test_a_culprit_nobody_names_is_found_by_halving(node: Node, bad: list[int]) -> None:
    node.want(*("bad" if n in bad else f"site{n}" for n in range(1, 17)))
    results = outcomes(node.round())
    assert len(results) == 16
    assert sorted(owner for owner, outcome in results.items() if outcome == "failed") == bad
    assert node.apache.live.keys() == set(range(1, 17)) - set(bad)
    assert len(node.apache.told) <= 1
    if len(bad) == 1:
        assert node.apache.validations <= 10, "halving, not one by one"


def test_two_that_only_fail_together_never_go_live_together(node: Node) -> None:
    node.want("clash 1", "b", "c", "clash 4")
    assert outcomes(node.round()) == {1: "applied", 2: "applied", 3: "applied", 4: "failed"}
    assert node.apache.live.keys() == {1, 2, 3}


def test_the_last_good_files_stay_when_the_new_ones_are_bad(node: Node) -> None:
    node.want("good")
    node.round()
    node.want("bad", generation=2)
    assert node.round()[1][0] == "failed"
    assert node.apache.live == {1: "good"} == node.php.live
    node.want(None, generation=3)
    assert node.round()[1] == ("applied", "") and node.apache.live == {}


def test_a_daemon_broken_by_hand_blames_nobody(node: Node) -> None:
    node.apache.broken_by_hand = "/etc/apache2/apache2.conf:7"
    node.want("a", "b")
    results = node.round()
    assert results[1] == ("retrying", "blocked: /etc/apache2/apache2.conf:7") and results[2][0] == "retrying"
    assert node.executor.blocked == {"apache": "/etc/apache2/apache2.conf:7"}
    assert node.apache.told == [] and node.apache.live == {} and node.ledger.counts()["failed"] == 0
    assert node.php.told == [] and node.php.live == {}, "nothing is made at one daemon that another holds up"
    assert node.ledger.take() == [] and 2 < (node.ledger.due_seconds() or 0) <= 3
    assert {ack["outcome"] for ack in node.acks()} == {"retrying"}


def test_a_blocked_daemon_that_is_mended_takes_all(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onehost.workers.round.BLOCKED_SECONDS", 0.05)
    node.apache.broken_by_hand = "x:1"
    node.want("a")
    node.round()
    node.apache.broken_by_hand = ""
    node.run(lambda: node.ledger.counts()["open"] == 0)
    assert node.executor.blocked == {} and node.apache.live == {1: "a"}


def test_what_cannot_be_verified_is_put_back_and_signalled_again(node: Node) -> None:
    node.want("old a", "old b")
    node.round()

    def refuse(step: str, entry: Any) -> None:
        if (step, entry.id) == ("verify", 2):
            assert node.apache.live[2] == "new b", "it is the live one that is asked"
            raise Permanent("answers 500")

    node.reconciler.act = refuse
    node.want("new a", "new b", generation=2)
    assert node.round() == {1: ("applied", ""), 2: ("failed", "answers 500")}
    assert node.apache.live == {1: "new a", 2: "old b"} == node.apache.told[-1]
    assert len(node.apache.told) == 3 and node.executor.signals["apache"] == 3
    assert node.acks()[-1]["difference"] == {"site": "changed"}


@pytest.mark.parametrize("step", ["compare", "prepare", "stage", "finish", "verify"])
@pytest.mark.parametrize("fault", [Permanent("no"), RuntimeError("a bug of ours"), NotADirectoryError("web")])
def test_a_step_that_fails_ends_its_entry_alone(node: Node, step: str, fault: Exception) -> None:
    def act(at: str, entry: Any) -> None:
        if (at, entry.id) == (step, 2):
            raise fault

    node.reconciler.act = act
    node.want("a", "b", "c")
    results = node.round()
    assert outcomes(results) == {1: "applied", 2: "failed", 3: "applied"} and results[2][1].endswith(str(fault))
    assert node.apache.live.keys() == {1, 3}


@pytest.mark.parametrize("fault", [Temporary("disk full"), OSError(errno.ENOSPC, "disk full")])
def test_what_may_get_better_is_tried_again_ever_later(node: Node, fault: Exception) -> None:
    node.reconciler.act = lambda step, entry: (_ for _ in ()).throw(fault) if step == "prepare" else None
    node.want("a")
    waits = []
    for _ in range(8):
        node.ledger._file.write("UPDATE entry SET not_before_at = 0 WHERE id = ?", [(1,)])
        assert outcomes(node.round()) == {1: "retrying"}
        waits.append(round(node.ledger.due_seconds() or 0))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(node.acks()) == 1, "told once"
    node.reconciler.act = lambda step, entry: None
    node.ledger._file.write("UPDATE entry SET not_before_at = 0 WHERE id = ?", [(1,)])
    assert outcomes(node.round()) == {1: "applied"}


def test_a_drain_that_is_not_over_is_no_failure_and_nothing_is_put_back(node: Node) -> None:
    left = [2, 1, 0]

    def act(step: str, entry: Any) -> None:
        if step == "verify" and (count := left.pop(0)):
            raise Pending(f"{count} connections left")

    node.want("weight 100")
    node.round()
    node.reconciler.act = act
    node.want("weight 0", generation=2)
    assert node.round() == {1: ("retrying", "2 connections left")}
    assert node.apache.live == {1: "weight 0"} and len(node.apache.told) == 2
    node.run(lambda: node.ledger.counts()["open"] == 0)
    assert node.apache.live == {1: "weight 0"} and len(node.apache.told) == 2
    assert [ack["outcome"] for ack in node.acks()] == ["applied", "retrying", "retrying", "applied"]
    assert node.acks()[-1]["difference"] == {"site": "changed"}, "what the first look saw"


def test_a_signal_that_fails_is_the_fault_of_those_it_was_for(node: Node) -> None:
    node.want("old")
    node.round()
    node.apache.signal_fault = Temporary("does not answer")
    node.want("new", generation=2)
    node.want("other", first=2)
    assert set(node.round().values()) == {("retrying", "does not answer")}
    assert node.apache.live == {1: "old"} == node.apache.told[-1] == node.php.live


def test_a_full_disk_at_the_switch_kills_nobody(node: Node) -> None:
    node.apache.switch_fault = OSError(errno.ENOSPC, "No space left on device")
    node.want("a")
    assert node.round()[1][0] == "retrying"
    assert node.apache.live == {} == node.php.live and node.apache.told == []


def test_a_noun_it_has_no_hands_for(node: Node) -> None:
    node.ledger.store([letter(1, noun="virtual_service"), letter(2, noun="zeppelin"), letter(3, version=[9, 0])])
    results = node.round()
    assert set(outcomes(results).values()) == {"failed"}
    assert all(reason.startswith("needs a worker that knows") for _, reason in results.values())


def test_no_round_before_this_start_is_synced(node: Node) -> None:
    node.want("a")
    thread = threading.Thread(target=node.executor.run, args=(node.stop,))
    thread.start()
    for _ in range(3):
        node.executor.wake()
        time.sleep(0.03)
    assert node.events == [] and node.reconciler.calls == []
    node.synced.set()
    node.executor.wake()
    until = time.monotonic() + 5
    while node.ledger.counts()["open"] and time.monotonic() < until:
        time.sleep(0.01)
    node.stop.set()
    node.executor.wake()
    thread.join(2)
    assert node.events == ["ready", "reported", "serve"]


def test_a_node_serves_only_when_removals_and_suspensions_are_applied(node: Node) -> None:
    tries = [Temporary("not yet"), None]

    def act(step: str, entry: Any) -> None:
        if step == "prepare" and entry.spec is None and (fault := tries.pop(0)):
            raise fault

    node.reconciler.act = act
    node.want("a", None)
    node.run(lambda: "serve" in node.events)
    assert node.events == ["ready", "reported", "reported", "serve"]
    assert tries == []


def test_a_stop_ends_the_loop_at_once(node: Node) -> None:
    began = time.monotonic()
    node.run()
    assert time.monotonic() - began < 0.5


def test_an_idle_loop_does_not_spin_behind_an_older_id(node: Node) -> None:
    node.ledger.store([letter(1, 1, spec=None, name="alice"), letter(2, 1, spec={"document_root": "a"}, name="alice")])
    node.reconciler.act = lambda step, entry: (_ for _ in ()).throw(Temporary("no")) if step == "prepare" else None
    taken: list[int] = []
    take = node.ledger.take
    node.ledger.take = lambda *more, **named: taken.append(1) or take(*more, **named)  # type: ignore[method-assign,func-returns-value]
    node.run(lambda: len(node.acks()) == 1 and not time.sleep(0.3))
    assert len(taken) < 10


# ---- the worker dies


@pytest.mark.parametrize("poison", range(1, 9))
@pytest.mark.parametrize("step", ["compare", "prepare", "finish"])
def test_what_kills_the_worker_is_found_and_fails_alone(node: Node, step: str, poison: int) -> None:
    def act(at: str, entry: Any) -> None:
        if (at, entry.id) == (step, poison):
            raise Killed

    node.reconciler.act = act
    node.want(*(f"site{n}" for n in range(1, 9)))
    lives = live(node)
    assert lives <= 10
    assert {ack["id"]: ack["outcome"] for ack in node.acks()} == {
        n: "failed" if n == poison else "applied" for n in range(1, 9)
    }
    (failed,) = [ack for ack in node.acks() if ack["outcome"] == "failed"]
    assert failed["reason"] == "worker died 3 times while it was applying this"
    assert all(ack["difference"] == {"site": "changed"} for ack in node.acks() if ack["outcome"] == "applied")
    assert node.ledger.interrupted() == []


def test_several_that_kill_are_all_found(node: Node) -> None:
    def act(at: str, entry: Any) -> None:
        if at == "prepare" and entry.id in (1, 2, 7):
            raise Killed

    node.reconciler.act = act
    node.want(*(f"site{n}" for n in range(1, 9)))
    assert live(node) <= 25
    assert {ack["id"] for ack in node.acks() if ack["outcome"] == "failed"} == {1, 2, 7}


def test_a_mended_generation_is_tried_again(node: Node) -> None:
    def act(at: str, entry: Any) -> None:
        if entry.spec["document_root"] == "x":
            raise Killed

    node.reconciler.act = act
    node.want("x")
    live(node)
    node.want("y", generation=2)
    live(node)
    assert [ack["outcome"] for ack in node.acks()] == ["failed", "applied"]


def test_one_kill_in_the_middle_loses_nothing(node: Node) -> None:
    killed: list[bool] = []

    def act(at: str, entry: Any) -> None:
        if (at, entry.id) == ("finish", 3) and not killed:
            killed.append(True)
            raise Killed

    node.reconciler.act = act
    node.want(*(f"site{n}" for n in range(1, 6)))
    assert live(node) == 2
    assert {ack["id"]: ack["outcome"] for ack in node.acks()} == dict.fromkeys(range(1, 6), "applied")
    assert all(ack["difference"] for ack in node.acks()), "the second look saw nothing, the first one is reported"


def live(node: Node, most: int = 40) -> int:
    """Starts the worker again until it has nothing to do. Gives how many lives that took."""
    for lives in range(1, most):
        node.synced.set()
        try:
            threading_stop = _StopWhenIdle(node)
            node.executor.run(threading_stop)  # type: ignore[arg-type]
        except Killed:
            node.restart()
        else:
            return lives
    raise AssertionError("it never came to rest")


class _StopWhenIdle:
    """A stop event that is set once nothing is open."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def is_set(self) -> bool:
        return self._node.ledger.counts()["open"] == 0


class Hurrying(FakeReconciler):
    def hurry(self, entry: Entry, host: FakeHost) -> None:
        self._call("hurry", entry)


def suspension(id_: int, generation: int) -> dict[str, Any]:
    return letter(id_, generation, spec={"document_root": f"notice{id_}", "suspended": True})


def test_a_suspension_does_not_wait_for_the_end_of_a_round(node: Node) -> None:
    node.reconciler = Hurrying()
    node.start()
    node.want("one", "two", "three")
    node.round()
    node.want("new", first=10)

    def arrives(step: str, entry: Entry) -> None:
        if (step, entry.id) == ("stage", 10) and not node.ledger.urgent_open():
            node.ledger.store([suspension(2, 2)])
            node.executor.wake()

    node.reconciler.act = arrives
    node.reconciler.calls.clear()
    assert outcomes(node.round()) == {10: "applied"}
    assert [each for each in node.reconciler.calls if each[0] in ("hurry", "verify")] == [("hurry", 2), ("verify", 10)]
    assert node.apache.live[2] == "two", "the rest is done by its own round"
    assert outcomes(node.round()) == {2: "applied"}
    assert node.apache.live[2] == "notice2" and node.acks()[-1]["difference"] == {"site": "changed"}
    assert node.reconciler.calls.count(("hurry", 2)) == 1


@pytest.mark.parametrize("error", [Permanent("two is held here by id 1, an orphan"), KeyError("a bug")])
def test_what_cannot_be_compared_is_not_hurried_and_kills_nobody(node: Node, error: Exception) -> None:
    """Its own round says what is wrong with it."""

    class Spoilt(Hurrying):
        is_spoilt = False

        def compare(self, entry: Entry, host: FakeHost, view: Any) -> Any:
            if self.is_spoilt and entry.id == 2:
                raise error
            return super().compare(entry, host, view)

    node.reconciler = Spoilt()
    node.start()
    node.want("one", "two")
    node.round()
    node.reconciler.is_spoilt = True
    node.ledger.store([suspension(2, 2)])
    node.want("new", "newer", first=10)
    node.run(lambda: node.ledger.counts()["open"] == 0)
    assert ("hurry", 2) not in node.reconciler.calls
    assert {ack["id"]: ack["outcome"] for ack in node.acks()[-3:]} == {2: "failed", 10: "applied", 11: "applied"}


def test_what_another_hand_changed_is_not_hurried(node: Node) -> None:
    node.reconciler = Hurrying()
    node.start()
    node.want("one", "two")
    node.round()
    node.apache.live[2] = node.apache.staged[2] = "by hand"
    node.want("new", first=10)

    def arrives(step: str, entry: Entry) -> None:
        if (step, entry.id) == ("stage", 10):
            node.ledger.store([suspension(2, 2)])
            node.executor.wake()

    node.reconciler.act = arrives
    assert outcomes(node.round()) == {10: "applied"}
    assert ("hurry", 2) not in node.reconciler.calls
