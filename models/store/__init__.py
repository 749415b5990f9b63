"""The manager's store: what is wanted, where, and everything that ever happened to it."""

from __future__ import annotations

from .engine import connect, reading, writing
from .tables import (
    Action,
    Base,
    Claim,
    Counter,
    Event,
    Hello,
    Job,
    NodeStatus,
    Placement,
    Resource,
    Revision,
    Seal,
    Target,
)

__all__ = [
    "Action",
    "Base",
    "Claim",
    "Counter",
    "Event",
    "Hello",
    "Job",
    "NodeStatus",
    "Placement",
    "Resource",
    "Revision",
    "Seal",
    "Target",
    "connect",
    "reading",
    "writing",
]
