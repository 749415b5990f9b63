"""The manager's store: what is wanted, where, and everything that ever happened to it."""

from __future__ import annotations

from .engine import connect, part, reading, retried, writing
from .pipeline import Question, Reading, answers, pipelined
from .records import Dead, Event, Seal
from .tables import (
    Action,
    Base,
    Bucket,
    Claim,
    Counter,
    Hello,
    Job,
    NodeStatus,
    Pause,
    Placement,
    Resource,
    Revision,
    Target,
    Traffic,
    Usage,
)

__all__ = [
    "Action",
    "Base",
    "Bucket",
    "Claim",
    "Counter",
    "Dead",
    "Event",
    "Hello",
    "Job",
    "NodeStatus",
    "Pause",
    "Placement",
    "Question",
    "Reading",
    "Resource",
    "Revision",
    "Seal",
    "Target",
    "Traffic",
    "Usage",
    "answers",
    "connect",
    "part",
    "pipelined",
    "reading",
    "retried",
    "writing",
]
