"""What a noun declares. Client methods, command line, dry run and placement all follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Protocol

from marshmallow import RAISE, Schema, ValidationError

from ..errors import Invalid

Spec = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """Nodes that are opened together. `waits_for_all`: the next stage opens only when each of them applied."""

    roles: frozenset[str]
    waits_for_all: bool = True


@dataclass(frozen=True)
class Claim:
    """A name or number that one resource alone may hold. `forever`: it never returns, not even after removal."""

    kind: str
    value: str
    forever: bool = False


@dataclass(frozen=True)
class Option:
    """One thing a verb takes on the command line, stored in the spec's field of that name."""

    field: str
    help: str
    #: How it is given: text, number, limit (a number or none), yes_no, list, mapping (NAME=VALUE), choice, password or
    #: file (content of a file, one item a line).
    kind: str = "text"
    choices: tuple[str, ...] = ()
    required: bool = False
    #: Given by position, after the resource's name.
    positional: bool = False


@dataclass(frozen=True)
class Verb:
    """A wish with a name of its own: `fixed` is merged into the spec, `options` are what a caller may say beside it."""

    name: str
    help: str
    example: str
    fixed: Mapping[str, Any] | None = None
    options: Sequence[Option] = ()
    makes: bool = False
    removes: bool = False
    #: A destructive verb asks for the resource's name again.
    asks: bool = False


def delete(text: str, name: str) -> Verb:
    """The verb that removes a resource; `name` is one for its example."""
    return Verb("delete", text, f"delete {name} --yes {name}", removes=True, asks=True)


@dataclass(frozen=True)
class Action:
    """Something to be done once on nodes, which is no state: at most once, soon or not at all."""

    name: str
    help: str
    example: str
    #: Only on nodes with one of these roles; empty: on every node where the resource is.
    roles: frozenset[str] = frozenset()
    #: Only on the nodes that the resource is placed on for itself (`extra_nodes`).
    on_itself: bool = False
    #: Not done after this long.
    deadline_seconds: float = 60.0
    #: What it must be told beside the resource. None: nothing.
    schema: type[Schema] | None = None
    #: The kind of its job, where it is not NOUN.NAME: then it has a command group of its own, too.
    kind: str = ""

    def load(self, given: Mapping[str, Any]) -> Spec:
        """What it is told, checked. Raises Invalid."""
        if self.schema is None and given:
            raise Invalid(f"{self.name} takes no fields", dict.fromkeys(given, "unknown"))
        if self.schema is None:
            return {}
        try:
            loaded: Spec = _loader(self.schema).load(dict(given))
        except ValidationError as error:
            problems = flatten(error.messages)
            raise Invalid("; ".join(f"{field}: {text}" for field, text in problems.items()), problems) from None
        return loaded


class Surroundings(Protocol):
    """What a noun may look at while a wish is checked: the wanted specs of the store, in the same transaction."""

    def all(self, noun: str) -> dict[str, Spec]:
        """Wanted spec by name of every resource of `noun`."""
        ...

    def number(self, kind: str, first: int, last: int) -> int:
        """A number from the range that was never given out before. Raises Refused when the range is used up."""
        ...

    def owner(self, noun: str, name: str) -> tuple[int, Spec] | None:
        """Id and wanted spec of a living resource; None if there is none."""
        ...

    def holder(self, kind: str, value: str) -> str | None:
        """What holds a claim, by name: the owner of the resource that has it, or that itself; None if it is free."""
        ...

    def setting(self, name: str) -> Any:
        """One of the manager's settings."""
        ...


@cache
def _loader(schema: type[Schema]) -> Schema:
    """To make one costs more than to load by it."""
    return schema(unknown=RAISE)


