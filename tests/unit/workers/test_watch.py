"""What a node looks at unasked: cheap while nothing moves, giving way to what is urgent; and logs without secrets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onehost.workers.caretaker import Caretaker
from onehost.workers.drift import GaveWay
from onehost.workers.host.machine import rehearsal
from onehost.workers.host.program import Program, fingerprint
from onehost.workers.stopped import Stopped
from onehost.workers.watch import Watch

from .test_drift import HASH, ROLES, Node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    made.want(5)
    yield made
    made.ledger.close()


class Looks(Watch):
    """A watch of that node that is always due, and counts."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.news, self.looks = 0, 0

        def tell() -> None:
            self.news += 1

        def find(**more: Any) -> Any:
            self.looks += 1
            return original(**more)

        original = node.drift.find
        monkeypatch.setattr(node.drift, "find", find)
        super().__init__(node.ledger, node.host, node.drift, node.executor, 300.0, lambda: frozenset(ROLES), tell)

    def turn(self) -> None:
        self._check_at = 0.0
        self.look()


def test_files_that_have_not_moved_are_not_read_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Looks(node, monkeypatch)
    watch.turn()
    watch.turn()
    assert (watch.looks, watch.news, watch.said()["drifted"]) == (1, 0, 0)
    site = node.live("apache", "user5.5.conf")
    was = site.read_text()
    site.write_text("Listen 81\n")
    watch.turn()
    assert (watch.looks, watch.news, watch.said()["drifted"]) == (2, 1, 1)
    assert next(iter(watch.said()["drift"])).endswith("user5.5.conf")
    watch.turn()
    assert watch.news == 1, "the same again is no news"
    site.write_text(was)
    watch.turn()
    assert (watch.news, watch.said()["drift"]) == (2, {})


def test_a_look_gives_way_to_what_is_urgent(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GaveWay):
        node.drift.find(gives_way=lambda: True)
    monkeypatch.setattr(node.ledger, "urgent_open", lambda: 1)
    watch = Looks(node, monkeypatch)
    node.live("apache", "user5.5.conf").write_text("Listen 81\n")
    watch.turn()
    assert watch.said()["drifted"] == 0
    monkeypatch.setattr(node.ledger, "urgent_open", lambda: 0)
    watch.turn()
    assert watch.said()["drifted"] == 1


def test_a_change_of_mode_owner_or_link_shows_in_the_fingerprint(tmp_path: Path) -> None:
    machine, seen = rehearsal(tmp_path), set()
    (tmp_path / "etc/x").mkdir(parents=True)
    place = tmp_path / "etc/x/a"
    for act in (lambda: place.write_text("a"), lambda: place.chmod(0o600), lambda: place.write_text("b"),
                place.unlink, lambda: place.symlink_to("b"), lambda: (tmp_path / "etc/x/c").mkdir()):  # fmt: skip
        seen.add(fingerprint(machine, ["/etc/x", "/nowhere"]))
        act()
    assert len(seen | {fingerprint(machine, ["/etc/x", "/nowhere"])}) == 7


def test_a_log_is_its_end_filtered_bounded_and_without_secrets(tmp_path: Path) -> None:
    machine = rehearsal(tmp_path)
    log = tmp_path / "var/log/a.log"
    log.parent.mkdir(parents=True)
    log.write_text(
        "".join(f"line {n} ok\n" for n in range(2000)) + f"an ERROR of {HASH}\nerror: told-in-secret \x1b[0m\n"
    )
    program = Program(machine, "a", "a", (), ("/var/log/a*.log",))
    assert program.tail(2, "error", ["told-in-secret"]) == ["an ERROR of ***", "error: ***  [0m"]
    assert program.tail(3, "ok", [])[-1] == "line 1999 ok" and len(program.tail(9999, "", [])) == 500
    log.write_text("x" * 3_000_000 + "\n" + ("y" * 2000 + "\n") * 600)
    assert sum(map(len, program.tail(500, "", []))) <= 101_000
    assert {len(line) for line in program.tail(500, "", [])} == {500}


def test_what_was_stopped_is_remembered_in_the_ledger(node: Node) -> None:
    node.ledger.stopped.put("apache", "since then")
    assert Stopped(node.ledger._file).all == {"apache": "since then"}
    caretaker = Caretaker(node.ledger, node.host, lambda: frozenset(ROLES), {}, lambda: None)
    caretaker.remember()
    node.host.apache.serving = False
    node.host.start(frozenset(ROLES))
    assert not node.host.apache.serving and node.host.php.serving
    node.ledger.stopped.put("apache", "")
    assert Stopped(node.ledger._file).all == {}


def test_secrets_of_the_ledger_are_known_to_the_caretaker(node: Node) -> None:
    caretaker = Caretaker(node.ledger, node.host, lambda: frozenset(ROLES), {}, lambda: None)
    assert caretaker._secrets() == [HASH]
