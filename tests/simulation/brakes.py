"""Steps of a history that hold something back: pauses, held jobs, grace times, batches; and actions, done once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import rule

from onehost.models.errors import Refused
from onehost.producer.submit import Wish

from .seams import POINTS
from .steps import ACCOUNT, NAMES, NODES, SEEDS, SEVERAL, Steps, points
from .world import chance

ACTION = st.one_of(
    st.builds(lambda name: Wish("account", name, "logout", {}, "panel"), NAMES),
    st.builds(lambda name: Wish("node", name, "sync", {}, "panel"), NODES),
)


class Brakes(Steps):
    """See the module."""

    @rule(node=st.one_of(st.none(), NODES), verb=st.sampled_from(["pause", "resume", "resume"]), reached=SEVERAL)
    def brake(self, node: str | None, verb: str, reached: Sequence[str]) -> None:
        """Of one node, or of all. Some are reached by the letter."""
        with suppress(Refused):
            getattr(self.world.onehost, verb)(node)
        self.world.publish()
        for name in reached:
            self.world.nodes[name].deliver(1000)

    @rule(wish=ACCOUNT, node=NODES)
    def pause_with_work_waiting(self, wish: Wish, node: str) -> None:
        """The letter of the pause comes with something to do."""
        self.submit(wish)
        self.world.publish()
        with suppress(Refused):
            self.world.onehost.pause(node)
        self.world.publish()
        self.world.nodes[node].work()

    @rule(verb=st.sampled_from(["release", "cancel"]))
    def held(self, verb: str) -> None:
        """A person decides about the newest job that is held."""
        query = "SELECT id FROM job WHERE state = 'held' AND ended_at IS NULL ORDER BY id DESC LIMIT 1"
        if job := self.world.raw.execute(query).fetchone():
            with suppress(Refused):
                getattr(self.world.onehost, verb)(job[0])

    @rule(name=NAMES, domain=st.sampled_from([None, "x.example"]))
    def make_and_suspend(self, name: str, domain: str | None) -> None:
        """Often enough, this is held."""
        self.submit(Wish("account", name, "create", {"domain": domain}, "panel"))
        for verb in ("suspend", "unsuspend"):
            self.submit(Wish("account", name, verb, {}, "panel"))

    @rule(name=NAMES, turns=st.integers(0, 2), nodes=SEVERAL)
    def remove_and_cancel(self, name: str, turns: int, nodes: Sequence[str]) -> None:
        """A mistake, noticed in time."""
        self.submit(Wish("account", name, "delete", {}, "panel"))
        for _ in range(turns):
            self.world.turn(nodes)
        query = "SELECT max(id) FROM job WHERE kind = 'account.delete' AND name = ? AND state = 'running'"
        if job := self.world.raw.execute(query, (name,)).fetchone()[0]:
            self.submit(Wish("account", name, "cancel", {"job": job}, "panel"))

    @rule(wish=ACCOUNT, batch=st.sampled_from(["1", "50%"]), max_fail=st.sampled_from([None, None, 0, 1]),
          broken=st.one_of(st.none(), NODES))  # fmt: skip
    def in_batches(self, wish: Wish, batch: str, max_fail: int | None, broken: str | None) -> None:
        if broken:
            self.world.nodes[broken].machine.broken[("account", wish.name)] = "permanent"
        self.submit(replace(wish, batch=batch, max_fail=max_fail))
        for _ in range(2):
            self.world.turn()

    @rule(wish=ACTION, nodes=SEVERAL, seed=SEEDS, point=points("action.started"))
    def act(self, wish: Wish, nodes: Sequence[str], seed: int, point: str) -> None:
        """It may arrive twice, and the worker may die in the middle of it."""
        self.submit(wish)
        self.world.publish()
        for name in nodes:
            node = self.world.nodes[name]
            self.world.bus.duplicate(node.queue, chance(seed))
            node.deliver(1000)
            self.world.bus.replay(node.queue, chance(seed))
        POINTS.arm(point)
        for name in nodes:
            self.world.nodes[name].round()
            self.world.nodes[name].start()
            self.world.nodes[name].work()
