"""What the numbers mean: one level and the reasons for it. Pure: judges data, asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..broker_config import routing
from ..models import states

#: Open for longer than this, a placement on a node that is there is worth a word; so is an event without a seal.
SLOW = timedelta(seconds=60)
#: A beat is stored every 30 s: an older one of an online node means that nobody stores them.
SILENT = timedelta(seconds=90)
#: So many events without a seal mean that nobody seals.
UNSEALED = 5000
#: So many messages in a queue that is read mean that its reader does not keep up.
DEEP = 2000
#: A clock that is further off, in seconds, makes times in records disagree.
SKEW_SECONDS = 5.0
#: What supervisor says of a process that does its work, or that somebody has stopped on purpose.
FINE = ("RUNNING", "STARTING", "STOPPING", "STOPPED")
#: Without these processes nothing moves.
VITAL = ("relay", "audit")
WORDS = ("ok", "degraded", "bad")
#: Reasons that are told in the sentence; the rest is counted.
TOLD = 8


@dataclass(frozen=True)
class Reason:
    """Why not all is well. Kind and subject stay the same while it lasts; the words may count seconds."""

    kind: str
    about: str
    text: str
    is_bad: bool = False


@dataclass(frozen=True)
class Verdict:
    """`level` is the exit code: 0 well, 1 degraded, 2 bad."""

    reasons: tuple[Reason, ...] = ()

    @property
    def level(self) -> int:
        """Bad if one reason is, degraded if there is any."""
        return 2 if any(reason.is_bad for reason in self.reasons) else 1 if self.reasons else 0

    @property
    def word(self) -> str:
        """The level in a word."""
        return WORDS[self.level]

    @property
    def causes(self) -> list[str]:
        """The reasons as far as they can be compared with those of another time."""
        return sorted(f"{reason.kind} {reason.about}".strip() for reason in self.reasons)

    def sentence(self, status: Mapping[str, Any]) -> str:
        """The verdict in words."""
        if self.level:
            more = len(self.reasons) - TOLD
            told = [reason.text for reason in self.reasons[:TOLD]] + ([f"and {more} more"] if more > 0 else [])
            return f"{self.word}: {'; '.join(told)}"
        nodes, online = len(status["nodes"]), len(_online(status))
        rest = "everything is applied"
        if status["placements_open"]:
            rest = f"{status['placements_open']} changes are on their way"
        return f"ok: {online} of {nodes} nodes online, {rest}"


def unreachable(what: str) -> Verdict:
    """The verdict where the store itself does not answer."""
    return Verdict((Reason("store", "", what, is_bad=True),))


def judge(status: Mapping[str, Any], now: datetime) -> Verdict:
    """Judges what `standing` gives, with `broker` (levels) and `processes` beside it where they were asked.

    Bad: nobody serves, nothing is sent, or nobody listens to the nodes. Degraded: something needs a look.
    """
    reasons = [*_cluster(status, now), *_processes(status), *_broker(status)]
    for node in status["nodes"]:
        reasons += _node(node, status, now)
    reasons += _records(status, now)
    return Verdict(tuple(sorted(reasons, key=lambda reason: not reason.is_bad)))


def _online(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [node for node in status["nodes"] if node["state"] == states.NodeState.ONLINE]


def _cluster(status: Mapping[str, Any], now: datetime) -> Iterator[Reason]:
    nodes, online = status["nodes"], _online(status)
    if not nodes:
        yield Reason("no-nodes", "", "there are no nodes yet (onehost node add)")
    elif not online:
        yield Reason("none-online", "", f"none of {len(nodes)} nodes is online", is_bad=True)
    elif any("web" in node["roles"] for node in nodes) and not any("web" in node["roles"] for node in online):
        yield Reason("none-online", "web", "no node with role web is online", is_bad=True)
    if online and all(age(node["seen_at"], now) > SILENT for node in online):
        text = "nobody stores what nodes say (is `onehost audit run` running?)"
        yield Reason("audit-silent", "", text, is_bad=True)
    for pause in status["pauses"]:
        who = f"node {pause['node']} is" if pause["node"] else "all nodes are"
        why = f": {pause['reason']}" if pause["reason"] else ""
        yield Reason("paused", pause["node"] or "", f"{who} paused by {pause['actor']}{why}")


def _processes(status: Mapping[str, Any]) -> Iterator[Reason]:
    for process in status.get("processes") or ():
        if process["state"] not in FINE:
            name, words = process["name"], process["description"] or "no reason given"
            text = f"{name} is {process['state']} here: {words}"
            yield Reason("process", name, text, is_bad=name in VITAL)


def _broker(status: Mapping[str, Any]) -> Iterator[Reason]:
    broker = status.get("broker")
    if not broker:
        return
    if broker["reason"]:
        yield Reason("broker-unreachable", "", f"the broker cannot be asked: {broker['reason']}")
        return
    for node, what in broker["alarms"]:
        text = f"the broker {node} is short of {what}: it takes nothing in"
        yield Reason("broker-alarm", f"{node} {what}", text, is_bad=True)
    for node in broker["down"]:
        yield Reason("broker-down", node, f"the broker {node} is down")
    for node in broker["parted"]:
        yield Reason("broker-parted", node, f"the broker {node} does not see the others", is_bad=True)
    queues = broker["queues"]
    for name in (routing.AUDIT_QUEUE, routing.BEAT_QUEUE, routing.DEAD_QUEUE):
        queue = queues.get(name)
        if queue is None or not queue["consumers"]:
            what = "nobody reads it (onehost audit run)" if queue else "it does not exist (onehost broker apply)"
            yield Reason("queue", name, f"queue {name}: {what}", is_bad=name == routing.AUDIT_QUEUE)
        elif queue["messages"] > DEEP:
            yield Reason("queue-deep", name, f"queue {name} holds {_many(queue['messages'], 'message')}")


def _node(node: Mapping[str, Any], status: Mapping[str, Any], now: datetime) -> Iterator[Reason]:
    name, beat = node["name"], node["beat"]
    if node["state"] != states.NodeState.ONLINE:
        waits = (
            f", {_many(node['open'], 'change')} wait{'s' if node['open'] == 1 else ''} for it" if node["open"] else ""
        )
        yield Reason(str(node["state"]), name, f"node {name} is {node['state']}{waits}")
    elif not beat.get("synced", True):
        yield Reason("unsynced", name, f"node {name} is not synced")
    if node["state"] in (states.NodeState.ONLINE, states.NodeState.UNSYNCED):
        yield from _behind(node, now)
        yield from _machine(name, beat)
        skew = beat.get("skew_seconds") or 0.0
        if abs(skew) > SKEW_SECONDS:
            which = "ahead of" if skew > 0 else "behind"
            yield Reason("skew", name, f"the clock of {name} is {abs(skew):.0f} s {which} the manager's")
    if node.get("orphans"):
        text = f"node {name} holds {_many(node['orphans'], 'resource')} that the store does not know"
        yield Reason("orphans", name, text)
    yield from _queue(node, status, now)


def _machine(name: str, beat: Mapping[str, Any]) -> Iterator[Reason]:
    """What a node says of its own daemons and files."""
    for daemon, why in beat.get("blocked", {}).items():
        yield Reason("blocked", f"{daemon} {name}", f"{daemon} on {name} is blocked: {why}")
    for daemon in beat.get("down", {}):
        text = f"{daemon} on {name} does not run (onehost daemon start {name} {daemon})"
        yield Reason("down", f"{daemon} {name}", text)
    for daemon, since in beat.get("stopped", {}).items():
        yield Reason("stopped", f"{daemon} {name}", f"{daemon} on {name} is stopped on purpose {since}")
    if count := beat.get("drifted", 0):
        first = next((f": {about} {what}" for about, what in beat["drift"].items()), "")
        more = f" and {count - 1} more" if count > 1 else ""
        yield Reason("drift", name, f"{name} differs from its ledger{first}{more} (onehost node check {name})")


def _behind(node: Mapping[str, Any], now: datetime) -> Iterator[Reason]:
    oldest = node.get("oldest")
    if oldest and now - oldest["since_at"] > SLOW:
        where = "sent and not done" if oldest["is_sent"] else "not sent yet"
        text = (
            f"node {node['name']} is behind: {_many(node['open'], 'change')} open, the oldest of {oldest['noun']} "
            f"{oldest['name']} for {ago(now - oldest['since_at'])}, {where}"
        )
        yield Reason("behind", node["name"], text)


def _queue(node: Mapping[str, Any], status: Mapping[str, Any], now: datetime) -> Iterator[Reason]:
    broker, name = status.get("broker"), node["name"]
    if not broker or broker["reason"]:
        return
    queue = broker["queues"].get(routing.node_queue(name))
    since = f", the oldest for {ago(now - node['sent_at'])}" if node.get("sent_at") else ""
    if queue is None:
        yield Reason("queue", name, f"node {name} has no queue (onehost broker apply)")
    elif queue["messages"] > DEEP:
        yield Reason("queue-deep", name, f"the queue of {name} holds {_many(queue['messages'], 'message')}{since}")
    elif node["state"] == states.NodeState.ONLINE and not queue["consumers"]:
        yield Reason("queue", name, f"nobody reads the queue of {name}: {_many(queue['messages'], 'message')}{since}")


def _records(status: Mapping[str, Any], now: datetime) -> Iterator[Reason]:
    if status["placements_failed"]:
        text = f"{status['placements_failed']} failed on a node (onehost job list --state failed)"
        yield Reason("failed", "", text)
    if status["jobs_held"]:
        yield Reason("held", "", f"{_many(status['jobs_held'], 'job')} held (onehost job list --state held)")
    if status["dead_letters"]:
        yield Reason(
            "dead", "", f"{_many(status['dead_letters'], 'dead letter')} kept (onehost dead list --state kept)"
        )
    for each in status["certificates"]:
        left = each["not_after_at"] - now
        text = f"expires in {ago(left)}" if left > timedelta(0) else "has expired"
        hint = f"onehost certificate upload {each['name']}"
        yield Reason("certificate", each["name"], f"certificate {each['name']} {text} ({hint})")
    lag = now - status["unsealed_at"] if status["unsealed_at"] else timedelta(0)
    if status["unsealed"] > UNSEALED or lag > SLOW:
        yield Reason("unsealed", "", f"{_many(status['unsealed'], 'event')} without a seal, the oldest for {ago(lag)}")


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def age(at: datetime | None, now: datetime) -> timedelta:
    """How long ago that was; for ever, if it never was."""
    return now - at if at else timedelta.max


def ago(length: timedelta) -> str:
    """A length of time as people say it, in one unit."""
    seconds = int(length.total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
