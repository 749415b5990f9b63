"""What reconcilers have in common whose resource stands in the director's configuration, and nowhere else."""

from __future__ import annotations

from typing import ClassVar

from .entry import Difference, Entry, View, said_replaced
from .host import Host
from .host.balance import Server, Service

#: What `require` is asked for.
_DIRECTOR = frozenset({"director"})


class Directed:
    """Compares, prepares and stages. A subclass says what is wanted, what is there, and how it is proved."""

    #: What a difference calls the whole of it.
    word: ClassVar[str]
    #: Its parts that a difference names.
    parts: ClassVar[tuple[str, ...]]

    def wanted(self, entry: Entry) -> Service | Server | None:
        """What this node is to have; None if the entry is to be removed, or the node directs nobody."""
        raise NotImplementedError

    def live(self, entry: Entry, host: Host) -> Service | Server | None:
        """What this node has."""
        raise NotImplementedError

    def compare(self, entry: Entry, host: Host, view: View) -> Difference:
        """See Reconciler. Raises Permanent if an orphan has the name."""
        is_, to_be = self.live(entry, host), self.wanted(entry)
        replaced = self._replaced(entry, host)
        if is_ == to_be:
            return said_replaced(replaced)
        if not is_ or not to_be:
            return {self.word: "made" if to_be else "removed"}
        pairs = {part: (_words(getattr(is_, part)), _words(getattr(to_be, part))) for part in self.parts}
        return {part: f"{old} -> {new}" for part, (old, new) in pairs.items() if old != new}

    def prepare(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        if is_director(entry):
            host.require(_DIRECTOR)

    def stage(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        for owner in self._replaced(entry, host):
            host.director.drop(owner)
        if thing := self.wanted(entry):
            host.director.put(thing)
        else:
            host.director.drop(entry.id)

    def _replaced(self, entry: Entry, host: Host) -> list[int]:
        thing = self.wanted(entry)
        return entry.replaced(host.director.holders(thing)) if thing else []


def is_director(entry: Entry) -> bool:
    """Whether this node directs clients."""
    return entry.roles >= _DIRECTOR


def _words(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
