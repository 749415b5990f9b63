"""Letters and a ledger for the tests of a node."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from onehost.models import wire
from onehost.workers.ledger import Ledger


def letter(
    entry_id: int,
    generation: int = 1,
    *,
    name: str = "",
    noun: str = "account",
    spec: Mapping[str, Any] | None = MappingProxyType({}),
    **more: Any,
) -> wire.Letter:
    """A letter of form apply as it arrives."""
    payload = None if spec is None else dict(spec)
    body = {
        "form": "apply", "node": "web1", "id": entry_id, "noun": noun, "version": [1, 0],
        "name": name or f"user{entry_id}", "generation": generation, "incarnation": 0, "payload": payload, "job": 9,
        "roles": ["web"], **more,
    }  # fmt: skip
    return wire.decode(json.dumps(body).encode())


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    made = Ledger(tmp_path / "ledger.db")
    yield made
    made.close()
