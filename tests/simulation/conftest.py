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
PASSWORD = "$6$saltsalt$" + "c" * 86


@pytest.fixture(scope="session")
def template() -> Iterator[Template]:
    """Three nodes, joined and synced, and one account."""
    folder = Path(tempfile.mkdtemp(prefix="onehost-simulation-", dir=MEMORY if MEMORY.is_dir() else None))
    made = Template.make(folder)
    try:
        with taken_over():
            _fill(made)
        yield made
    finally:
        made.close()


def _fill(template: Template) -> None:
    world = World(template)
    try:
        for name in ROLES:
            world.add_node(name)
        world.apply()
        rules = Rules(world)
        rules.settle()
        world.onehost.do("account", "alice", "create", {"domain": "x.example", "password_hash": PASSWORD})
        rules.settle()
        template.saved = template.store.save()
        template.ledgers = {node.name: node.ledger() for node in world.nodes.values()}
        template.past = world.bus.past
        template.machines = {node.name: node.machine for node in world.nodes.values()}
    finally:
        world.close()


@pytest.fixture
def world(template: Template) -> Iterator[World]:
    """A quiet cluster of which a test writes the history."""
    with taken_over():
        made = World(template)
        made.addresses = len(ROLES)
        try:
            yield made
        finally:
            made.close()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much was tried, and how to try it again."""
    if Histories.counts["histories"]:
        terminalreporter.write_line(f"simulation: {Histories.said()}")