class Noun:
    """A kind of resource. Subclasses say what differs; an instance stands in its module as NOUN."""

    name: ClassVar[str]
    plural: ClassVar[str]
    schema: ClassVar[type[Schema]]
    #: Major.minor: a new optional field raises minor, anything a worker must not ignore raises major.
    version: ClassVar[tuple[int, int]] = (1, 0)
    #: Fields that never stand in a payload, an event or a list.
    secret_fields: ClassVar[frozenset[str]] = frozenset()
    #: The noun of its owner: removed with it, and the spec names it in a field of that name. None: it stands alone.
    belongs_to: ClassVar[str | None] = None
    #: Fields of the owner's spec that it carries, given by the manager, beside `OWNER_id`.
    inherits: ClassVar[tuple[str, ...]] = ()
    #: The limit of its owner that counts it. None: it is not counted.
    limit: ClassVar[str | None] = None
    #: The noun that some of its fields follow from, named in a field of that name: a change of that one is a `set` of
    #: each that names it.
    follows: ClassVar[str | None] = None
    #: Manager fields that follow from it: worked out anew by `number` at every wish, None where it says nothing.
    following_fields: ClassVar[frozenset[str]] = frozenset()
    #: Fields that only the manager sets.
    manager_fields: ClassVar[frozenset[str]] = frozenset()
    #: Fields of which a change must not wait behind others: a suspension, a password.
    urgent_fields: ClassVar[frozenset[str]] = frozenset()
    #: Kinds of the numbers that `numbers` finds, each given out once (uid).
    number_kinds: ClassVar[frozenset[str]] = frozenset()
    verbs: ClassVar[Sequence[Verb]] = ()
    actions: ClassVar[Sequence[Action]] = ()
    #: By verb why a job of it cannot be reverted. What makes something is never reverted: that would be a removal.
    no_way_back: ClassVar[Mapping[str, str]] = {}
    #: Columns of `list`, after the name.
    columns: ClassVar[Sequence[str]] = ()
    #: Rounds take nouns of lower order first, and remove them last.
    order: ClassVar[int] = 50

    def check_name(self, name: str) -> str:
        """The one spelling of `name`. Raises Invalid."""
        raise NotImplementedError

    def load(self, given: Mapping[str, Any]) -> Spec:
        """A whole spec with defaults filled in. Raises Invalid, naming each field and what is wrong with it."""
        try:
            loaded: Spec = _loader(self.schema).load(dict(given))
        except ValidationError as error:
            problems = flatten(error.messages)
            what = "; ".join(f"{field}: {text}" for field, text in problems.items())
            raise Invalid(f"{self.name} is not valid: {what}", problems) from None
        return loaded

    def check(self, name: str, spec: Spec | None, before: Spec | None, around: Surroundings) -> None:
        """Rules that need to look around. `spec` None: it is to be removed. Raises Refused."""

    def number(self, spec: Spec, before: Spec | None, around: Surroundings) -> Spec:
        """The spec with what only the manager can give (uid, shard). Called after `check`."""
        return spec

    def numbers(self, spec: Mapping[str, Any]) -> Mapping[str, int]:
        """The given numbers that stand in a spec, by kind. Nodes remember the highest of each for a restored store."""
        return {}

    def takes(self, spec: Spec) -> Mapping[str, int]:
        """How much of which limits this spec takes."""
        return {self.limit: 1} if self.limit else {}

    def claims(self, name: str, spec: Spec) -> Iterable[Claim]:
        """What this spec must hold alone."""
        return ()

    def stages(self) -> Sequence[Stage]:
        """In which order the nodes are opened; a node belongs to the first stage with a role of its own."""
        raise NotImplementedError

    def ordered(self, spec: Spec, before: Spec) -> bool:
        """Whether this change needs its stages one after the other; else all nodes are opened at once."""
        return True

    def extra_nodes(self, name: str) -> frozenset[str]:
        """Nodes it is placed on whatever their roles, in the last stage."""
        return frozenset()

    def urgent(self, spec: Spec | None, applied: Mapping[str, Any] | None) -> bool:
        """Whether it must not wait behind others: a removal, or a change of `urgent_fields`."""
        if spec is None or applied is None:
            return spec is None
        return any(spec.get(key) != applied.get(key) for key in self.urgent_fields)

    def destroys(self, spec: Spec | None, before: Spec | None) -> bool:
        """Whether this change takes away what somebody uses: so many of them in an hour are held for a person."""
        return spec is None and before is not None

    def has_grace(self) -> bool:
        """Whether the last stage of a removal waits out a grace time. Only where something comes before it."""
        return len(self.stages()) > 1

    def split(self, spec: Spec) -> tuple[Spec, Spec]:
        """The spec without its secrets, and the secrets."""
        secrets = {k: v for k, v in spec.items() if k in self.secret_fields}
        return {k: v for k, v in spec.items() if k not in self.secret_fields}, secrets

    def verb(self, name: str) -> Verb | None:
        """The verb of that name, if it has one."""
        return next((verb for verb in self.verbs if verb.name == name), None)

    @property
    def acting(self) -> Sequence[str]:
        """The kinds of the jobs of its actions."""
        return [action.kind or f"{self.name}.{action.name}" for action in self.actions]

    def action(self, name: str) -> Action | None:
        """The action of that name, if it has one."""
        return next((action for action in self.actions if action.name == name), None)


def flatten(messages: Any, path: str = "") -> dict[str, str]:
    """Marshmallow's nested messages as one line a field: {"ssh_keys.1": "not a key"}."""
    if isinstance(messages, Mapping):
        found: dict[str, str] = {}
        for key, value in messages.items():
            found |= flatten(value, f"{path}.{key}".strip("."))
        return found
    texts = messages if isinstance(messages, list) else [messages]
    return {path or "it": " ".join(str(text) for text in texts)}
