"""Writes events as CSV or JSON lines, one at a time, so that any number of them takes the same memory."""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from ...models.errors import Invalid

FORMATS = ("csv", "jsonl")
COLUMNS = ("id", "position", "at", "kind", "actor", "noun", "name", "node", "job_id", "outcome", "detail")
#: A spreadsheet takes a cell that begins so for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write(events: Iterable[dict[str, Any]], form: str, path: str | None) -> None:
    """Events to a file that appears only once it is whole, or to standard output. Raises Invalid."""
    if path is None:
        _stream(events, form, sys.stdout)
        return
    target = Path(path).absolute()
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise Invalid(f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            _stream(events, form, file)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _stream(events: Iterable[dict[str, Any]], form: str, file: TextIO) -> None:
    if form == "jsonl":
        for event in events:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")
        return
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for event in events:
        writer.writerow([guarded(event[column]) for column in COLUMNS])


def guarded(value: Any) -> str:
    """A cell that no spreadsheet runs."""
    if value is None:
        return ""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
