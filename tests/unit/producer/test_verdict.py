"""What numbers mean: every reason by itself, its level, and that it stays the same while only its age changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from onehost.producer.verdict import Verdict, ago, judge, unreachable

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(minutes=5)


def node(name: str = "web1", *, beat: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    made = {"name": name, "state": "online", "roles": ["web"], "seen_at": NOW, "open": 0, "oldest": None,
            "sent_at": None, "orphans": 0}  # fmt: skip
    return made | {"beat": {"synced": True} | (beat or {})} | more


def standing(**change: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "nodes": [node()], "placements_failed": 0, "placements_open": 0, "jobs_held": 0, "dead_letters": 0,
        "unsealed": 0, "unsealed_at": None, "pauses": [], "certificates": [],
    }  # fmt: skip
    return made | change


def broker(**change: Any) -> dict[str, Any]:
    names = ("onehost.audit", "onehost.beat", "onehost.dead", "onehost.node.web1")
    queues = {name: {"messages": 0, "consumers": 1} for name in names} | change.pop("queues", {})
    return {
        "reason": "",
        "queues": {k: v for k, v in queues.items() if v},
        "alarms": [],
        "down": [],
        "parted": [],
    } | change


def oldest(*, is_sent: bool, since_at: datetime = LONG_AGO) -> dict[str, Any]:
    return {"noun": "account", "name": "alice", "since_at": since_at, "is_sent": is_sent}


def process(state: str, name: str = "relay") -> list[dict[str, Any]]:
    return [{"name": name, "state": state, "description": "Exited too quickly"}]


FINE: list[dict[str, Any]] = [
    {},
    {"broker": None, "processes": []},
    {"broker": broker()},
    {"processes": process("RUNNING")},
    {"processes": process("STOPPED")},  # on purpose
    {"placements_open": 3, "nodes": [node(open=3, oldest=oldest(is_sent=True, since_at=NOW))]},
    {"nodes": [node(beat={"skew_seconds": -4.9})]},
    {"unsealed": 12, "unsealed_at": NOW},
    {"broker": broker(queues={"onehost.node.web1": {"messages": 1500, "consumers": 1}})},
]
#: What differs from a cluster that is well, the level, kind and subject of the reason, words of it.
CASES: list[tuple[dict[str, Any], int, str, str]] = [
    ({"nodes": []}, 1, "no-nodes", "no nodes yet"),
    ({"nodes": [node(), node("web2", state="offline", open=2)]}, 1, "offline web2", "2 changes wait for it"),
    ({"nodes": [node(), node("web2", state="new")]}, 1, "new web2", "node web2 is new"),
    ({"nodes": [node(), node("web2", state="unsynced")]}, 1, "unsynced web2", "node web2 is unsynced"),
    ({"nodes": [node(beat={"synced": False})]}, 1, "unsynced web1", "node web1 is not synced"),
    ({"nodes": [node(state="offline")]}, 2, "none-online", "none of 1 nodes is online"),
    ({"nodes": [node(state="offline"), node("s1", roles=["storage"])]}, 2, "none-online web", "no node with role web"),
    ({"nodes": [node(seen_at=LONG_AGO)]}, 2, "audit-silent", "onehost audit run"),
    ({"nodes": [node(beat={"blocked": {"apache": "x.conf:3"}})]}, 1, "blocked apache web1",
     "apache on web1 is blocked"),
    ({"nodes": [node(beat={"down": {"ssh": "does not run"}})]}, 1, "down ssh web1", "ssh on web1 does not run"),
    ({"nodes": [node(beat={"stopped": {"ssh": "since 12:00Z"}})]}, 1, "stopped ssh web1",
     "ssh on web1 is stopped on purpose since 12:00Z"),
    ({"nodes": [node(beat={"drift": {"/etc/a": "is changed"}, "drifted": 3})]}, 1, "drift web1",
     "web1 differs from its ledger: /etc/a is changed and 2 more"),
    ({"nodes": [node(beat={"drift": {}, "drifted": 1})]}, 1, "drift web1", "web1 differs from its ledger"),
    ({"nodes": [node(beat={"skew_seconds": -7.2})]}, 1, "skew web1", "7 s behind the manager's"),
    ({"nodes": [node(beat={"skew_seconds": 61})]}, 1, "skew web1", "61 s ahead of the manager's"),
    ({"nodes": [node(orphans=4)]}, 1, "orphans web1", "holds 4 resources that the store does not know"),
    ({"nodes": [node(open=1, oldest=oldest(is_sent=True))]}, 1, "behind web1",
     "1 change open, the oldest of account alice for 5 min, sent and not done"),
    ({"nodes": [node(open=3, oldest=oldest(is_sent=False))]}, 1, "behind web1", "3 changes open"),
    ({"placements_failed": 2}, 1, "failed", "2 failed on a node"),
    ({"jobs_held": 3}, 1, "held", "3 jobs held"),
    ({"dead_letters": 1}, 1, "dead", "onehost dead list"),
    ({"certificates": [{"name": "a.example", "not_after_at": NOW + timedelta(days=3)}]}, 1, "certificate a.example",
     "certificate a.example expires in 3 d (onehost certificate upload a.example)"),
    ({"certificates": [{"name": "a.example", "not_after_at": NOW}]}, 1, "certificate a.example", "has expired"),
    ({"unsealed": 10**6, "unsealed_at": NOW}, 1, "unsealed", "events without a seal"),
    ({"unsealed": 1, "unsealed_at": LONG_AGO}, 1, "unsealed", "1 event without a seal, the oldest for 5 min"),
    ({"pauses": [{"node": None, "actor": "bob", "reason": "moving", "at": NOW}]}, 1, "paused",
     "all nodes are paused by bob: moving"),
    ({"pauses": [{"node": "web1", "actor": "bob", "reason": None, "at": NOW}]}, 1, "paused web1",
     "node web1 is paused by bob"),
    ({"processes": process("FATAL")}, 2, "process relay", "relay is FATAL here: Exited too quickly"),
    ({"processes": process("BACKOFF", "worker")}, 1, "process worker", "worker is BACKOFF"),
    ({"processes": process("EXITED", "audit")}, 2, "process audit", "audit is EXITED"),
    ({"processes": process("UNREACHABLE", "supervisor at /x.sock")}, 1, "process supervisor at /x.sock", "UNREACHABLE"),
    ({"broker": broker(reason="timed out")}, 1, "broker-unreachable", "cannot be asked: timed out"),
    ({"broker": broker(alarms=[["rabbit@m", "memory"]])}, 2, "broker-alarm rabbit@m memory", "short of memory"),
    ({"broker": broker(down=["rabbit@b"])}, 1, "broker-down rabbit@b", "rabbit@b is down"),
    ({"broker": broker(parted=["rabbit@b"])}, 2, "broker-parted rabbit@b", "does not see the others"),
    ({"broker": broker(queues={"onehost.audit": {"messages": 7, "consumers": 0}})}, 2, "queue onehost.audit",
     "nobody reads"),
    ({"broker": broker(queues={"onehost.dead": None})}, 1, "queue onehost.dead", "does not exist"),
    ({"broker": broker(queues={"onehost.node.web1": None})}, 1, "queue web1", "onehost broker apply"),
    ({"broker": broker(queues={"onehost.node.web1": {"messages": 9000, "consumers": 1}}),
      "nodes": [node(sent_at=LONG_AGO)]}, 1, "queue-deep web1", "holds 9000 messages, the oldest for 5 min"),
    ({"broker": broker(queues={"onehost.node.web1": {"messages": 3, "consumers": 0}})}, 1, "queue web1",
     "nobody reads the queue of web1"),
]  # fmt: skip


@pytest.mark.parametrize("change", FINE, ids=str)
def test_all_is_well(change: dict[str, Any]) -> None:
    status = standing(**change)
    verdict = judge(status, NOW)
    assert (verdict.level, verdict.causes) == (0, [])
    assert verdict.sentence(status).startswith("ok: 1 of 1 nodes online, ")


@pytest.mark.parametrize(("change", "level", "cause", "words"), CASES, ids=[f"{case[2]}: {case[3]}" for case in CASES])
def test_each_reason(change: dict[str, Any], level: int, cause: str, words: str) -> None:
    status = standing(**change)
    verdict = judge(status, NOW)
    assert cause in verdict.causes
    assert verdict.level == level and words in verdict.sentence(status), verdict.sentence(status)
    later = judge(status, NOW + timedelta(seconds=20))
    assert (later.level, later.causes) == (verdict.level, verdict.causes), "only time has passed"


def test_bad_reasons_come_first_and_many_are_counted() -> None:
    silent = [node(f"web{number}", state="offline") for number in range(30)]
    status = standing(nodes=[*silent, node("web99")], dead_letters=1, processes=process("FATAL"))
    said = judge(status, NOW).sentence(status)
    assert said.startswith("bad: relay is FATAL") and said.endswith("and 24 more") and len(said) < 500


def test_a_store_that_is_away_is_bad() -> None:
    verdict = unreachable("store x does not exist")
    assert (verdict.level, verdict.sentence({})) == (2, "bad: store x does not exist")
    assert Verdict().level == 0


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7300, "2 h"), (200_000, "2 d")]
)
def test_ages(seconds: int, words: str) -> None:
    assert ago(timedelta(seconds=seconds)) == words
