"""Histories that broke something once, each written out and named by what broke."""

from __future__ import annotations

from onehost.broker_config import routing

from .rules import Rules
from .seams import CLOCK
from .world import World


def test_nothing_happens(world: World) -> None:
    rules = Rules(world)
    rules.settle()
    rules.check_end()


def test_a_node_made_again_before_its_worker_noticed(world: World) -> None:
    """Removed and added again with no look at the broker between: the same worker went on under a new node's id.

    It had all that it was sent, so it acknowledged nothing, and nobody asked it to say hello: open for ever.
    """
    world.turn()
    world.turn()
    CLOCK.elapsed_seconds += 6
    rules = Rules(world)
    world.onehost.do("node", "s1", "remove")
    world.add_node("s1")
    rules.settle()
    rules.check_end()


def test_an_old_generation_is_a_whole_spec_while_a_removal_is_under_way(world: World) -> None:
    """Storage is removed from last. Its ledger was lost before that: the generation before was sent to it again, but
    its secret had gone with the removal, and the field was missing.
    """
    world.turn()
    world.turn()
    rules = Rules(world)
    world.onehost.do("account", "alice", "delete")
    world.nodes["s1"].replace_ledger(world.template.empty_ledger)
    world.nodes["s1"].start()
    for _ in range(3):
        world.turn(["s1"])
    assert "password_hash" in world.nodes["s1"].machine.state[("account", "alice")][2]
    rules.settle()
    rules.check_end()


def test_a_gap_that_was_closed_is_over(world: World) -> None:
    """A node removed and added again under its old worker: one acknowledgement stands under the old id, the next one
    under the new. The gap was closed by an event, but what the node may forget still ended before it, for ever.
    """
    world.turn()
    world.turn()
    rules = Rules(world)
    world.onehost.do("account", "alice", "delete")
    world.publish()
    world.nodes["w2"].work()
    world.onehost.do("node", "w1", "remove")
    rules.settle()
    rules.check_end()


def test_a_gap_is_seen_though_the_digests_agree(world: World) -> None:
    """The queue of acknowledgements was purged; a later one on the same resource arrived. Nothing differed but the
    numbers, so nobody said hello: the gap had no explanation, and the node kept all that it reported later.
    """
    world.turn()
    world.turn()
    rules = Rules(world)
    for access in ("none", "shell"):
        world.bus.purge(routing.AUDIT_QUEUE)
        world.onehost.account_set("alice", access=access)
        world.publish()
        world.nodes["w1"].work()
    rules.settle()
    rules.check_end()
