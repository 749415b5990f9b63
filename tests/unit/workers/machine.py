"""A machine in memory: daemons of the shape of workers/host/daemon.py and a reconciler over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from onehost.models.errors import Blocked, OnehostError, Permanent
from onehost.workers.entry import Difference, Entry


class Killed(BaseException):
    """The process ends here."""


@dataclass
class FakeDaemon:
    """Holds one text per owner; a text with "bad" in it fails the check, two with "clash" fail together."""

    name: str
    live: dict[int, str] = field(default_factory=dict)
    staged: dict[int, str] = field(default_factory=dict)
    #: What was live before this round; None: not switched yet.
    before: dict[int, str] | None = None
    #: What it has been told to run, at each signal.
    told: list[dict[int, str]] = field(default_factory=list)
    validations: int = 0
    names_culprits: bool = False
    broken_by_hand: str = ""
    signal_fault: OnehostError | OSError | None = None
    switch_fault: OSError | None = None

    def put(self, owner: int, text: str | None) -> None:
        if text is None:
            self.staged.pop(owner, None)
        else:
            self.staged[owner] = text

    def changed(self) -> frozenset[int]:
        owners = self.live.keys() | self.staged.keys()
        return frozenset(owner for owner in owners if self.live.get(owner) != self.staged.get(owner))

    def validate(self) -> None:
        self.validations += 1
        if self.broken_by_hand:
            raise Blocked(self.broken_by_hand)
        bad = [owner for owner, text in sorted(self.staged.items()) if "bad" in text]
        clash = [owner for owner, text in sorted(self.staged.items()) if "clash" in text]
        if bad or len(clash) > 1:
            culprit = (bad or clash)[-1]
            raise Permanent(f"syntax error in {self.staged[culprit]}",
                            culprit=str(culprit) if self.names_culprits else "")  # fmt: skip

    def switch(self) -> None:
        if self.switch_fault:
            raise self.switch_fault
        if self.before is None:
            self.before = dict(self.live)
        self.live = dict(self.staged)
        assert not any("bad" in text for text in self.live.values()), "a bad file went live"
        assert sum("clash" in text for text in self.live.values()) < 2, "two that clash went live"

    def signal(self) -> None:
        if self.signal_fault:
            fault, self.signal_fault = self.signal_fault, None
            raise fault
        self.told.append(dict(self.live))

    def restore(self, owner: int) -> None:
        self.put(owner, (self.live if self.before is None else self.before).get(owner))

    def settle(self) -> None:
        self.before = None

    def recover(self) -> None: ...
    def start(self) -> None: ...


@dataclass
class FakeHost:
    """Two daemons."""

    daemons: tuple[FakeDaemon, ...] = field(default_factory=lambda: (FakeDaemon("php"), FakeDaemon("apache")))


@dataclass
class FakeReconciler:
    """Stages the spec's text at every daemon. `act(step, entry)` may raise, or look."""

    noun: str = "account"
    act: Callable[[str, Entry], Any] = lambda step, entry: None
    calls: list[tuple[str, int]] = field(default_factory=list)

    def compare(self, entry: Entry, host: FakeHost, view: Any) -> Difference:
        self._call("compare", entry)
        is_, to_be = host.daemons[-1].live.get(entry.id), self._text(entry)
        return {} if is_ == to_be else {"site": "changed"}

    def prepare(self, entry: Entry, host: FakeHost, view: Any) -> None:
        self._call("prepare", entry)

    def stage(self, entry: Entry, host: FakeHost, view: Any) -> None:
        self._call("stage", entry)
        for daemon in host.daemons:
            text = self._text(entry)
            if text is not None and daemon.name != "apache":
                text = text.replace("bad", "fine").replace("clash", "fine")  # what one daemon refuses another takes
            daemon.put(entry.id, text)

    def finish(self, entry: Entry, host: FakeHost, view: Any) -> None:
        self._call("finish", entry)

    def verify(self, entry: Entry, host: FakeHost, view: Any) -> None:
        self._call("verify", entry)

    def _call(self, step: str, entry: Entry) -> None:
        self.calls.append((step, entry.id))
        self.act(step, entry)

    @staticmethod
    def _text(entry: Entry) -> str | None:
        return None if entry.spec is None else str(entry.spec["document_root"])
