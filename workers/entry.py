"""One resource as this node's ledger holds it: what reconcilers are handed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..models.errors import Permanent

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """A resource at the generation a round takes. `spec` None means that it is to be removed."""

    id: int
    noun: str
    name: str
    generation: int
    spec: Spec | None
    #: The spec applied last on this node; None if it never was, or was removed.
    applied_spec: Spec | None = None
    #: The generation applied last on this node; 0 if never.
    applied: int = 0
    #: What this node does for the cluster: web, ssh, storage, director …
    roles: frozenset[str] = field(default_factory=frozenset)
    #: Highest earlier id of this noun and name: what it holds here is removed completely first.
    replaces: int = 0
    #: Seconds since this generation was first started here; 0.0 at its first start.
    started_seconds: float = 0.0
    #: How often it was started alone without an end.
    starts: int = 0
    #: What an earlier start of this generation found, and may have changed.
    found: Mapping[str, str] = field(default_factory=dict)
    #: Why this worker cannot apply it: a noun, version or field it does not know. Empty: it can.
    needs: str = ""

    def replaced(self, holders: Iterable[int]) -> list[int]:
        """Of the ids that hold its name here, the earlier ones, which go first. A removal replaces nobody.

        Raises Permanent for one that it does not replace: an orphan.
        """
        others = sorted(set(holders) - {self.id}) if self.spec is not None else []
        for other in others:
            if other > self.replaces:
                raise Permanent(f"{self.name} is held here by id {other}, an orphan that id {self.id} does not replace")
        return others


def said_replaced(replaced: Iterable[int]) -> Difference:
    """What a difference says of them."""
    words = ", ".join(f"id {owner}" for owner in replaced)
    return {"replaced": words} if words else {}


#: What differed and is changed, in words for people, by part: {"site": "made", "shell": "none -> sftp"}.
#: Empty: nothing differs. Never holds a secret: a password is only "changed".
Difference = dict[str, str]


class View(Protocol):
    """Read access to the other resources of this node, each at its newest generation."""

    def all(self, noun: str) -> list[Entry]:
        """Every resource of `noun` that is not to be removed."""
        ...
