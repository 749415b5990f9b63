"""`onehost status`: one sentence on how the cluster is, and its nodes. Exit code 0 well, 1 degraded, 2 bad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from ...models import nouns, states
from .groups import Command
from .output import emit, table
from .session import current

#: Open for longer than this, a placement on a node that is there is worth a word.
SLOW = timedelta(seconds=60)
#: A beat is stored every 30 s: an older one of an online node means that nobody stores them.
SILENT = timedelta(seconds=90)
#: So many events without a seal mean that nobody seals.
UNSEALED = 5000
WORDS = ("ok", "degraded", "bad")


@dataclass(frozen=True)
class Verdict:
    """`level` is the exit code: 0 well, 1 degraded, 2 bad."""

    level: int
    reasons: tuple[str, ...]

    def sentence(self, status: Mapping[str, Any]) -> str:
        """The verdict in words."""
        nodes, online = len(status["nodes"]), sum(n["state"] == states.NodeState.ONLINE for n in status["nodes"])
        if self.level == 0:
            rest = "everything is applied"
            if status["placements_open"]:
                rest = f"{status['placements_open']} changes are on their way"
            return f"ok: {online} of {nodes} nodes online, {rest}"
        return f"{WORDS[self.level]}: {'; '.join(self.reasons)}"


def judge(status: Mapping[str, Any], now: datetime) -> Verdict:
    """What the numbers mean. Bad: nobody serves, or nobody listens to the nodes. Degraded: something needs a look."""
    nodes = status["nodes"]
    if not nodes:
        return Verdict(1, ("there are no nodes yet (onehost node add)",))
    online = [node for node in nodes if node["state"] == states.NodeState.ONLINE]
    bad: list[str] = []
    if not online:
        bad.append(f"none of {len(nodes)} nodes is online")
    elif any("web" in n["roles"] for n in nodes) and not any("web" in n["roles"] for n in online):
        bad.append("no node with role web is online")
    if online and all(_age(node, now) > SILENT for node in online):
        bad.append("nobody stores what nodes say (is `onehost audit run` running?)")
    reasons = [f"node {node['name']} is {node['state']}" for node in nodes if node not in online]
    for node in online:
        reasons += [
            f"{daemon} on {node['name']} is blocked: {why}" for daemon, why in node["beat"].get("blocked", {}).items()
        ]
        if not node["beat"].get("synced", True):
            reasons.append(f"node {node['name']} is not synced")
    if status["placements_failed"]:
        reasons.append(f"{status['placements_failed']} failed on a node (onehost job list --state failed)")
    oldest = status["oldest_open_at"]
    if oldest and now - oldest > SLOW:
        reasons.append(f"{status['placements_open']} changes are open, the oldest for {_ago(now - oldest)}")
    if status["unsealed"] > UNSEALED:
        reasons.append(f"{status['unsealed']} events wait for their seal")
    return Verdict(2 if bad else 1 if reasons else 0, (*bad, *reasons))


def _age(node: Mapping[str, Any], now: datetime) -> timedelta:
    return now - node["seen_at"] if node["seen_at"] else timedelta.max


def _ago(age: timedelta) -> str:
    seconds = int(age.total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _count(noun: str, count: int) -> str:
    return f"{count} {noun if count == 1 else nouns.noun(noun).plural}".replace("_", " ")


def _status() -> int:
    session = current()
    found, now = session.client.status(), datetime.now(UTC)
    verdict = judge(found, now)
    sentence = verdict.sentence(found)

    def words() -> None:
        click.echo(sentence + "\n")
        columns = ("node", "state", "roles", "traffic", "open", "synced", "version", "beat")
        rows = [
            (n["name"], n["state"], n["roles"], n["traffic"], n["open"], n["beat"].get("synced"),
             n["beat"].get("version"), f"{_ago(_age(n, now))} ago" if n["seen_at"] else "never")
            for n in found["nodes"]
        ]  # fmt: skip
        table(session, columns, rows, "no nodes")
        counts = ", ".join(_count(noun, count) for noun, count in found["resources"].items())
        click.echo(f"\n{counts}; jobs running {found['jobs_running']}, placements open {found['placements_open']}, "
                   f"failed {found['placements_failed']}; events not sealed {found['unsealed']}")  # fmt: skip

    data = {"level": WORDS[verdict.level], "verdict": sentence, "reasons": list(verdict.reasons)}
    emit(session, data | found, words)
    return verdict.level


status = Command(
    "status",
    callback=_status,
    help="One sentence on how the cluster is, and its nodes. Exit code: 0 well, 1 degraded, 2 bad.",
    example="status",
)
