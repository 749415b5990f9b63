"""What a broker has, or should have, as comparable data; and the steps from the one to the other. Knows no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Content = Mapping[str, Any]


class Verb(StrEnum):
    """What a step does."""

    CREATE = "create"
    CHANGE = "change"
    REMOVE = "remove"


class Kind(StrEnum):
    """What a step is about, in the order in which things are made; removal goes the other way round.

    Policies stand before the queues they are for, and rights before the credential that lets a user use them.
    """

    VHOST = "vhost"
    EXCHANGE = "exchange"
    POLICY = "policy"
    QUEUE = "queue"
    BINDING = "binding"
    USER = "user"
    PERMISSION = "permission"
    TOPIC_PERMISSION = "topic permission"
    LIMITS = "limits"
    CREDENTIAL = "credential"
    #: In a cluster of brokers. Last: nothing stands on it, and not every broker can do it.
    REPLICA = "replica"
    #: Not on the broker: the file that it loads at boot.
    DEFINITIONS = "definitions file"


#: What a user has and loses together with it.
OF_A_USER = (Kind.PERMISSION, Kind.TOPIC_PERMISSION, Kind.LIMITS, Kind.CREDENTIAL)
#: Never shown in a step's detail.
_SECRET = frozenset({"password_hash"})


@dataclass(frozen=True)
class State:
    """Everything of onehost on a broker: for each kind, name to content."""

    objects: Mapping[Kind, Mapping[str, Content]]

    def of(self, kind: Kind) -> Mapping[str, Content]:
        """All objects of one kind, by name."""
        return self.objects.get(kind, {})


@dataclass(frozen=True)
class Step:
    """One change. `content` is what is wanted; of a removal, what was found."""

    verb: Verb
    kind: Kind
    name: str
    detail: str = ""
    content: Content = field(default_factory=dict, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.verb} {self.kind} {self.name}" + (f": {self.detail}" if self.detail else "")


def difference(desired: State, observed: State) -> list[Step]:
    """The steps that make `observed` equal to `desired`, in a safe order: first what is made, then what is removed."""
    there = _without_casualties(desired, observed)
    steps: list[Step] = []
    for kind in Kind:
        for name, content in desired.of(kind).items():
            found = there.of(kind).get(name)
            if found is None:
                steps.append(Step(Verb.CREATE, kind, name, content=content))
            elif detail := ", ".join(_differing(content, found)):
                steps.append(Step(Verb.CHANGE, kind, name, detail, content))
    for kind in reversed(Kind):
        steps += [
            Step(Verb.REMOVE, kind, name, content=content)
            for name, content in there.of(kind).items()
            if name not in desired.of(kind)
        ]
    return steps


def _differing(wanted: Content, found: Content) -> Iterator[str]:
    for key, value in wanted.items():
        if found.get(key) != value:
            yield key if key in _SECRET else f"{key} is {found.get(key)!r}, not {value!r}"


def _without_casualties(desired: State, observed: State) -> State:
    """`observed` without what goes by itself when its user, queue or exchange is removed or made anew."""
    gone_users = observed.of(Kind.USER).keys() - desired.of(Kind.USER).keys()
    gone_ends = {
        name
        for kind in (Kind.EXCHANGE, Kind.QUEUE)
        for name, found in observed.of(kind).items()
        if name not in desired.of(kind) or any(_differing(desired.of(kind)[name], found))
    }
    kept: dict[Kind, Mapping[str, Content]] = dict(observed.objects)
    for kind in OF_A_USER:
        kept[kind] = {n: c for n, c in observed.of(kind).items() if c["user"] not in gone_users}
    kept[Kind.BINDING] = {
        n: c for n, c in observed.of(Kind.BINDING).items() if not gone_ends & {c["source"], c["destination"]}
    }
    return State(kept)
