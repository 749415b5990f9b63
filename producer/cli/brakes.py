"""`onehost pause`, `resume` and the same of one node: the brakes that a person pulls."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ...models import names
from .failures import Mistake
from .groups import Command
from .output import emit, tick
from .session import Session, current

_ALL = click.Option(["--all", "everyone"], is_flag=True, help="Every node, also those that join later.")
_REASON = click.Option(["--reason"], metavar="TEXT", help="Why, for the audit store.")
_NAME = click.Argument(["name"])


def _pause(everyone: bool, reason: str | None) -> None:
    _need_all(everyone, "pause")
    session = current()
    told = session.client.pause(reason=reason)
    _tell(session, told, "paused: nothing is sent and no round begins; wishes wait. go on: onehost resume --all")


def _resume(everyone: bool, reason: str | None) -> None:
    _need_all(everyone, "resume")
    session = current()
    _tell(session, session.client.resume(reason=reason), "resumed")


def _need_all(everyone: bool, verb: str) -> None:
    if not everyone:
        raise Mistake(f"say --all for every node, or: onehost node {verb} NAME", hint=f"onehost {verb} --all")


def _pause_node(name: str, reason: str | None) -> None:
    session, name = current(), names.node(name)
    told = session.client.pause(name, reason=reason)
    _tell(session, told, f"paused: nothing is sent there and no round begins. go on: onehost node resume {name}")


def _resume_node(name: str, reason: str | None) -> None:
    session, name = current(), names.node(name)
    _tell(session, session.client.resume(name, reason=reason), "resumed")


def _tell(session: Session, told: Sequence[str], what: str) -> None:
    about = f"node {told[0]}" if len(told) == 1 else f"{len(told)} nodes"
    emit(session, {"nodes": list(told), "is_paused": what != "resumed"}, lambda: tick(f"{about} {what}"))


pause = Command("pause", callback=_pause, params=[_ALL, _REASON], example="pause --all --reason 'storage is failing'",
                help="Stop every node between two rounds, and the relay. Wishes are taken and wait.")  # fmt: skip
resume = Command("resume", callback=_resume, params=[_ALL, _REASON], example="resume --all",
                 help="Let every node go on, also those that were paused by name.")  # fmt: skip
pause_node = Command("pause", callback=_pause_node, params=[_NAME, _REASON], example="node pause web1 --reason disk",
                     help="Send a node nothing, and let its worker run no round.")  # fmt: skip
resume_node = Command("resume", callback=_resume_node, params=[_NAME, _REASON], example="node resume web1",
                      help="Let a paused node go on.")  # fmt: skip
