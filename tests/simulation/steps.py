"""What every step of a history may use: the words to choose from, the world, and a wish with what it must obey."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from onehost.broker_config import routing
from onehost.models.errors import Refused
from onehost.producer.submit import Wish

from .bus import Fault
from .rules import Rules
from .seams import Crash
from .template import ROLES, Template
from .world import World

NODES = st.sampled_from(sorted(ROLES))
SEVERAL = st.lists(NODES, min_size=1, max_size=3, unique=True)
QUEUES = st.sampled_from([*map(routing.node_queue, ROLES), routing.AUDIT_QUEUE])
NAMES = st.sampled_from(["alice", "bob"])
LIMITS = st.sampled_from([1, 2, 1000])
SEEDS = st.integers(0, 99)
DOMAINS = st.sampled_from([None, "x.example", "y.example"])
PASSWORDS = st.builds(lambda last: "$6$saltsalt$" + "a" * 85 + last, st.sampled_from("ab"))
SPEC = st.fixed_dictionaries(
    {"domain": DOMAINS},
    optional={"document_root": st.sampled_from(["web", "site"]), "password_hash": PASSWORDS},
)
CHANGE = st.one_of(
    st.tuples(st.just("apply"), SPEC),
    st.tuples(st.just("set"), SPEC),
    st.tuples(st.just("passwd"), st.fixed_dictionaries({"password_hash": PASSWORDS})),
    st.tuples(st.sampled_from(["suspend", "unsuspend", "retry", "delete"]), st.just({})),
)
ACCOUNT = st.builds(lambda name, change: Wish("account", name, *change, "panel"), NAMES, CHANGE)
SERVICE = st.one_of(
    st.builds(
        lambda n: ("apply", {"address": "198.51.100.1", "port": 80, "persistence_seconds": n}), st.integers(0, 2)
    ),
    st.just(("delete", {})),
)
ENTRY = st.one_of(
    st.builds(lambda name, minute: ("apply", {"account": name, "schedule": f"{minute} * * * *", "command": "true"}),
              NAMES, st.integers(0, 2)),
    st.tuples(st.sampled_from(["enable", "disable", "retry", "delete"]), st.just({})),
)  # fmt: skip
OTHER = st.one_of(
    st.builds(lambda owner, change: Wish("cron", f"{change[1].get('account', owner)}.one", *change, "panel"),
              NAMES, ENTRY),
    st.builds(lambda change: Wish("virtual_service", "http", *change, "panel"), SERVICE),
    st.builds(lambda name, verb: Wish("node", name, verb, {}, "panel"), NODES,
              st.sampled_from(["cordon", "uncordon", "drain"])),
)  # fmt: skip
FAULTS = st.one_of(
    st.none(),
    st.builds(Fault, st.just("lost"), st.integers(0, 3), st.integers(0, 3)),
    st.builds(Fault, st.sampled_from(["refused", "nacked"])),
)


def points(*names: str) -> st.SearchStrategy[str]:
    """Where a process dies; mostly nowhere."""
    return st.sampled_from([""] * len(names) + list(names))


class Steps(RuleBasedStateMachine):
    """The world of one history."""

    template: ClassVar[Template]
    seed: ClassVar[int]
    #: What has been run, for the summary.
    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.template)
        self.world.addresses = len(ROLES)
        self.world.turn()
        self.world.turn()
        self.rules = Rules(self.world)

    def submit(self, *wishes: Wish, dry_run: bool = False) -> None:
        """Some wishes together; a rule may refuse them, the process may die."""
        before = self.rules.brakes.before_wishes()
        try:
            receipts = self.world.onehost.submit(wishes, dry_run=dry_run)
        except (Refused, Crash) as error:
            self.counts[f"wishes {type(error).__name__.lower()}"] += 1
        else:
            self.counts["wishes"] += 1
            self.rules.brakes.after_wishes(before, receipts, is_dry=dry_run)
