"""Steps of a history in which the store loses what happened since its last backup, and begins a new life."""

from __future__ import annotations

import sqlite3
from contextlib import suppress

from hypothesis import strategies as st
from hypothesis.stateful import rule

from onehost.models.errors import Refused
from onehost.models.store import reading
from onehost.producer import backup, numbers, restore
from onehost.producer.archive import Manifest

from .seams import CLOCK
from .steps import Steps
from .world import World

#: A store is put back by a person, who takes this long, in seconds. Lives are told apart by minutes.
RESTORE_SECONDS = 60


def copied(world: World) -> tuple[sqlite3.Connection, Manifest]:
    """A backup: the copy, and what it is of."""
    with reading(world.engine) as connection:
        manifest = backup._manifest(connection, "sqlite")
    return world.template.store.save(), manifest


def put_back(world: World, copy: sqlite3.Connection, manifest: Manifest, *, is_store_lost: bool = False) -> None:
    """What `restore` does, with relay and audit stopped. `is_store_lost`: nobody can tell which life it was in.

    A person whose clock is behind the backup sets it right first.
    """
    try:
        restore.refuse_clock_behind(manifest)
    except Refused:
        CLOCK.come_right()
    above = manifest.incarnation
    if not is_store_lost:
        with reading(world.engine) as connection:
            above = max(above, numbers.incarnation(connection))
    CLOCK.elapsed_seconds += RESTORE_SECONDS
    world.template.store.restore(copy)
    restore._begin(world.engine, manifest, above, "simulation")
    world.start_manager()


class Lives(Steps):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.backup = copied(self.world)

    @rule()
    def back_up(self) -> None:
        self.backup[0].close()
        self.backup = copied(self.world)

    @rule(is_store_lost=st.booleans())
    def put_back(self, is_store_lost: bool) -> None:
        put_back(self.world, *self.backup, is_store_lost=is_store_lost)
        self.rules.begin_life()

    @rule()
    def remove_orphan(self) -> None:
        """A person has looked at what the node holds, and it is not wanted."""
        for orphan in self.world.onehost.orphans()[:1]:
            with suppress(Refused):
                self.world.remove_orphan(orphan["id"])
        self.rules.remember_confirmed()

    def teardown(self) -> None:
        self.backup[0].close()
