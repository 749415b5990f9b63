"""A node's machine, as reconcilers have made it. It outlives workers and ledgers, and remembers every change."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from onehost.models.errors import Permanent, Temporary
from onehost.producer.numbers import INCARNATION_BITS
from onehost.workers.entry import Difference, Entry

from .seams import POINTS

NOUNS = ("account", "cron", "node", "virtual_service")
SECRET = "password_hash"
#: (noun, name)
Thing = tuple[str, str]


@dataclass
class Machine:
    """What stands on one node, by noun and name: id, generation and spec."""

    state: dict[Thing, tuple[int, int, Any]] = field(default_factory=dict)
    #: Every change, in order: thing, id, generation, spec.
    changes: list[tuple[Thing, int, int, Any]] = field(default_factory=list)
    #: The newest (id, generation) that each thing was ever changed to.
    newest: dict[Thing, tuple[int, int]] = field(default_factory=dict)
    #: Ids that a restored store did not know, and that a person wants removed.
    orphans: set[int] = field(default_factory=set)
    #: How each thing fails: "permanent" or "temporary".
    broken: dict[Thing, str] = field(default_factory=dict)
    #: Rules that were broken here; a round would swallow an exception.
    violations: list[str] = field(default_factory=list)
    #: Newer things that older ones were written over.
    overwritten: list[str] = field(default_factory=list)

    #: Ids open in the ledger of the present worker that are older than an entry and of the same name.
    older_open: Callable[[Entry], list[int]] = lambda entry: []

    def reconcilers(self) -> dict[str, Recorder]:
        return {noun: Recorder(noun, self) for noun in NOUNS}

    def copy(self) -> Machine:
        return Machine(deepcopy(self.state), [], dict(self.newest))

    def change(self, entry: Entry) -> None:
        thing, at = (entry.noun, entry.name), (entry.id, entry.generation)
        newest = self.newest.get(thing, (0, 0))
        if thing not in self.state and at[1] >> INCARNATION_BITS > newest[1] >> INCARNATION_BITS:
            # The newer one is removed here. The older one is of a later life, that of a restored store which knows
            # no other by this name: it is written over nothing.
            newest = (0, 0)
        if at <= newest and not self._is_secret(thing, entry):
            self.overwritten.append(f"{thing}: {at} was written over {newest}")
        self.newest[thing] = max(at, newest)
        self.changes.append((thing, *at, entry.spec))
        if entry.spec is None:
            del self.state[thing]
            if entry.id in self.orphans:
                # A restored store may know an older id by this name, and want it there.
                del self.newest[thing]
        else:
            self.state[thing] = (*at, dict(entry.spec))

    def _is_secret(self, thing: Thing, entry: Entry) -> bool:
        """Whether nothing but a secret changes: those are the newest of all, whatever the generation."""
        held = self.state.get(thing)
        if held is None or entry.spec is None or held[:2] != (entry.id, entry.generation):
            return False
        return {**held[2], SECRET: None} == {**entry.spec, SECRET: None}


class Recorder:
    """A reconciler as strict as the real ones: it acts on its own id alone, and replaces only what it may."""

    def __init__(self, noun: str, machine: Machine) -> None:
        self.noun = noun
        self._machine = machine

    def compare(self, entry: Entry, host: Any, view: Any) -> Difference:
        holder, _, spec = self._machine.state.get((self.noun, entry.name), (0, 0, None))
        if entry.spec is None:
            return {"it": "removed"} if holder == entry.id else {}
        if holder not in (0, entry.id) and holder > entry.replaces:
            raise Permanent(f"{entry.name} is held by id {holder}, which id {entry.id} does not replace")
        if (holder, spec) == (entry.id, dict(entry.spec)):
            return {}
        if older := self._machine.older_open(entry):
            self._machine.violations.append(f"{entry.name}: id {entry.id} is taken while the older {older} are open")
        return {"it": "changed" if spec else "made"}

    def prepare(self, entry: Entry, host: Any, view: Any) -> None:
        owner = (entry.spec or {}).get("account")
        if owner and self._machine.state.get(("account", owner), (0,))[0] != entry.spec["account_id"]:
            raise Temporary(f"account {owner} of id {entry.spec['account_id']} is not here")
        how = self._machine.broken.get((self.noun, entry.name))
        if how:
            raise (Permanent if how == "permanent" else Temporary)("the machine does not want to")

    def stage(self, entry: Entry, host: Any, view: Any) -> None:
        if self.compare(entry, host, view):
            self._machine.change(entry)

    def finish(self, entry: Entry, host: Any, view: Any) -> None:
        POINTS("machine.changed")

    def verify(self, entry: Entry, host: Any, view: Any) -> None: ...

    def act(self, verb: str, entry: Entry, host: Any) -> str:
        return "done"
