"""Watches a job until its nodes are done: live lines on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol

import click

from ...models import states
from .failures import STOPPED
from .output import COLORS, cell, console
from .session import Session
from .writing import counted

#: Times a second that the live lines are drawn.
FRAMES = 8
#: States of a job after which somebody has to look at it.
BAD = (states.Job.FAILED, states.Job.PARTIAL, states.Job.HALTED)
TIMEOUT, CONFLICT, FAILED = 6, 5, 1
_OPEN = (states.Target.WAITING, states.Target.SENT)


class View(Protocol):
    """Shows a job while it goes on."""

    def __enter__(self) -> View: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None: ...  # fmt: skip

    def __call__(self, job: Mapping[str, Any]) -> None: ...


def follow(session: Session, job_id: int, seconds: float, *, everyone: bool = False) -> dict[str, Any]:
    """The job, once it is over for every live node. Raises TimedOut; after Ctrl-C the job goes on."""
    view: View = Live(session) if sys.stderr.isatty() else Lines()
    try:
        with view:
            return session.client.wait(job_id, seconds=seconds, everyone=everyone, progress=view)
    except KeyboardInterrupt:
        click.echo(f"\njob {job_id} goes on. see: onehost job wait {job_id}", err=True)
        raise click.exceptions.Exit(STOPPED) from None


class Lines:
    """A line on standard error whenever a node's word changes."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __call__(self, job: Mapping[str, Any]) -> None:
        for target in job["nodes"]:
            text = word(target, job)
            if self._said.get(target["node"]) != text:
                self._said[target["node"]] = text
                click.echo(f"{target['node']}: {text}", err=True)
        for line in tree(job)[:1]:
            if self._said.get("") != line:
                self._said[""] = line
                click.echo(line, err=True)


class Live:
    """A line per node that is drawn again in place."""

    def __init__(self, session: Session) -> None:
        from rich.live import Live as RichLive

        self._color = session.color
        self._live = RichLive(console=console(session, err=True), refresh_per_second=FRAMES)

    def __enter__(self) -> Live:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self._live.__exit__(kind, error, trace)

    def __call__(self, job: Mapping[str, Any]) -> None:
        from rich.text import Text

        width = max((len(target["node"]) for target in job["nodes"]), default=0)
        lines = Text()
        for target in job["nodes"]:
            style = COLORS.get(target["state"], "") if self._color else ""
            lines.append(f"  {target['node']:<{width}}  ")
            lines.append(word(target, job) + "\n", style=style)
        for line in tree(job)[:1]:
            lines.append(f"  {line}\n")
        self._live.update(lines)


def word(target: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    """Where one node stands: waiting, sent, applied in 0.4 s, failed: why."""
    state, reason = target["state"], target["reason"]
    if state in _OPEN and target["node_paused"]:
        return f"{state}, the node is paused"
    last = max(each["stage"] for each in job["nodes"])
    if state == states.Target.WAITING and job["grace_until_at"] and target["stage"] == last:
        return grace(job["id"], job["grace_until_at"])
    if state in _OPEN and target["node_state"] == states.NodeState.OFFLINE:
        return f"{state}, the node is offline"
    if state in _OPEN and target["node_state"] == states.NodeState.NEW:
        return f"{state}, the node was never heard of"
    if state == states.Target.APPLIED and target["seconds"] is not None:
        return f"applied in {target['seconds']:.1f} s"
    return f"{state}: {cell(reason)}" if reason else str(state)


def grace(job_id: int, until: datetime) -> str:
    """What somebody is told who removes something."""
    at = until.astimezone(UTC).strftime("%H:%M:%SZ")
    return f"waits until {at}; until then onehost job cancel {job_id} undoes everything"


def held(about: str, job_id: int) -> str:
    """What somebody is told whose wish is held."""
    return (
        f"{about}: job {job_id} is held, nothing is changed: too many removals and suspensions within an hour."
        f"\n  do it: onehost job release {job_id}; drop it: onehost job cancel {job_id}"
    )


def summary(job: Mapping[str, Any]) -> str:
    """How a job stands, in one line."""
    about = f"{job['noun']} {job['name']}"
    if job.get("id") is None:
        return f"{about}: unchanged"
    if job["state"] == states.Job.HELD:
        return held(about, job["id"])
    text = f"{about}: {job['state']}" + (f" on {job['applied']} of {job['targets']} nodes" if job["targets"] else "")
    if job["ended_at"] is not None:
        text += f" in {(job['ended_at'] - job['submitted_at']).total_seconds():.2f} s"
    waiting = [target["node"] for target in job["nodes"] if target["state"] in _OPEN]
    if waiting:
        expired = job["state"] == states.Job.EXPIRED
        text += f"; {'not heard from in time' if expired else 'still open'}: {', '.join(waiting)}"
    failed = [f"{t['node']}: {cell(t['reason'])}" for t in job["nodes"] if t["state"] == states.Target.FAILED]
    halted = next((t["reason"] for t in job["nodes"] if t["state"] == states.Target.HALTED), None)
    why = [f"not begun on the rest: {cell(halted)}"] if halted else []
    return f"{text} (job {job['id']})" + "".join(f"\n  {line}" for line in failed + why + tree(job))


def tree(job: Mapping[str, Any]) -> list[str]:
    """What the job asked for beside its own resource: how much of it is done, and what is left where."""
    children = job["children"]
    if not children:
        return []
    done = sum(child["state"] == states.Job.APPLIED for child in children)
    lines = [f"with it {counted(Counter(child['noun'] for child in children))}: {done} of {len(children)} done"]
    for child in children:
        if child["state"] in BAD:
            lines.append(f"{child['noun']} {child['name']} is left on {child['failed_on']}: {cell(child['why'])}"
                         f" (job {child['id']})")  # fmt: skip
    return lines


def exit_code(session: Session, job: Mapping[str, Any]) -> int:
    """What a command exits with that waited for this job.

    A job that only offline nodes hold open is done, unless no node has applied it yet: then it is late.
    """
    if any(child["state"] in BAD for child in job["children"]):
        return FAILED
    if job["state"] in BAD or any(target["state"] == states.Target.FAILED for target in job["nodes"]):
        return FAILED
    if job["state"] in (states.Job.SUPERSEDED, states.Job.CANCELLED):
        return CONFLICT
    late = job["state"] == states.Job.RUNNING and not job["applied"]
    return TIMEOUT if late or job["state"] == states.Job.EXPIRED else 0
