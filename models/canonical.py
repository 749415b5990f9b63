"""One spelling for one value: what is hashed, stored as payload or compared goes through here."""

from __future__ import annotations

import hashlib
import json
from typing import Any

#: Made once: it is most of what a small value costs.
_spell = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces. Raises ValueError for NaN and infinities."""
    return _spell(value).encode()


def digest(data: bytes) -> str:
    """SHA-256 of `data`, in hex."""
    return hashlib.sha256(data).hexdigest()
