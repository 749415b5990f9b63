"""What must be true after every step."""

from __future__ import annotations

import json

from onehost.models.digest import Digest
from onehost.models.states import Outcome
from onehost.producer.pause import EVERY

from .brake_rules import BrakeRules
from .given import Given
from .node import Node
from .world import World

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
PLACEMENTS = "SELECT resource_id, node_id, wanted, sent, done, applied, outcome FROM placement"


class Always:
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
        # Unless store and ledger are both older than the machine: then nobody knows.
        assert not node.machine.overwritten or (self._lives and node.life > 1), node.machine.overwritten
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
        for (noun, _), resource, generation, spec in node.machine.changes[self._changes[node.name] :]:
            assert (resource, generation) in self._given.payloads, (
                f"{node.name} holds {resource}.{generation}, which nobody has wished"
            )
            row = self._given.payloads[resource, generation]
            payload = None if row is None else json.loads(row)
            plain = None if spec is None else {key: spec[key] for key in spec if key != "password_hash"}
            assert payload == plain, f"{node.name} holds another spec of {resource}.{generation}"
            if node.name in self.rejoined:
                self._given.forget(node)
            elif noun == "account":
                self._given.applied(node, resource, spec)
        self._changes[node.name] = len(node.machine.changes)
        if self._lives:
            return  # one of two may be an orphan, of which the store knows nothing
        domains = [spec["domain"] for (noun, _), (*_, spec) in node.machine.state.items() if noun == "account"]
        held = [domain for domain in domains if domain]
        assert len(held) == len(set(held)) or node.name in self.rejoined, f"{node.name}: a domain is held twice"
