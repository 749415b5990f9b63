"""What somebody asks for, and what he is told that it became."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ..models import nouns
from ..models.canonical import canonical, digest
from ..models.errors import Invalid

#: How long a job may take before its wait is over, unless the caller says otherwise.
DEADLINE = timedelta(days=1)


@dataclass(frozen=True)
class Parent:
    """The job that a wish is part of, and the grace time that it shares."""

    job_id: int
    grace_until_at: datetime | None


@dataclass(frozen=True)
class Wish:
    """What somebody wants. `verb` is one of the noun's, or apply (a whole spec), remove, retry or cancel."""

    noun: str
    name: str
    verb: str = "apply"
    fields: Mapping[str, Any] = field(default_factory=dict)
    actor: str = "unknown"
    source: str = "library"
    reason: str | None = None
    #: The generation the caller has read: another one by now is a Conflict.
    if_generation: int | None = None
    #: The same key again gives the same job, whatever happened in between.
    idempotency_key: str | None = None
    deadline: timedelta = DEADLINE
    #: How many nodes of a live stage are opened together: a number, or a share of them such as 25%. None: all.
    batch: str | None = None
    #: Failed nodes after which no further stage is opened. None: 0 with `batch`, else any number.
    max_fail: int | None = None
    #: Set for what follows from another wish, such as the removal of what belongs to a removed account.
    parent: Parent | None = None

    @property
    def is_of_lost_node(self) -> bool:
        """Whether it removes a node that will not come back: no rule can keep what is gone."""
        return self.noun == "node" and bool(self.fields.get("lost"))


def mark(noun: nouns.Noun, name: str, wish: Wish) -> str:
    """What makes two wishes the same. A secret does not: a password hashed again has another salt. Raises Invalid."""
    try:
        plain = {key: value for key, value in wish.fields.items() if key not in noun.secret_fields}
        return digest(canonical([noun.name, name, wish.verb, plain]))
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"{noun.name} {name}: the fields are not plain data: {type(error).__name__}") from None


@dataclass(frozen=True)
class Receipt:
    """What a wish became. `job_id` None: nothing differs, nothing was done."""

    noun: str
    name: str
    resource_id: int
    generation: int
    job_id: int | None
    targets: int
    #: What differs in desired state, by field; a secret is only "changed".
    difference: Mapping[str, str]
    #: Until then a cancel undoes all of it; None: there is no grace time.
    grace_until_at: datetime | None = None
    #: Nothing is done before a person releases the job (in a dry run: would be done).
    held: bool = False
    #: How many resources of each noun are removed, or brought back, with it.
    owned: Mapping[str, int] = field(default_factory=dict)
    #: The held job that this cancel has ended; nothing had been done, so nothing is undone.
    dropped: int | None = None
