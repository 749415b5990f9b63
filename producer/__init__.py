"""The manager's side. What panels may use is exported here; everything else may change.

Loaded when first asked for: the command line must answer `--help` without the store's libraries.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Onehost
    from .event_search import EventFilter
    from .seal import Head
    from .wish import Receipt, Wish

__all__ = ["EventFilter", "Head", "Onehost", "Receipt", "Wish"]

_HOME = {"EventFilter": "event_search", "Head": "seal", "Onehost": "client", "Receipt": "wish", "Wish": "wish"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
