"""Rows: the network between each process and the broker, broken by the proxy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from .cluster import wait_until
from .proxy import Rule
from .row import Row, Trial

#: Places at which a connection is cut, in bytes: within the greeting, the login, a frame's head, a body.
CUTS = (1, 7, 8, 100, 400, 520, 1000, 3000, 20_000)


@contextmanager
def broken(trial: Trial) -> Iterator[list[str]]:
    """All links, in a random order; whole again at the end."""
    links = list(trial.cluster.proxy.links)
    trial.chance.shuffle(links)
    try:
        yield links
    finally:
        trial.cluster.proxy.heal()


def delayed(trial: Trial) -> None:
    with broken(trial) as links:
        for link in links:
            rule = Rule(delay_seconds=0.05, jitter_seconds=0.15)
            trial.cluster.proxy.set(link, rule, rule)
        trial.stream.wait_for(20)


def cut(trial: Trial) -> None:
    """Each link is cut three times after so many bytes, in both directions."""
    proxy = trial.cluster.proxy
    with broken(trial) as links:
        before = {link: proxy.links[link].cuts for link in links}
        for _ in range(3):
            now = sum(link.cuts for link in proxy.links.values())
            for link in links:
                up, down = (Rule(cut_after=trial.chance.choice(CUTS)) for _ in range(2))
                proxy.set(link, *trial.chance.choice([(up, None), (None, down)]))
            wait_until(lambda now=now: sum(link.cuts for link in proxy.links.values()) >= now + len(links) - 2, 20,
                       "the cuts")  # fmt: skip
        trial.notes.append(f"{sum(proxy.links[link].cuts - before[link] for link in links)} cuts")


def half_open(trial: Trial) -> None:
    """The far end is gone and nobody says so; then the network resets what it does not know."""
    proxy = trial.cluster.proxy
    with broken(trial) as links:
        rule = Rule(half_open=True)
        for link in links[:3]:
            proxy.set(link, rule, rule)
        trial.stream.wait_for(20)
        time.sleep(6)
        for link in links[:3]:
            proxy.down(link)


def black_hole(trial: Trial) -> None:
    """Nothing passes any more, longer than heartbeats allow on one link, shorter on two."""
    proxy, rule = trial.cluster.proxy, Rule(hole=True)
    with broken(trial) as links:
        for link in links[:3]:
            proxy.set(link, rule, rule)
        time.sleep(6)
        for link in links[1:3]:
            proxy.set(link)
        time.sleep(18)


def one_way(trial: Trial) -> None:
    """What a process says arrives, and it hears nothing; or the other way round."""
    proxy = trial.cluster.proxy
    with broken(trial) as links:
        for link in links[:4]:
            proxy.set(link, *trial.chance.choice([(Rule(hole=True), None), (None, Rule(hole=True))]))
        time.sleep(8)


def slow(trial: Trial) -> None:
    with broken(trial) as links:
        for link in links:
            proxy_rule = Rule(rate=trial.chance.choice([2000, 8000, 30_000]))
            trial.cluster.proxy.set(link, proxy_rule, proxy_rule)
        trial.stream.wait_for(20)
        time.sleep(2)


def swizzle(trial: Trial) -> None:
    """A random subset of links is stopped one by one, and comes back in a random order."""
    proxy, chance = trial.cluster.proxy, trial.chance
    with broken(trial) as links:
        for _ in range(2):
            some = chance.sample(links, chance.randint(2, len(links)))
            for link in some:
                if chance.random() < 0.5:
                    proxy.down(link)
                else:
                    proxy.set(link, Rule(hole=True), Rule(hole=True))
                time.sleep(chance.random())
            for link in chance.sample(some, len(some)):
                proxy.set(link)
                proxy.up(link)
                time.sleep(chance.random())


ROWS = (
    Row("network: delay", delayed, "P1 P6"),
    Row("network: cut after k bytes", cut, "P1 P3", back_seconds=45.0),
    Row("network: half-open", half_open, "P1 P7", "postgresql"),
    Row("network: black hole", black_hole, "P1 P7"),
    Row("network: one way only", one_way, "P1 P7"),
    Row("network: slow", slow, "P6"),
    Row("network: swizzle", swizzle, "P1 P2 P3 P4 P5 P6", "postgresql"),
)
