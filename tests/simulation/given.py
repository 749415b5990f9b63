"""What was ever given out: ids with generations, and uids. A store that is put back knows less than the nodes do."""

from __future__ import annotations

import sqlite3
from typing import Any

from .node import Node

Key = tuple[int, int]


class Given:
    """Remembers through all lives of the store."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw
        #: What each generation of each resource id meant: its payload, None if absent.
        self.payloads: dict[Key, bytes | None] = {}
        #: Those that the present life knows.
        self._known: set[Key] = set()
        #: By node: which ledger it had, and the ids that uids were given to there.
        self._uids: dict[str, tuple[int, dict[int, int]]] = {}
        self.check()

    def begin_life(self) -> None:
        """A backup was put back: what it does not know must not be given out again."""
        self._known = self._read().keys() & self._known

    def check(self) -> None:
        """Nothing is given out twice."""
        found = self._read()
        twice = (found.keys() - self._known) & self.payloads.keys()
        assert not twice, f"(id, generation) given out in two lives of the store: {sorted(twice)}"
        self._known |= found.keys()
        self.payloads |= found

    def _read(self) -> dict[Key, bytes | None]:
        rows = self._raw.execute("SELECT resource_id, generation, payload FROM revision")
        return {(row[0], row[1]): row[2] for row in rows}

    def applied(self, node: Node, resource: int, spec: Any) -> None:
        """A machine was changed. Its uid is that of no other id on any node whose ledger can tell."""
        if not spec or not spec.get("uid"):
            return
        life, its = self._uids.get(node.name, (node.life, {}))
        if life != node.life:
            its = {}
        self._uids[node.name] = (node.life, its | {spec["uid"]: resource})
        holders = {uids.get(spec["uid"], resource) for _, uids in self._uids.values()}
        assert holders == {resource}, f"uid {spec['uid']} was given to ids {sorted(holders)}"

    def forget(self, node: Node) -> None:
        """Another ledger, or not of this cluster: it can tell the manager nothing of what it was given."""
        self._uids.pop(node.name, None)
