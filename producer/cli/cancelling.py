"""What a cancel has done, node by node: stopped before it began, or begun and now to be undone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...models import states
from .output import cell

if TYPE_CHECKING:
    from ..wish import Receipt


def undone(job: Mapping[str, Any], receipt: Receipt) -> dict[str, str]:
    """By node what became of the cancelled job there. `job` is read after the cancel."""
    if receipt.job_id is None:
        return {}
    again = f"{_again(receipt)} (generation {receipt.generation}, job {receipt.job_id})"
    found: dict[str, str] = {}
    for target in job["nodes"]:
        match target["state"]:
            case states.Target.APPLIED:
                found[target["node"]] = f"had applied it; {again}"
            case states.Target.FAILED:
                found[target["node"]] = f"had failed ({cell(target['reason'])}); {again}"
            case _ if target["opened_at"] is None:
                found[target["node"]] = "stopped before it was sent there"
            case states.Target.SENT:
                found[target["node"]] = f"was sent already; {again}"
            case states.Target.WAITING:
                found[target["node"]] = f"was not sent yet, and will not be; {again}"
            case state:
                found[target["node"]] = f"{state}: {cell(target['reason'])}"
    return found


def _again(receipt: Receipt) -> str:
    """What is wanted now."""
    if receipt.difference.get("resource") == "removed":
        return "its removal is wanted"
    if receipt.difference.get("resource") == "made":
        return "it is wanted again as it was"
    return "what was wanted before is wanted again"
