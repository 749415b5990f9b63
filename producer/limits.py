"""Limits are kept at submit: nothing is added beyond them. What is there already stays, and is shown as over."""

from __future__ import annotations

from collections import Counter

from ..models import nouns
from ..models.errors import Refused
from ..models.nouns.plan import allowed
from .surroundings import Surroundings


def check(noun: nouns.Noun, name: str, spec: nouns.Spec, before: nouns.Spec | None, around: Surroundings) -> None:
    """Raises Refused where a wish takes more of a limit than there is. The owner is locked by then."""
    already = noun.takes(before) if before else {}
    more = {limit: count - already.get(limit, 0) for limit, count in noun.takes(spec).items()}
    more = {limit: count for limit, count in more.items() if count > 0}
    if not more:
        return
    owner, owner_id, its = _owner(noun, name, spec, is_new=before is None, around=around)
    most = {limit: number for limit, number in allowed(its, around).items() if limit in more and number is not None}
    if all(number is True for number in most.values()):
        return
    have = around.takes(owner_id) if owner_id else Counter[str]()
    for limit in most:
        _refuse_beyond(f"{noun.name} {name}", owner, its, limit, most[limit], have[limit], more[limit])
    # Whoever comes next in this transaction counts this one.
    have.update(more)


def _owner(noun: nouns.Noun, name: str, spec: nouns.Spec, *, is_new: bool,
           around: Surroundings) -> tuple[str, int | None, nouns.Spec]:  # fmt: skip
    """Whose limits count: name, id (None: not there yet) and spec."""
    if noun.belongs_to is None:
        found = None if is_new else around.owner(noun.name, name)
        return name, found[0] if found else None, spec
    owner = around.owner(noun.belongs_to, spec[noun.belongs_to])
    assert owner is not None, "a spec that inherits has an owner"
    return spec[noun.belongs_to], owner[0], owner[1]


def _refuse_beyond(about: str, owner: str, its: nouns.Spec, limit: str, most: int | bool, have: int, more: int) -> None:
    whose = "its own limit" if limit in (its.get("limits") or {}) else f"plan {its.get('plan')}"
    words = limit.replace("_", " ")
    hint = f"onehost account usage {owner}"
    if most is False:
        raise Refused(f"{owner} may have no {words}, so no {about} ({whose})", hint=hint)
    if most is not True and have + more > most:
        needs = "" if more == 1 else f", and {about} needs {more} more"
        raise Refused(f"{owner} has {have} of {most} {words}{needs} ({whose})", hint=hint)
