"""Rolling changes: the nodes of a live stage are cut into batches, each of them a stage of its own."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ..models.errors import Invalid
from .membership import Members

_SIZE = re.compile(r"([1-9][0-9]{0,5})(%?)")


def check(batch: str | None, max_fail: int | None) -> None:
    """Raises Invalid for a size that is neither a number of nodes nor 1% to 100% of them, or a negative limit."""
    found = _SIZE.fullmatch(batch) if batch is not None else None
    if batch is not None and (found is None or (found[2] and int(found[1]) > 100)):
        raise Invalid(f"batch {batch!r} is no number of nodes and no share of them", {"batch": "5 or 25%"})
    if max_fail is not None and max_fail < 0:
        raise Invalid(f"max_fail {max_fail} is less than 0", {"max_fail": "0 or more"})


def limit(batch: str | None, max_fail: int | None) -> int | None:
    """Failed nodes after which no further stage opens: with batches the first one already, unless said otherwise."""
    return 0 if batch is not None and max_fail is None else max_fail


def cut(members: Members, batch: str | None, name_of: Mapping[int, str]) -> Members:
    """The same with each live stage in batches, nodes in the order of their names."""
    if batch is None:
        return members
    stage_of: dict[int, int] = {}
    flags: list[bool] = []
    for stage, waits_for_all in enumerate(members.waits_for_all):
        nodes = sorted((name_of.get(node, ""), node) for node, its in members.stage_of.items() if its == stage)
        size = len(nodes) if waits_for_all else _size(batch, len(nodes))
        first = len(flags)
        stage_of |= {node: first + at // size for at, (_, node) in enumerate(nodes)}
        flags += [waits_for_all] * max(1, math.ceil(len(nodes) / max(1, size)))
    return Members(stage_of, flags)


def _size(batch: str, nodes: int) -> int:
    """Nodes of one batch, at least one; a share is rounded up."""
    if batch.endswith("%"):
        return max(1, math.ceil(nodes * int(batch[:-1]) / 100))
    return int(batch)
