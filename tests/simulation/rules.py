"""What must be true after every step, and what must be true when everybody is well and nothing is on its way."""

from __future__ import annotations

import json
from typing import Any

from onehost.models import nouns
from onehost.models.digest import Digest
from onehost.models.states import Outcome
from onehost.models.store import reading
from onehost.producer import orphans, seal
from onehost.producer.membership import nodes, stage_on
from onehost.producer.pause import EVERY

from .brake_rules import BrakeRules
from .given import Given
from .seams import CLOCK
from .world import Node, World

#: Turns after which a healed cluster must be quiet.
TURNS = 40
#: Counts of a job by what its targets became.
COUNTED = """
SELECT j.id, j.state, j.ended_at IS NOT NULL, j.targets, j.applied, j.failed, j.closed, count(t.node_id),
       coalesce(sum(t.outcome = 'applied'), 0), coalesce(sum(t.outcome = 'failed'), 0),
       coalesce(sum(t.outcome NOT IN ('applied', 'failed')), 0),
       coalesce(sum(t.node_id IS NOT NULL AND t.outcome IS NULL), 0),
       coalesce(sum(t.outcome <> 'applied' AND coalesce(t.reason, '') = ''), 0)
FROM job j LEFT JOIN target t ON t.job_id = j.id GROUP BY j.id
"""
DOUBLES = """
SELECT node_id, epoch, number, count(*) FROM event WHERE number IS NOT NULL GROUP BY 1, 2, 3 HAVING count(*) > 1
"""
#: Removals in their grace time, and actions.
WAITING = "SELECT id, kind FROM job WHERE ended_at IS NULL AND (grace_until_at IS NOT NULL OR generation = 0)"
PLACEMENTS = "SELECT resource_id, node_id, wanted, sent, done, applied, outcome FROM placement"


