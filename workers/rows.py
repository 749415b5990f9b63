"""Rows of the ledger as entries, and letters judged before they become rows."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from typing import Any

from ..models import nouns, wire
from ..models.errors import NotFound
from .entry import Entry


def judged(
    letter: wire.Letter, spec: Mapping[str, Any] | None, applied: Mapping[str, Any] | None
) -> tuple[str | None, bool]:
    """Why this worker cannot apply it (None: it can), and whether it is urgent."""
    try:
        noun = nouns.noun(letter["noun"])
    except NotFound:
        return f"needs a worker that knows the noun {letter['noun']}", False
    unknown = sorted((spec or {}).keys() - noun.schema._declared_fields.keys())
    if letter["version"][0] > noun.version[0] or unknown:
        version = ".".join(map(str, letter["version"]))
        what = f", field {unknown[0]}" if unknown else ""
        return f"needs a worker that knows {noun.name} {version}{what}", False
    return None, noun.urgent(None if spec is None else dict(spec), applied)


def as_entry(row: sqlite3.Row) -> Entry:
    """The entry of a row, at its newest generation."""
    is_started = row["started"] == row["wanted"]
    started = time.time() - row["started_at"] if row["started_at"] and is_started else 0.0
    return Entry(
        id=row["id"], noun=row["noun"], name=row["name"], generation=row["wanted"],
        spec=json.loads(row["spec"]) if row["spec"] is not None else None,
        applied_spec=json.loads(row["applied_spec"]) if row["applied_spec"] is not None else None,
        applied=row["applied"], roles=frozenset(row["roles"].split()), replaces=row["replaces"],
        started_seconds=max(0.0, started), starts=row["starts"], needs=row["needs"] or "",
        found=json.loads(row["difference"]) if row["difference"] and is_started else {},
    )  # fmt: skip


def turn(entry: Entry) -> tuple[bool, int, int]:
    """Removals first, children before their parents; then parents before children."""
    known = nouns.nouns().get(entry.noun)
    order = known.order if known else 100
    return (entry.spec is not None, order if entry.spec is not None else -order, entry.id)
