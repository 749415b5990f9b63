"""The words a state can be, each with its meaning, shared by store, wire and command line."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Outcome(IntEnum):
    """What became of the generation a placement is done with."""

    OPEN = 0  # nothing acknowledged yet
    APPLIED = 1  # changed and verified
    FAILED = 2  # final until a person or a newer generation changes it


class Target(StrEnum):
    """What became of one node a job is for."""

    WAITING = "waiting"  # its stage is not opened, or not sent yet
    SENT = "sent"  # the broker has it in the node's queue
    APPLIED = "applied"  # acknowledged
    FAILED = "failed"  # acknowledged, with a reason
    SUPERSEDED = "superseded"  # a newer job came first
    CANCELLED = "cancelled"  # a cancel came first
    HALTED = "halted"  # an earlier stage failed, so this one never opened
    LOST = "lost"  # the node was removed
    EXPIRED = "expired"  # an action that no node has answered in time


class Job(StrEnum):
    """How a job stands. Every word but `running` and `held` is final."""

    RUNNING = "running"
    HELD = "held"  # a brake: nothing is opened before a person releases it
    APPLIED = "applied"  # every target applied
    PARTIAL = "partial"  # some applied, some not
    FAILED = "failed"  # no target applied
    HALTED = "halted"  # a stage failed, later ones were not opened
    SUPERSEDED = "superseded"  # a newer job took its place
    CANCELLED = "cancelled"
    EXPIRED = "expired"  # the wait ended; the resource goes on converging


class NodeState(StrEnum):
    """What the manager hears of a node."""

    NEW = "new"  # never heard of
    UNSYNCED = "unsynced"  # talks, but its ledger is not covered yet
    ONLINE = "online"
    OFFLINE = "offline"
