"""What must be true when everybody is well and nothing is on its way; and after every step, see `always.py`."""

from __future__ import annotations

import json
from typing import Any

from onehost.models import nouns
from onehost.models.states import Outcome
from onehost.models.store import reading
from onehost.producer import orphans, seal
from onehost.producer.membership import nodes, stage_on

from .always import PLACEMENTS, Always
from .machine import NOUNS
from .node import Node
from .seams import CLOCK

#: Turns after which a healed cluster must be quiet.
TURNS = 40
#: Removals in their grace time, and actions.
WAITING = "SELECT id, kind FROM job WHERE ended_at IS NULL AND (grace_until_at IS NOT NULL OR generation = 0)"


class Rules(Always):
    """Heals the cluster, lets it come to rest, and looks at everything."""

    def settle(self) -> None:
        """Heals everything and lets it run until all agree; what failed is wished again by a person."""
        self._world.heal()
        self._run()
        self._remove_orphans()
        if unfinished := self._unfinished():
            for noun, name, _ in unfinished:
                self._world.onehost.do(noun, name, "retry")
            self._run()

    def _remove_orphans(self) -> None:
        """A person looks at what nodes hold beyond a restored store, and does not want it."""
        if not self._lives:
            return
        if self._world.onehost.orphans():
            for node in self._world.nodes:
                self._world.onehost.do("node", node, "sync")
            self._run()
        for orphan in {each["id"] for each in self._world.onehost.orphans()}:
            self._world.remove_orphan(orphan)
        self.remember_confirmed()
        self._run()
        for each in self._world.nodes.values():
            self._remove_by_hand(each)
            self._forget_what_is_not_there(each)
        self._run()

    def _forget_what_is_not_there(self, node: Node) -> None:
        """A person starts a node with an empty ledger, if store and ledger agree on what the machine does not hold.

        A ledger put back that is older than a removal, under a store that is older too. Or an orphan that took the
        node itself along: added again with its old disk, its ledger lists it under both ids as applied.
        """
        assert node.worker is not None
        entries = [entry for noun in NOUNS for entry in node.worker.ledger.entries(noun)]
        if {(each.noun, each.name) for each in entries if each.applied_spec is not None} - node.machine.state.keys():
            node.replace_ledger(self._world.template.empty_ledger)
            node.start()

    def _remove_by_hand(self, node: Node) -> None:
        """Store and ledger are both older than the machine: nobody but a person knows what it holds."""
        assert node.worker is not None
        known = {row[0] for row in node.worker.ledger._file.read("SELECT id FROM entry")}
        for thing, (resource, *_) in [*node.machine.state.items()]:
            if resource not in known:
                del node.machine.state[thing], node.machine.newest[thing]

    def _run(self) -> None:
        for _ in range(TURNS):
            self._world.turn()
            self.check()
            if not self._world.is_busy() and not self._disagreement():
                return
            # What came back waits a moment; what only beats can show waits for two of them.
            CLOCK.elapsed_seconds += 1 if self._world.is_busy() else 6
        raise AssertionError(f"not at rest after {TURNS} turns: {self._disagreement()}")

    def _disagreement(self) -> str:
        """What does not converge by itself but must."""
        open_ones = self._raw.execute(f"{PLACEMENTS} WHERE done < wanted OR sent < wanted").fetchall()
        if open_ones:
            return f"placements are open: {open_ones}"
        if waiting := self._raw.execute(WAITING).fetchall():
            return f"jobs wait for their time: {waiting}"
        for node in self._world.nodes.values():
            assert node.worker is not None
            if not node.worker.sync.synced.is_set():
                return f"{node.name} is not synced"
            if node.worker.ledger.brake.is_pulled:
                return f"{node.name} is paused"
            with reading(self._world.engine) as connection:
                node_id = next(each.id for each in nodes(connection).values() if each.name == node.name)
                # With what a restored store has come to know that the node holds beyond it.
                ours = orphans.expected(connection, node_id)
            if node.name not in self.rejoined and ours.root() != node.worker.ledger.digest.root():
                return f"the digest of {node.name} differs"
            number = self._raw.execute("SELECT epoch, acked FROM node_status WHERE node_id = ?", (node_id,)).fetchone()
            outgoing = node.worker.ledger.outgoing
            if number != (outgoing.epoch, outgoing.number):
                return f"{node.name}: {number} of {(outgoing.epoch, outgoing.number)} acknowledgements are stored"
        return ""

    def _unfinished(self) -> list[tuple[str, str, str]]:
        """Names of which the newest resource is not applied wherever it belongs, or an older one is not gone."""
        # The living one of a name, else the newest: an orphan that was removed may have a higher id.
        query = "SELECT noun, name, id, generation, absent FROM resource ORDER BY noun, name, absent, id DESC"
        with reading(self._world.engine) as connection:
            alive = nodes(connection)
        found: dict[tuple[str, str], str] = {}
        for noun, name, resource, generation, absent in self._raw.execute(query).fetchall():
            placed = {n: row for (r, n), row in self._placed.items() if r == resource}
            belongs = {n for n, each in alive.items() if stage_on(nouns.noun(noun), name, each) is not None}
            # What was applied may fail later, of the same generation: the ledger was lost, and an orphan is in the way.
            good = {n for n, row in placed.items() if row == (*(generation,) * 4, Outcome.APPLIED)}
            if placed.keys() - good or (not absent and belongs - good):
                found[noun, name] = f"{found.get((noun, name), '')} {resource}: {placed}"
        return [(*each, what) for each, what in found.items()]

    def check_end(self) -> None:
        """Everything agrees, is applied, is explained; a second pass finds nothing to change."""
        assert not self._unfinished(), self._unfinished()
        ended = self._raw.execute("SELECT id, state, kind FROM job WHERE ended_at IS NULL").fetchall()
        assert not ended, f"jobs that never ended: {ended}"
        self._check_numbers()
        self._world.duties()  # the last turn may have ended something after it had sealed
        with reading(self._world.engine) as connection:
            verdict = seal.verify(connection)
        assert not verdict.problem and not verdict.unsealed, verdict
        for node in self._world.nodes.values():
            self._check_machine(node)

    def _check_numbers(self) -> None:
        """Acknowledgement numbers have no gap that is not explained."""
        # By name: a node that was removed and added again may still hold what it said under its old id.
        stored: dict[tuple[str, int], set[int]] = {}
        for node, epoch, number in self._raw.execute("SELECT node, epoch, number FROM event WHERE number IS NOT NULL"):
            stored.setdefault((node, epoch), set()).add(number)
        # After a restore a node names what it told to the life before, in one range.
        gaps = [
            (node, epoch, number)
            for (node, epoch), its in stored.items()
            for number in range(1, max(its))
            # Open: what the broker lost, and then the only ledger that held it, is closed by no event, though a later
            # number of that epoch has arrived. The manager closes gaps of the present epoch alone.
            if number not in its and (epoch, number) not in self._world.nodes[node].lost
        ]
        assert not gaps or self._lives, f"gaps of (node, epoch, number): {gaps}"

    def _check_machine(self, node: Node) -> None:
        wanted = self._wanted_on(node)
        state = {thing: (held[0], held[2]) for thing, held in node.machine.state.items()}
        if node.name in self.rejoined:
            state = {thing: held for thing, held in state.items() if thing in wanted}
        assert state == wanted, f"{node.name} holds {state}, wanted is {wanted}"
        assert node.worker is not None
        known = node.machine.reconcilers()
        for noun in known:
            for entry in node.worker.ledger.entries(noun):
                if wanted.get((noun, entry.name), (0,))[0] == entry.id:
                    assert not known[noun].compare(entry, None, None), f"a second pass changes {entry}"

    def _wanted_on(self, node: Node) -> dict[tuple[str, str], Any]:
        query = """SELECT r.noun, r.name, r.id, v.payload, v.secrets FROM resource r
                   JOIN revision v ON v.resource_id = r.id AND v.generation = r.generation
                   JOIN placement p ON p.resource_id = r.id
                   WHERE NOT r.absent AND p.node_id = (SELECT id FROM resource
                                                       WHERE noun = 'node' AND name = ? AND NOT absent)"""
        return {
            (row[0], row[1]): (row[2], json.loads(row[3]) | json.loads(row[4] or b"{}"))
            for row in self._raw.execute(query, (node.name,))
        }
