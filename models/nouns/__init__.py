"""Nouns, one file each, found by file name: adding one needs no list to be edited."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache

from ..errors import NotFound
from .noun import Action, Claim, Noun, Option, Spec, Stage, Surroundings, Verb

__all__ = ["Action", "Claim", "Noun", "Option", "Spec", "Stage", "Surroundings", "Verb", "followers", "noun", "nouns"]


@cache
def nouns() -> dict[str, Noun]:
    """Every noun by name: each module of this package that has a NOUN."""
    modules = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]
    found = [module.NOUN for module in modules if hasattr(module, "NOUN")]
    return {each.name: each for each in sorted(found, key=lambda each: (each.order, each.name))}


def noun(name: str) -> Noun:
    """The noun called `name`, singular or plural. Raises NotFound with the nearest spelling."""
    for each in nouns().values():
        if name in (each.name, each.plural):
            return each
    near = difflib.get_close_matches(name, nouns(), 1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(nouns())}"
    raise NotFound(f"unknown noun {name!r}", hint=hint)


def followers(name: str) -> list[Noun]:
    """The nouns whose fields follow from this one."""
    return [each for each in nouns().values() if each.follows == name]
