"""What must hold of everything that is held back: held jobs, grace times, batches, paused nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onehost.producer.wish import Receipt

from .seams import CLOCK
from .world import HELD_BEYOND, World

#: A cancel that removes what was just made is not held.
BEGUN = """
SELECT count(*) FROM job
WHERE destroys AND actor = 'panel' AND submitted_at > ? AND kind NOT LIKE '%.cancel'
"""
RAISED = "SELECT (SELECT sum(wanted) FROM placement), (SELECT sum(generation) FROM resource), count(*) FROM revision"
WRONGLY_HELD = """
SELECT id FROM job WHERE state = 'held' AND ended_at IS NULL
AND (targets OR generation OR held_wish IS NULL OR EXISTS (SELECT 1 FROM target WHERE job_id = job.id))
"""
GRACES = "SELECT id, resource_id, grace_until_at, generation FROM job WHERE grace_until_at IS NOT NULL"
LIVING = """
SELECT r.id, r.generation, v.payload, v.secrets FROM resource r
JOIN revision v ON v.resource_id = r.id AND v.generation = r.generation WHERE r.noun = 'account' AND NOT r.absent
"""
LAST_STAGES = """
SELECT j.id, t.node_id, j.resource_id, t.opened_at FROM target t JOIN job j ON j.id = t.job_id
JOIN revision v ON v.resource_id = j.resource_id AND v.generation = j.generation
WHERE t.opened_at IS NOT NULL AND v.payload IS NULL AND t.stage > 0 AND t.stage = json_array_length(j.stages) - 1
"""
MADE_AGAIN = (
    "SELECT 1 FROM resource r JOIN resource o ON o.id = ? WHERE (r.noun, r.name) = (o.noun, o.name) AND r.id > o.id"
)
LIMITED = """
SELECT t.job_id, t.node_id, t.outcome = 'failed', t.opened_at, t.ended_at, j.max_fail FROM target t
JOIN job j ON j.id = t.job_id WHERE j.max_fail IS NOT NULL
"""


@dataclass(frozen=True)
class Before:
    """As it was before some wishes."""

    begun: int
    raised: Any
    #: Jobs whose grace time runs: resource id, and generation of the removal.
    graces: dict[int, tuple[int, int]]


class BrakeRules:
    """Remembers what was held back."""

    def __init__(self, world: World) -> None:
        self._raw = world.raw
        self.begin_life()

    def begin_life(self) -> None:
        """A backup was put back: jobs have other numbers now."""
        #: Paused nodes at the last check. 0: all.
        self._paused: set[int] = set()
        self._grace_until: dict[int, int] = {}
        self._opened: set[tuple[int, int]] = set()
        #: By resource: generation, payload and secrets when it was last alive.
        self._living: dict[int, tuple[Any, ...]] = {}
        self._limited: dict[tuple[int, int], tuple[bool, bool]] = {}
        self.check()

    def check(self) -> None:
        """After every step."""
        held = self._raw.execute(WRONGLY_HELD).fetchall()
        assert not held, f"held, but not only held: jobs {held}"
        self._check_graces()
        self._check_batches()
        self._living |= {row[0]: row[1:] for row in self._raw.execute(LIVING)}

    def still_paused(self) -> set[int]:
        """Nodes that were paused when this was asked last, and are. 0: all."""
        was, self._paused = self._paused, {row[0] for row in self._raw.execute("SELECT node_id FROM pause")}
        return was & self._paused

    def _check_graces(self) -> None:
        for _, resource, until, _ in self._raw.execute(GRACES):
            self._grace_until[resource] = until
        for job, node, resource, opened_at in self._raw.execute(LAST_STAGES).fetchall():
            if (job, node) in self._opened:
                continue
            self._opened.add((job, node))
            until = self._grace_until.get(resource, 0)
            is_early = opened_at < until and not self._raw.execute(MADE_AGAIN, (resource,)).fetchone()
            assert not is_early, f"job {job}: its last stage was opened at {opened_at}, before {until}"

    def _check_batches(self) -> None:
        """Nothing is opened after more have failed than may."""
        rows = self._raw.execute(LIMITED).fetchall()
        for job, node, _, opened_at, _, max_fail in rows:
            if opened_at is None or self._limited.get((job, node), (False, False))[0]:
                continue
            failed = [
                row[1] for row in rows
                if row[0] == job and row[2] and (self._limited.get((job, row[1]), (0, 0))[1] or row[4] <= opened_at)
            ]  # fmt: skip
            assert len(failed) <= max_fail, f"job {job} was opened on node {node} after {failed} failed"
        self._limited = {(row[0], row[1]): (row[3] is not None, bool(row[2])) for row in rows}

    # ---- around wishes

    def before_wishes(self) -> Before:
        """To be given to `after_wishes`."""
        now = CLOCK.microseconds()
        graces = {row[0]: (row[1], row[3]) for row in self._raw.execute(GRACES) if row[2] > now}
        return Before(self._begun(), self._raw.execute(RAISED).fetchone(), graces)

    def after_wishes(self, before: Before, receipts: Sequence[Receipt], *, is_dry: bool) -> None:
        """The limit of the hold holds; what is held has raised nothing; a cancelled removal is undone."""
        begun = self._begun()
        assert begun <= max(before.begun, HELD_BEYOND), f"{begun} removals and suspensions were begun"
        if is_dry or all(receipt.held for receipt in receipts):
            raised = self._raw.execute(RAISED).fetchone()
            assert raised == before.raised, f"held, but {before.raised} became {raised}"
        for job, (resource, removal) in before.graces.items():
            self._check_undone(job, resource, removal)

    def _begun(self) -> int:
        hour_ago = CLOCK.microseconds() - 3_600_000_000
        return int(self._raw.execute(BEGUN, (hour_ago,)).fetchone()[0])

    def _check_undone(self, job: int, resource: int, removal: int) -> None:
        """If a cancel has ended this job, payload and password are those from before it."""
        query = "SELECT 1 FROM job WHERE resource_id = ? AND kind = 'account.cancel' AND generation > ?"
        if not self._raw.execute(query, (resource, removal)).fetchone() or resource not in self._living:
            return
        generation, *lived = self._living[resource]
        query = "SELECT generation, payload, secrets FROM revision WHERE resource_id = ? ORDER BY generation"
        rows = self._raw.execute(query, (resource,)).fetchall()
        at = next(number for number, row in enumerate(rows) if row[0] == removal)
        # Wishes of the same step may have changed it before it was removed, or after it was brought back.
        if rows[at - 1][0] == generation and at + 1 == len(rows) - 1:
            assert list(rows[-1][1:]) == lived, f"job {job} was cancelled in its grace time: {rows[-1]} is not {lived}"
