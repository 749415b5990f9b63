"""What must be true, in plain Python: every name, its lives, its generations and the spec of each.

A call's outcome is foretold, and what the store answered is taken in; where two outcomes are lawful (a cancel races
with the end of its job) the answer decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Spec = Mapping[str, Any]
#: What an account is where nobody said otherwise.
BARE: Spec = {"domain": None, "document_root": "web", "php": True, "access": "sftp", "ssh_keys": [], "suspended": False,
              "password_hash": None}  # fmt: skip
CHANGES = ("set", "passwd", "suspend", "unsuspend")
FIXED = {"suspend": {"suspended": True}, "unsuspend": {"suspended": False}}


@dataclass
class Life:
    """One resource: a name from its creation to its end. `specs` by generation; None: to be removed."""

    id: int
    specs: dict[int, Spec | None] = field(default_factory=dict)

    @property
    def generation(self) -> int:
        return max(self.specs)

    @property
    def spec(self) -> Spec | None:
        return self.specs[self.generation]


@dataclass
class Call:
    """One wish and what became of it: ok, refused, or unknown until the store was asked."""

    verb: str
    name: str
    fields: Mapping[str, Any]
    key: str
    outcome: str = ""
    resource_id: int = 0
    generation: int = 0
    job_id: int | None = None
    words: str = ""

    def __str__(self) -> str:
        become = f"{self.outcome} {self.resource_id}/{self.generation} job {self.job_id} {self.words}"
        return f"{self.key} {self.verb} {self.name} {dict(self.fields)} -> {become}"


@dataclass
class Model:
    """See the module."""

    lives: dict[str, list[Life]] = field(default_factory=dict)
    last_job: dict[str, int] = field(default_factory=dict)

    def living(self, name: str) -> Life | None:
        """The life of this name that is wanted."""
        lives = self.lives.get(name)
        return lives[-1] if lives and lives[-1].spec is not None else None

    def names(self) -> list[str]:
        """Who is wanted."""
        return [name for name in self.lives if self.living(name)]

    def foretell(self, call: Call) -> set[str]:
        """The lawful outcomes of a call."""
        life = self.living(call.name)
        if call.verb == "retry":
            return {"ok"} if self.lives.get(call.name) else {"refused"}
        if call.verb == "cancel":
            return {"ok", "refused"} if self.last_job.get(call.name) == call.fields["job"] else {"refused"}
        if (call.verb == "create") == bool(life):
            return {"refused"}
        return self._domain(call)

    def _domain(self, call: Call) -> set[str]:
        """What another resource holds is refused; what it held once may still be on its way to being free."""
        domain = call.fields.get("domain")
        mine = self.living(call.name)
        others = [life for lives in self.lives.values() for life in lives if life is not mine]
        if domain and any(life.spec and life.spec["domain"] == domain for life in others):
            return {"refused"}
        if domain and any(spec and spec["domain"] == domain for life in others for spec in life.specs.values()):
            return {"ok", "refused"}
        return {"ok"}

    def take(self, call: Call) -> None:
        """Takes in a call that was ok."""
        wanted = self._wanted(call)
        if call.job_id is None:
            life = self.living(call.name)
            assert life and wanted == life.spec, f"nothing was done, but it differs: {call}"
            return
        self.last_job[call.name] = call.job_id
        lives = self.lives.setdefault(call.name, [])
        if call.verb == "create":
            assert not lives or call.resource_id > lives[-1].id, f"P4: an id was given twice: {call}"
            lives.append(Life(call.resource_id))
        life = lives[-1]
        assert call.resource_id == life.id, f"P4: {call} is about id {life.id}"
        assert call.generation > max(life.specs, default=0), f"P4: a generation fell: {call}"
        life.specs[call.generation] = wanted

    def _wanted(self, call: Call) -> Spec | None:
        if call.verb == "create":
            return {**BARE, **call.fields}
        life = self.lives[call.name][-1]
        now = life.spec
        if call.verb == "delete":
            return None
        if call.verb == "retry":
            return now
        if call.verb == "cancel":
            before = life.specs[sorted(life.specs)[-2]] if len(life.specs) > 1 else None
            # A password never comes back: the newest one stays, and a removed account has none.
            return before and {**before, "password_hash": now["password_hash"] if now else None}
        assert now is not None
        return {**now, **FIXED.get(call.verb, {}), **call.fields}
