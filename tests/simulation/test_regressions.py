"""Histories that broke something once, each written out and named by what broke."""

from __future__ import annotations

from .rules import Rules
from .world import World


def test_nothing_happens(world: World) -> None:
    rules = Rules(world)
    rules.settle()
    rules.check_end()
