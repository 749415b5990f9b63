"""What can happen to the cluster, as rules of a machine that Hypothesis drives through histories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from onehost.models.errors import Refused
from onehost.producer.submit import Wish

from .brakes import Brakes
from .bus import Fault
from .lives import Lives
from .seams import CLOCK, POINTS
from .steps import ACCOUNT, DOMAINS, FAULTS, LIMITS, NAMES, NODES, OTHER, QUEUES, SEEDS, SEVERAL, points
from .world import chance


class Histories(Brakes, Lives):
    """One history: steps in any order, a check after each, all well at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: dict[str, bytes] = {}
        self.is_well = True
        self.counts["histories"] += 1

    @classmethod
    def said(cls) -> str:
        """What has been run so far."""
        return f"ONEHOST_SEED={cls.seed}, " + ", ".join(f"{number} {what}" for what, number in cls.counts.items())

    @invariant()
    def holds(self) -> None:
        self.counts["steps"] += 1
        POINTS.reset()
        CLOCK.elapsed_seconds += 0.2
        with self._judged():
            self.rules.check()

    def teardown(self) -> None:
        self.counts["changes of machines"] += sum(len(node.machine.changes) for node in self.world.nodes.values())
        try:
            if self.is_well:
                with self._judged():
                    self.rules.settle()
                    self.rules.check_end()
        finally:
            super().teardown()
            self.world.close()

    @contextmanager
    def _judged(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            self.is_well = False
            self.counts.setdefault("histories until the first failure", self.counts["histories"])
            raise

    # ---- wishes

    @rule(wish=ACCOUNT, point=points("submit.written", "submit.committed"))
    def wish(self, wish: Wish, point: str) -> None:
        POINTS.arm(point)
        self.submit(wish)

    @rule(wishes=st.lists(st.one_of(ACCOUNT, OTHER), min_size=1, max_size=3), dry_run=st.booleans())
    def wish_together(self, wishes: Sequence[Wish], dry_run: bool) -> None:
        self.submit(*wishes, dry_run=dry_run)

    @rule(name=NAMES, domain=DOMAINS)
    def make_again(self, name: str, domain: str | None) -> None:
        """The same name, another resource."""
        self.submit(Wish("account", name, "delete", {}, "panel"))
        self.submit(Wish("account", name, "create", {"domain": domain}, "panel"))

    @rule(back=st.integers(0, 1))
    def cancel(self, back: int) -> None:
        query = "SELECT id, noun, name FROM job WHERE noun <> 'node' ORDER BY id DESC LIMIT 1 OFFSET ?"
        if job := self.world.raw.execute(query, (back,)).fetchone():
            self.submit(Wish(job[1], job[2], "cancel", {"job": job[0]}, "panel"))

    # ---- the manager

    @rule(fault=FAULTS, point=points("relay.read", "relay.confirmed", "relay.marked"))
    def publish(self, fault: Fault | None, point: str) -> None:
        POINTS.arm(point)
        self.world.publish(fault)

    @rule(point=st.sampled_from(["relay.read", "relay.confirmed"]), wish=st.one_of(st.none(), ACCOUNT))
    def publish_with_company(self, point: str, wish: Wish | None) -> None:
        """Meanwhile a second relay does the same, or a wish comes in."""
        POINTS.arm(point, lambda: self.submit(wish) if wish else self.world.publish() and None)
        self.world.publish()

    @rule(limit=LIMITS, point=points("audit.written", "audit.committed"), settled=st.booleans())
    def audit(self, limit: int, point: str, settled: bool) -> None:
        """It may die before or after the commit, or lose its connection before it settles."""
        POINTS.arm(point)
        self.world.audit(limit, settled=settled)

    @rule(point=points("seal.read", "seal.written"))
    def duties(self, point: str) -> None:
        POINTS.arm(point)
        self.world.duties()

    # ---- the bus

    @rule(queue=QUEUES, seed=SEEDS, how=st.sampled_from(["duplicate", "shuffle"]))
    def disorder(self, queue: str, seed: int, how: str) -> None:
        getattr(self.world.bus, how)(queue, chance(seed))

    @rule(node=NODES, seed=SEEDS)
    def replay(self, node: str, seed: int) -> None:
        self.world.bus.replay(self.world.nodes[node].queue, chance(seed))

    @rule(queue=QUEUES, what=st.sampled_from(["wipe", "delete", "purge", "apply"]))
    def broker(self, queue: str, what: str) -> None:
        """All data gone, one queue gone or only emptied, or all made whole by hand."""
        if what == "apply":
            self.world.apply()
        elif what == "wipe":
            self.world.bus.wipe()
        elif what == "purge":
            self.world.bus.purge(queue)
        else:
            self.world.bus.delete(queue)

    # ---- nodes

    @rule(node=NODES, limit=LIMITS, point=points("receiver.received", "receiver.stored"), settled=st.booleans())
    def deliver(self, node: str, limit: int, point: str, settled: bool) -> None:
        """It may die before or after the commit, or lose its connection before it settles."""
        POINTS.arm(point)
        self.world.nodes[node].deliver(limit, settled=settled)

    @rule(node=NODES, point=points("round.started", "machine.changed", "round.verified", "round.recorded",
                          "action.started"),
          nth=st.integers(1, 2))  # fmt: skip
    def round(self, node: str, point: str, nth: int) -> None:
        POINTS.arm(point, nth=nth)
        self.world.nodes[node].round()

    @rule(node=NODES, point=st.sampled_from(["round.started", "machine.changed", "round.verified"]), limit=LIMITS)
    def round_while_arriving(self, node: str, point: str, limit: int) -> None:
        POINTS.arm(point, lambda: self.world.nodes[node].deliver(limit))
        self.world.nodes[node].round()

    @rule(node=NODES, fault=FAULTS, point=points("reporter.read", "reporter.confirmed"))
    def report(self, node: str, fault: Fault | None, point: str) -> None:
        POINTS.arm(point)
        self.world.nodes[node].report(fault)

    @rule(node=NODES, what=st.sampled_from(["kill", "start", "restart"]))
    def worker(self, node: str, what: str) -> None:
        if what != "start":
            self.world.nodes[node].kill()
        if what != "kill":
            self.world.nodes[node].start()

    @rule(node=NODES, what=st.sampled_from(["lose", "copy", "restore"]))
    def ledger(self, node: str, what: str) -> None:
        its = self.world.nodes[node]
        if what == "copy":
            self.copies[node] = its.ledger()
        else:
            lost = self.template.empty_ledger
            its.replace_ledger(lost if what == "lose" else self.copies.get(node, self.template.ledgers[node]))
        its.start()

    @rule(node=NODES, name=NAMES, how=st.sampled_from(["permanent", "temporary", ""]))
    def machine(self, node: str, name: str, how: str) -> None:
        """It cannot make this account any more, or again."""
        self.world.nodes[node].machine.broken[("account", name)] = how

    @rule(node=NODES)
    def come_or_go(self, node: str) -> None:
        """A node is removed, or comes back on its old disk."""
        if node in self.world.living():
            self.submit(Wish("node", node, "remove", {}, "panel"))
        else:
            with suppress(Refused):
                self.world.add_node(node)

    # ---- time, and many together

    @rule(seconds=st.sampled_from([1, 6, 6, 20, 90_000]))
    def wait(self, seconds: int) -> None:
        CLOCK.elapsed_seconds += seconds

    @rule(seconds=st.sampled_from([-7200, 7200]))
    def jump(self, seconds: int) -> None:
        CLOCK.jump(seconds)

    @rule(nodes=SEVERAL)
    def turn(self, nodes: Sequence[str]) -> None:
        self.world.turn(nodes)

    @rule()
    def calm(self) -> None:
        """Long enough for a hello to be answered and what it brings to be applied."""
        for _ in range(2):
            self.world.turn()

    @rule(wish=ACCOUNT, nodes=SEVERAL)
    def wish_and_work(self, wish: Wish, nodes: Sequence[str]) -> None:
        """As far as the queue of acknowledgements."""
        self.submit(wish)
        self.world.publish()
        for node in nodes:
            self.world.nodes[node].work()
