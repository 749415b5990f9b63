"""Set-up of the simulation: the template, the profile, the seed. Prints what was run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .histories import Histories
from .rules import Rules
from .seams import taken_over
from .template import ROLES, Template
from .world import World

MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def template() -> Iterator[Template]:
    """Three nodes, joined and synced, and one account."""
    folder = Path(tempfile.mkdtemp(prefix="onehost-simulation-", dir=MEMORY if MEMORY.is_dir() else None))
    made = Template.make(folder)
    with taken_over():
        world = World(made)
        for name in ROLES:
            world.add_node(name)
        world.apply()
        rules = Rules(world)
        rules.settle()
        world.onehost.do("account", "alice", "create", {"domain": "x.example", "password_hash": "$6$saltsalt$" + "c" * 86})
        rules.settle()
        made.saved = made.store.save()
        made.ledgers = {node.name: node.ledger() for node in world.nodes.values()}
        made.past = world.bus.past
        made.machines = {node.name: node.machine for node in world.nodes.values()}
        world.close()
    yield made
    made.close()


@pytest.fixture
def world(template: Template) -> Iterator[World]:
    """A quiet cluster of which a test writes the history."""
    with taken_over():
        made = World(template)
        made.addresses = len(ROLES)
        yield made
        made.close()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much was tried, and how to try it again."""
    if Histories.counts["histories"]:
        terminalreporter.write_line(f"simulation: {Histories.said()}")
