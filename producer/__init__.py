"""The manager's side. What panels may use is exported here; everything else may change."""

from __future__ import annotations

from .client import Onehost
from .query import EventFilter
from .seal import Head
from .submit import Receipt, Wish

__all__ = ["EventFilter", "Head", "Onehost", "Receipt", "Wish"]
