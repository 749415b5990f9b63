"""`onehost status`: one sentence on how the cluster is, and its nodes. Exit code 0 well, 1 degraded, 2 bad."""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ...models import nouns
from ...models.errors import Invalid, Unreachable
from .. import verdict as judgement
from ..hook import MEMORY, Hook
from .groups import Command
from .node import check_place
from .output import as_json, emit, plain, table
from .session import Session, current

#: With --follow: longest and shortest time between two looks, in seconds.
LOOK_SECONDS, REST_SECONDS = 5.0, 1.0


@dataclass(frozen=True)
class Found:
    """One look: the verdict, and the numbers it was made of (none if the store does not answer)."""

    verdict: judgement.Verdict
    status: Mapping[str, Any]
    at: datetime

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        return self.verdict.sentence(self.status)

    def data(self) -> dict[str, Any]:
        """The verdict and its numbers, for programs."""
        reasons = [asdict(reason) for reason in self.verdict.reasons]
        return {"level": self.verdict.word, "verdict": self.sentence, "reasons": reasons, "at": self.at, **self.status}


def look(session: Session, *, broker: bool) -> Found:
    """Asks the store, supervisor and (if told so) the broker, and judges. Bounded in time, but for the store's own."""
    from ...broker_config.levels import levels
    from ..supervised import processes

    config = session.settings
    beside = {"broker": levels(config) if broker else None, "processes": processes(config)}
    try:
        status = session.client.status() | beside
    except Unreachable as error:
        hint = f" (try: {error.hint})" if error.hint else ""
        return Found(judgement.unreachable(f"{error.what}{hint}"), beside, datetime.now(UTC))
    now = datetime.now(UTC)
    return Found(judgement.judge(status, now), status, now)


def _status(no_broker: bool, follow: bool, hook: str | None, state: Path) -> int:
    session = current()
    told = _hook(hook, state) if hook else None
    if follow:
        return _follow(session, told, broker=not no_broker)
    found = look(session, broker=not no_broker)
    emit(session, found.data(), lambda: _write(session, found))
    _tell(told, found)
    return found.verdict.level


def _hook(command: str, memory: Path) -> Hook:
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise Invalid(f"--hook {command}: {error}") from error
    if not words:
        raise Invalid("--hook names no command", hint="--hook /usr/local/bin/page-somebody")
    check_place(memory)
    return Hook(words, memory)


def _tell(hook: Hook | None, found: Found) -> None:
    if hook and (why := hook.tell(found.verdict, json.dumps(as_json(found.data()), ensure_ascii=False).encode())):
        click.echo(f"hook: {why}; it will be told again", err=True)


def _follow(session: Session, hook: Hook | None, *, broker: bool) -> int:
    """Says it once more whenever level or causes change, until Ctrl-C."""
    said: tuple[int, list[str]] | None = None
    watch = _Watch(session)
    try:
        while True:
            found = look(session, broker=broker)
            if said != (found.verdict.level, found.verdict.causes):
                said = (found.verdict.level, found.verdict.causes)
                _say(session, found)
            _tell(hook, found)
            watch.wait()
    except KeyboardInterrupt:
        return said[0] if said else 0
    finally:
        watch.close()


def _say(session: Session, found: Found) -> None:
    """One line, so that a program can read it too."""
    if session.output == "table":
        click.echo(f"{found.at:%H:%M:%S}Z {found.sentence}")
    else:
        click.echo(json.dumps(found.data(), default=plain, ensure_ascii=False))


class _Watch:
    """Waits for the bell of jobs, but neither long nor without a rest; by the clock alone while the store is away."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._bell: Any = None
        self._rest = threading.Event()
        self._waited_at = time.monotonic()

    def wait(self) -> None:
        """Returns when there may be news."""
        from ...models.store import bells

        self._rest.wait(max(0.0, self._waited_at + REST_SECONDS - time.monotonic()))
        try:
            self._bell = self._bell or bells.Listener(self._session.client.engine, bells.JOBS)
            self._bell.wait(LOOK_SECONDS)
        except Exception:  # psycopg and SQLAlchemy each have a tree of their own; the next look says what it is
            self.close()
            self._rest.wait(LOOK_SECONDS)
        self._waited_at = time.monotonic()

    def close(self) -> None:
        """Lets go of the bell."""
        bell, self._bell = self._bell, None
        if bell:
            bell.close()


def _write(session: Session, found: Found) -> None:
    click.echo(found.sentence)
    status, now = found.status, found.at
    if "nodes" not in status:
        return
    click.echo()
    broker = status["broker"]
    queues = broker["queues"] if broker else {}
    columns = ("node", "state", "roles", "traffic", "open", "queue", "waits", "synced", "version", "beat")
    rows = [
        (n["name"], n["state"], n["roles"], n["traffic"], n["open"], _depth(queues, n["name"]),
         judgement.ago(now - n["oldest"]["since_at"]) if n["oldest"] else None, n["beat"].get("synced"),
         n["beat"].get("version"), f"{judgement.ago(now - n['seen_at'])} ago" if n["seen_at"] else "never")
        for n in status["nodes"]
    ]  # fmt: skip
    table(session, columns, rows, "no nodes")
    counts = ", ".join(_count(noun, count) for noun, count in status["resources"].items())
    click.echo(f"\n{counts}; jobs running {status['jobs_running']}, held {status['jobs_held']}, "
               f"placements open {status['placements_open']}, failed {status['placements_failed']}; "
               f"dead letters {status['dead_letters']}; events not sealed {status['unsealed']}")  # fmt: skip


def _depth(queues: Mapping[str, Any], node: str) -> int | None:
    from ...broker_config.routing import node_queue

    queue = queues.get(node_queue(node))
    return int(queue["messages"]) if queue else None


def _count(noun: str, count: int) -> str:
    return f"{count} {noun if count == 1 else nouns.noun(noun).plural}".replace("_", " ")


_STATE = click.Path(path_type=Path, dir_okay=False)
status = Command(
    "status",
    callback=_status,
    params=[
        click.Option(["--no-broker"], is_flag=True, help="Do not ask the broker."),
        click.Option(["--follow"], is_flag=True, help="Go on, and say it again when it changes; until Ctrl-C."),
        click.Option(["--hook"], metavar="COMMAND", help="Run this when the verdict changes; it reads it as JSON."),
        click.Option(["--state"], type=_STATE, default=MEMORY, show_default=True, metavar="FILE",
                     help="Where --hook remembers what it was told last."),
    ],
    help="One sentence on how the cluster is, and its nodes. Exit code: 0 well, 1 degraded, 2 bad.",
    example="status --hook '/usr/local/bin/page-me --team web'",
)  # fmt: skip
