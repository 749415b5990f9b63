"""Runs inside a machine of the lab: drives the host and the reconcilers in the order of a round, told by JSON lines."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

from onehost.models.errors import Blocked, HostError, Pending
from onehost.workers.entry import Entry
from onehost.workers.host import Host
from onehost.workers.reconcilers import reconcilers

VIEW: Any = None


def entry(given: dict[str, Any]) -> Entry:
    return Entry(**{**given, "roles": frozenset(given["roles"])})


class Driver:
    def __init__(self) -> None:
        self.host = Host.real()
        self.known = reconcilers()
        self.outcomes: dict[int, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}

    def start(self, roles: list[str]) -> dict[str, Any]:
        self.host.recover(frozenset(roles))
        self.host.start(frozenset(roles))
        return {}

    def compare(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        found = {}
        for one in map(entry, entries):
            try:
                found[str(one.id)] = self.known[one.noun].compare(one, self.host, VIEW)
            except HostError as error:
                found[str(one.id)] = {"error": error.what}
        return found

    def apply(self, entries: list[dict[str, Any]], die: str = "") -> dict[str, Any]:
        """A round. `die`: ends this process by SIGKILL before that phase."""
        self.outcomes, self.seconds = {}, {}
        began = time.monotonic()
        alive = [entry(one) for one in entries]
        for step in ("compare", "prepare", "stage"):
            self.each(step, alive)
        self.commit(alive, die)
        for step in ("finish", "verify"):
            self.each(step, alive)
        self.commit(alive, die)
        self.timed("settle", lambda: [d.settle() for d in self.host.daemons])
        for one in alive:
            self.outcomes.setdefault(one.id, {}).setdefault("outcome", "applied")
        self.seconds["all"] = time.monotonic() - began
        return {"entries": {str(k): v for k, v in self.outcomes.items()}, "seconds": self.seconds}

    def each(self, step: str, entries: list[Entry]) -> None:
        def act() -> None:
            for one in entries:
                if "outcome" in self.outcomes.setdefault(one.id, {}):
                    continue
                try:
                    said = getattr(self.known[one.noun], step)(one, self.host, VIEW)
                    if step == "compare":
                        self.outcomes[one.id]["difference"] = said
                except (HostError, OSError) as error:
                    self.fail(one.id, error)

        self.timed(step, act)

    def commit(self, entries: list[Entry], die: str) -> None:
        for daemon in self.host.daemons:
            while daemon.changed():
                try:
                    self.timed(f"validate {daemon.name}", daemon.validate)
                    break
                except Blocked as error:
                    for owner in daemon.changed():
                        self.fail(owner, error)
                except HostError as error:
                    culprit = int(error.culprit) if error.culprit else min(daemon.changed())
                    self.fail(culprit, error)
            if daemon.changed():
                self.timed(f"switch {daemon.name}", daemon.switch)
                if die == daemon.name:
                    os.kill(os.getpid(), signal.SIGKILL)
                self.timed(f"signal {daemon.name}", daemon.signal)

    def fail(self, owner: int, error: Exception) -> None:
        self.outcomes.setdefault(owner, {})["outcome"] = type(error).__name__
        self.outcomes[owner]["reason"] = str(error)
        if not isinstance(error, Pending):
            for daemon in self.host.daemons:
                daemon.restore(owner)

    def timed(self, phase: str, act: Any) -> None:
        began = time.monotonic()
        try:
            act()
        finally:
            self.seconds[phase] = round(self.seconds.get(phase, 0.0) + time.monotonic() - began, 4)

    def spoil(self, owner: int, name: str, daemon: str, text: str) -> dict[str, Any]:
        """Has the next render of one account's file hold a bad line, as no reconciler would."""
        part: Any = getattr(self.host, daemon)
        kind = {"apache": "Site", "php": "Pool"}[daemon]
        module = sys.modules[f"onehost.workers.host.{'site' if daemon == 'apache' else 'pool'}"]
        cls: Any = getattr(module, kind)
        original = cls.render

        def render(this: Any) -> Any:
            made, more = original(this), text.encode() if this.owner == owner else b""
            return {each: content + more for each, content in made.items()} if isinstance(made, dict) else made + more

        cls.render = render
        return {"part": part.name, "name": name}

    def call(self, path: str, given: list[Any]) -> Any:
        """Any method of the host, for tests: users.ids, director.connections …"""
        target: Any = self.host
        for word in path.split("."):
            target = getattr(target, word)
        return target(*given)


def main() -> None:
    driver = Driver()
    for line in sys.stdin:
        order = json.loads(line)
        what = order.pop("do")
        try:
            answer = getattr(driver, what)(**order)
        except Exception as error:
            answer = {"raised": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=sorted), flush=True)


if __name__ == "__main__":
    main()
