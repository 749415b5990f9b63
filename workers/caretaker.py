"""Daemons of this node by order and on request: started, stopped, restarted; their state, log and own check."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..models.errors import Permanent
from .host.program import MOST_LINES, Program

if TYPE_CHECKING:
    from .host import Host
    from .ledger import Ledger

#: The shortest secret that is looked for in a log: a shorter one would take out words.
SHORTEST_SECRET = 8
#: Lines of a log, if nobody says how many.
LINES = 50
#: How long a daemon may take until its state is what was asked for, in seconds.
SETTLED_SECONDS = 5.0


class Caretaker:
    """Used on the executor's thread only, between rounds. `changed()` is called when a daemon is otherwise now."""

    def __init__(self, ledger: Ledger, host: Host, roles: Callable[[], frozenset[str]], blocked: Mapping[str, str],
                 changed: Callable[[], None]) -> None:  # fmt: skip
        self._ledger = ledger
        self._host = host
        self._roles = roles
        self._blocked = blocked
        self._changed = changed

    def remember(self) -> None:
        """At the start of the worker: what was stopped on purpose is not started."""
        self._host.stopped = frozenset(self._ledger.stopped.all)

    def do(self, verb: str, fields: Mapping[str, Any]) -> str:
        """Does it to a daemon, reads its state back and says it. Raises HostError with the daemon's own words."""
        program = self._program(fields)
        before = _pids(program)
        getattr(self, f"_{verb}")(program)
        self._changed()
        self._must_be(program, verb)
        word = "enabled" if self._comes(program) else "disabled"
        return f"{program.name}: {before} -> {_pids(program)}, {word}"

    def _start(self, program: Program) -> None:
        self._mark(program, "")
        program.boots(comes=True)
        program.must_pass()
        if program.part is not None:
            program.part.start()
        else:
            program.start()

    def _stop(self, program: Program) -> None:
        self._mark(program, f"since {datetime.now(UTC):%Y-%m-%d %H:%M}Z")
        if hasattr(program.part, "serving"):
            program.part.serving = False
        if hasattr(program.part, "rest"):
            program.part.rest()
        program.stop()
        program.boots(comes=False)

    def _restart(self, program: Program) -> None:
        program.restart()
        self._mark(program, "")

    def _reload(self, program: Program) -> None:
        if not any(program.pids().values()):
            raise Permanent(f"{program.name} does not run")
        program.reload()

    def _enable(self, program: Program) -> None:
        self._mark(program, "")
        program.boots(comes=True)

    def _comes(self, program: Program) -> bool:
        """Whether it comes with the next boot."""
        return program.enabled() and program.name not in self._ledger.stopped.all

    def _mark(self, program: Program, words: str) -> None:
        self._ledger.stopped.put(program.name, words)
        self.remember()

    def _must_be(self, program: Program, verb: str) -> None:
        """Raises Permanent if the state that is read back is not the one that was asked for."""
        if verb == "stop" and not _until(lambda: not any(program.pids().values())):
            raise Permanent(f"{program.name} was stopped and runs again: {_pids(program)}")
        if verb in ("start", "restart", "reload") and not _until(program.runs):
            raise Permanent(f"{program.name} does not run after it: {_pids(program)}")

    # ---- questions

    def asked(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Answers list, status, log or test. Raises Permanent for what it does not know."""
        what = payload.get("what")
        if what == "list":
            return {"daemons": [self._state(each) for each in self._host.programs.values() if each.installed]}
        program = self._program(payload)
        if what == "status":
            return self._state(program)
        if what == "test":
            words = program.tests()
            return {"daemon": program.name, "passes": not words, "words": words or "it takes its files"}
        if what == "log":
            lines = min(int(payload.get("lines") or LINES), MOST_LINES)
            return {"daemon": program.name,
                    "lines": program.tail(lines, str(payload.get("only") or ""), self._secrets())}  # fmt: skip
        raise Permanent(f"needs a worker that knows the question {what!r}")

    def _state(self, program: Program) -> dict[str, Any]:
        pids = program.pids()
        state = (
            "running" if pids and all(pids.values()) else "partly" if any(pids.values()) else "idle" if not pids else ""
        )
        stopped = self._ledger.stopped.all.get(program.name, "")
        return {
            "daemon": program.name, "state": state or ("stopped" if stopped else "not running"), "pids": pids,
            "enabled": self._comes(program), "needed": program in self._host.needed_programs(self._roles()),
            "stopped": stopped, "blocked": self._blocked.get(program.key, ""),
        }  # fmt: skip

    def _program(self, fields: Mapping[str, Any]) -> Program:
        program = self._host.programs.get(str(fields.get("daemon")))
        if program is None or not program.installed:
            there = ", ".join(each.name for each in self._host.programs.values() if each.installed)
            raise Permanent(f"this node has no daemon {fields.get('daemon')!r}; it has {there}")
        return program

    def _secrets(self) -> list[str]:
        """What this node was told in secret."""
        from ..models import nouns

        found = []
        for noun in nouns.nouns().values():
            for entry in self._ledger.entries(noun.name) if noun.secret_fields else []:
                values = [(entry.spec or {}).get(name) for name in noun.secret_fields]
                found += [each for each in values if isinstance(each, str) and len(each) >= SHORTEST_SECRET]
        return found


def _pids(program: Program) -> str:
    """Which processes there are, in words."""
    running = [f"{name} {pid}" for name, pid in program.pids().items() if pid]
    return f"running ({', '.join(running)})" if running else "not running"


def _until(true: Callable[[], bool]) -> bool:
    """Whether it becomes true within a few seconds: a daemon that begins anew has no process for a moment."""
    until = time.monotonic() + SETTLED_SECONDS
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)  # an init tells nobody when a daemon has its process
    return True
