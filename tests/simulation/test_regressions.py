"""Histories that broke something once, each written out and named by what broke."""

from __future__ import annotations

from onehost.broker_config import routing

from .lives import copied, put_back
from .rules import Rules
from .seams import CLOCK
from .world import GRACE_SECONDS, World


def test_nothing_happens(world: World) -> None:
    rules = Rules(world)
    rules.settle()
    rules.check_end()


def test_a_node_made_again_before_its_worker_noticed(world: World) -> None:
    """Removed and added again with no look at the broker between: the same worker went on under a new node's id.

    It had all that it was sent, so it acknowledged nothing. A beat under an id that has not said hello is answered
    with a hail: five turns are too few for the slower ways to the same end. And on a bus as slow as this one, a beat
    each turn, the next hail came before the hello was answered, and it began anew, for ever.
    """
    world.turn()
    world.turn()
    world.onehost.do("node", "s1", "remove")
    world.add_node("s1")
    for _ in range(5):
        CLOCK.elapsed_seconds += 6
        world.turn()
    assert not world.raw.execute("SELECT resource_id, node_id FROM placement WHERE done < wanted").fetchall()
    rules = Rules(world)
    rules.settle()
    rules.check_end()


def test_an_account_made_again_since_the_backup(world: World) -> None:
    """The store knows the older id by this name, the nodes hold the newer one: an orphan, which a person removes."""
    world.turn()
    world.turn()
    rules = Rules(world)
    backup = copied(world)
    world.onehost.do("account", "alice", "delete")
    world.onehost.do("account", "alice", "create", {"domain": "x.example"})
    for _ in range(3):
        world.turn()
    rules.check()
    put_back(world, *backup)
    rules.begin_life()
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


def test_a_gap_that_a_lost_ledger_leaves(world: World) -> None:
    """The broker lost an acknowledgement, a later one arrived, and the only ledger that held the first was lost too:
    no event closes that gap. The rule allows it for the numbers that this ledger held, and for no other.
    """
    world.turn()
    world.turn()
    rules = Rules(world)
    s1 = world.nodes["s1"]
    for access in ("none", "shell"):
        world.bus.purge(routing.AUDIT_QUEUE)
        world.onehost.account_set("alice", access=access)
        world.publish()
        s1.work()
    s1.replace_ledger(world.template.empty_ledger)
    assert {number for _, number in s1.lost} >= {1, 2}
    rules.settle()
    rules.check_end()


def test_a_node_added_again_on_its_old_disk_since_the_backup(world: World) -> None:
    """The store knows the node's first id again, and its ledger lists both ids as applied. With the second one, an
    orphan, went what the first one stood for; nobody saw that anything was missing until the ledger was emptied.
    """
    world.turn()
    world.turn()
    rules = Rules(world)
    backup = copied(world)
    world.onehost.do("node", "s1", "remove")
    world.add_node("s1")
    for _ in range(2):
        world.turn()
    rules.check()
    put_back(world, *backup)
    rules.begin_life()
    rules.settle()
    rules.check_end()


def test_a_clock_behind_the_backup_is_set_right_before_a_lost_store_is_put_back(world: World) -> None:
    """With the clock two hours back, the life after the backup's was begun twice: once known, once with it lost."""
    world.turn()
    world.turn()
    rules = Rules(world)
    put_back(world, *copied(world))
    rules.begin_life()
    backup = copied(world)
    CLOCK.jump(-7200)
    put_back(world, *backup)
    rules.begin_life()
    world.onehost.account_set("alice", access="none")
    rules.check()
    put_back(world, *backup, is_store_lost=True)
    rules.begin_life()
    world.onehost.account_set("alice", access="shell")
    rules.settle()
    rules.check_end()


def test_an_older_account_comes_back_where_a_newer_one_is_removed(world: World) -> None:
    """Made again twice, the second time while storage had lost its ledger: the web nodes had removed the one account
    and not made the next. A restored store wants the first one there, and it is written over nothing.
    """
    world.turn()
    world.turn()
    rules = Rules(world)
    backup = copied(world)
    for is_lost in (False, True):
        if is_lost:
            world.nodes["s1"].replace_ledger(world.template.empty_ledger)
            world.nodes["s1"].start()
        world.onehost.do("account", "alice", "delete")
        world.onehost.do("account", "alice", "create", {"domain": None})
        for _ in range(2):
            world.turn()
            rules.check()
    assert ("account", "alice") not in world.nodes["w1"].machine.state
    put_back(world, *backup)
    rules.begin_life()
    rules.settle()
    rules.check_end()


def test_a_node_added_again_since_the_backup_and_once_more_after_it(world: World) -> None:
    """The machine stands for the id that the restored store does not know: the newest one fails until that one is
    removed as an orphan and a person wishes the node again.
    """
    world.turn()
    world.turn()
    rules = Rules(world)
    world.onehost.do("node", "s1", "remove")
    backup = copied(world)
    world.add_node("s1")
    for _ in range(2):
        world.turn()
    rules.check()
    put_back(world, *backup)
    rules.begin_life()
    rules.settle()
    rules.check_end()


def test_store_and_ledger_are_both_older_than_a_removal(world: World) -> None:
    """The node had removed another; the store was put back, and the node's ledger too: nobody missed anything."""
    world.turn()
    world.turn()
    rules = Rules(world)
    backup = copied(world)
    world.onehost.do("node", "w1", "remove")
    for _ in range(2):
        world.turn()
    rules.check()
    put_back(world, *backup)
    rules.begin_life()
    s1 = world.nodes["s1"]
    s1.replace_ledger(world.template.ledgers["s1"])
    s1.start()
    rules.settle()
    rules.check_end()


def test_a_removal_that_failed_is_tried_again_though_the_name_was_made_again(world: World) -> None:
    """Removed, but not on storage; made again and removed while that lasted: the older id had no job of its own."""
    world.turn()
    world.turn()
    rules = Rules(world)
    machine = world.nodes["s1"].machine
    machine.broken[("account", "alice")] = "permanent"
    for verb, fields in (("delete", {}), ("create", {"domain": None}), ("delete", {})):
        world.onehost.do("account", "alice", verb, fields)
        for _ in range(3):
            world.turn()
            CLOCK.elapsed_seconds += GRACE_SECONDS
    world.heal()
    assert ("account", "alice") in machine.state
    world.onehost.do("account", "alice", "retry")
    rules.settle()
    rules.check_end()