class Rules:
    """Remembers what was, so that what must not fall is seen falling."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._raw = world.raw
        self._placed: dict[tuple[int, int], tuple[int, ...]] = {}
        self._entries: dict[tuple[str, int], dict[int, tuple[int, ...]]] = {}
        self._sealed: list[tuple[int, int]] = []
        self._changes: dict[str, int] = dict.fromkeys(world.nodes, 0)
        #: Nodes that left and came back on their old disk: what stands there is the operator's.
        self.rejoined = world.rejoined
        self.brakes = BrakeRules(world)
        self._given = Given(world.raw)
        #: How often a backup was put back.
        self._lives = 0
        self.remember_confirmed()

    def begin_life(self) -> None:
        """A backup was put back: what only rises has fallen, once."""
        self._lives += 1
        self._placed.clear()
        self._sealed.clear()
        self.brakes.begin_life()
        self._given.begin_life()

    def remember_confirmed(self) -> None:
        """What is marked as sent by now was so in another life of the store, or before the history."""
        for resource, node, _, sent, *_ in self._raw.execute(PLACEMENTS):
            self._world.bus.confirmed.add(f"{resource}.{node}.{sent}")

    def check(self) -> None:
        """After every step."""
        self._given.check()
        self.brakes.check()
        self._check_placements()
        self._check_jobs()
        self._check_events()
        self._check_buckets()
        for node in self._world.nodes.values():
            self._check_node(node)

    def _check_placements(self) -> None:
        placed = {(row[0], row[1]): tuple(row[2:]) for row in self._raw.execute(PLACEMENTS)}
        paused = self.brakes.still_paused()
        for key, row in placed.items():
            if row == (was := self._placed.get(key)):
                continue
            wanted, sent, done, applied, outcome = row
            assert sent <= wanted and applied <= done <= wanted, (key, row)
            assert done == wanted or outcome == Outcome.OPEN or done > 0, (key, row)
            if was:
                assert wanted >= was[0] and done >= was[2] and applied >= was[3], f"{key}: {was} fell to {row}"
            if was and sent > was[1]:
                assert not paused & {key[1], EVERY}, f"{key}: {sent} was sent to a paused node"
            if sent > (was[1] if was else 0):
                letter = f"{key[0]}.{key[1]}.{sent}"
                assert letter in self._world.bus.confirmed, f"{letter} is sent, but the broker has never confirmed it"
        self._placed = placed

    def _check_jobs(self) -> None:
        for job, state, ended, targets, applied, failed, closed, *counted in self._raw.execute(COUNTED):
            assert [targets, applied, failed, closed] == counted[:4], (job, state, counted)
            assert not (ended and counted[4] and state != "expired"), f"job {job} ended as {state} with open targets"
            assert not counted[5], f"job {job}: a target ended without a reason"

    def _check_events(self) -> None:
        doubles = self._raw.execute(DOUBLES).fetchall()
        assert not doubles, f"stored twice: {doubles}"
        last = len(self._sealed)
        new = self._raw.execute("SELECT position, event_id FROM seal WHERE position > ? ORDER BY position", (last,))
        self._sealed += new.fetchall()
        for before, (position, event) in enumerate(self._sealed[last:], last):
            assert position == before + 1, f"place {before + 1} of the chain is empty"
            # One writer at a time, and no id is lost: the order of the chain is the order of what happened.
            assert not before or event > self._sealed[before - 1][1], f"event {event} is sealed after a later one"

    def _check_buckets(self) -> None:
        """The running digests are what a count gives."""
        kept: dict[int, Digest] = {}
        for node, number, total in self._raw.execute("SELECT node_id, number, total FROM bucket"):
            kept.setdefault(node, Digest()).sums[number] = total
        if not kept:
            return
        counted = self._counted()
        for node in kept.keys() | counted.keys():
            assert kept.get(node, Digest()).sums == counted.get(node, Digest()).sums, f"digest of node {node}"

    def _counted(self) -> dict[int, Digest]:
        """By node id, the digest of what the store knows of it."""
        counted: dict[int, Digest] = {}
        for (resource, node), (wanted, _, done, _, outcome) in self._placed.items():
            if wanted:
                shown = outcome if done == wanted else Outcome.OPEN
                counted.setdefault(node, Digest()).add(resource, wanted, shown)
        return counted

    def _check_node(self, node: Node) -> None:
        assert not node.machine.violations, node.machine.violations
        self._check_changes(node)
        if node.worker is None:
            return
        worker, ledger = node.worker, node.worker.ledger
        assert worker.sync.synced.is_set() or not worker.executor.rounds, (
            f"{node.name}: a round before hello is covered"
        )
        rows = {
            row[0]: tuple(row[1:]) for row in ledger._file.read("SELECT id, wanted, done, applied, outcome FROM entry")
        }
        was = self._entries.get((node.name, node.life), {})
        if rows != was:
            for key, row in rows.items():
                assert row[2] <= row[1] <= row[0], (node.name, key, row)
                before = was.get(key, row)
                assert all(new >= old for new, old in zip(row[:3], before, strict=False)), (
                    f"{key}: {before} fell to {row}"
                )
            self._entries[(node.name, node.life)] = rows
            assert ledger.digest.sums == ledger._summed().sums, f"{node.name}: the kept digest is not that of the rows"

    def _check_changes(self, node: Node) -> None:
        """What a machine was made to hold was wanted, by a wish that was committed."""
        for _, resource, generation, spec in node.machine.changes[self._changes[node.name] :]:
            assert (resource, generation) in self._given.payloads, (
                f"{node.name} holds {resource}.{generation}, which nobody has wished"
            )
            row = self._given.payloads[resource, generation]
            payload = None if row is None else json.loads(row)
            plain = None if spec is None else {key: spec[key] for key in spec if key != "password_hash"}
            assert payload == plain, f"{node.name} holds another spec of {resource}.{generation}"
            if node.name in self.rejoined:
                self._given.forget(node)
            else:
                self._given.applied(node, resource, spec)
        self._changes[node.name] = len(node.machine.changes)
        if self._lives:
            return  # one of two may be an orphan, of which the store knows nothing
        domains = [spec["domain"] for (noun, _), (*_, spec) in node.machine.state.items() if noun == "account"]
        held = [domain for domain in domains if domain]
        assert len(held) == len(set(held)) or node.name in self.rejoined, f"{node.name}: a domain is held twice"

    # ---- at the end

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
        """A person looks at what nodes hold beyond the store, and does not want it."""
        if not self._world.onehost.orphans():
            return
        for node in self._world.nodes:
            self._world.onehost.do("node", node, "sync")
        self._run()
        for orphan in {each["id"] for each in self._world.onehost.orphans()}:
            self._world.remove_orphan(orphan)
        self.remember_confirmed()
        self._run()

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
        """Newest resources of each name that are not applied wherever they belong."""
        # The living one of a name, else the newest: an orphan that was removed may have a higher id.
        newest = """SELECT noun, name, id, generation, absent, max((1 - absent) * (1 << 62) + id)
                    FROM resource WHERE noun <> 'node' GROUP BY noun, name"""
        with reading(self._world.engine) as connection:
            alive = nodes(connection)
        found = []
        for noun, name, resource, generation, absent, _ in self._raw.execute(newest).fetchall():
            placed = {n: row for (r, n), row in self._placed.items() if r == resource}
            belongs = {n for n, each in alive.items() if stage_on(nouns.noun(noun), name, each) is not None}
            good = {n for n, row in placed.items() if row[:4] == (generation,) * 4}
            if placed.keys() - good or (not absent and belongs - good):
                found.append((noun, name, str(placed)))
        return found

    def check_end(self) -> None:
        """Everything agrees, is applied, is explained; a second pass finds nothing to change."""
        assert not self._unfinished(), self._unfinished()
        ended = self._raw.execute("SELECT id, state, kind FROM job WHERE ended_at IS NULL").fetchall()
        assert not ended, f"jobs that never ended: {ended}"
        self._check_numbers()
        with reading(self._world.engine) as connection:
            verdict = seal.verify(connection)
        assert not verdict.problem and not verdict.unsealed, verdict
        for node in self._world.nodes.values():
            self._check_machine(node)

    def _check_numbers(self) -> None:
        """Acknowledgement numbers have no gap that is not explained."""
        # By name: a node that was removed and added again may still hold what it said under its old id.
        query = """SELECT node, epoch, max(number), count(DISTINCT number) FROM event WHERE number IS NOT NULL
                   GROUP BY 1, 2 HAVING max(number) <> count(DISTINCT number)"""
        # After a restore a node names what it told to the life before, in one range.
        gaps = self._raw.execute(query).fetchall() if not self._lives else []
        assert not gaps, f"gaps in (node, epoch, last, stored): {gaps}"

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
