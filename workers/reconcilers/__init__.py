"""Reconcilers decide, one file per noun; the host touches. Found by file name, so a new noun needs no list."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any, Protocol, runtime_checkable

from ..entry import Difference, Entry, View
from ..host import Host


class Reconciler(Protocol):
    """Turns the spec of one resource into host changes. Called by the executor, in this order, for each round.

    Every step may raise Permanent, Temporary, Pending (verify only) or Blocked; it then concerns this entry alone.
    All steps are safe to repeat after a crash at any point.
    """

    noun: str

    def compare(self, entry: Entry, host: Host, view: View) -> Difference:
        """What differs between the machine and `entry.spec`. Reads only; also what a dry run shows."""
        ...

    def prepare(self, entry: Entry, host: Host, view: View) -> None:
        """Effects that must be there before daemons see new files: a home, sessions ended before a removal."""
        ...

    def stage(self, entry: Entry, host: Host, view: View) -> None:
        """Hands the whole files of this resource to the host's daemons. Nothing live changes yet."""
        ...

    def finish(self, entry: Entry, host: Host, view: View) -> None:
        """Effects that come after the switch and the signal: sessions of a suspended account ended, a home moved."""
        ...

    def verify(self, entry: Entry, host: Host, view: View) -> None:
        """Asks the daemons whether the resource is really so. Raises Permanent with what was seen, if not."""
        ...


@runtime_checkable
class Hurries(Protocol):
    """A reconciler of which some changes must not wait until the round under way has ended."""

    def hurry(self, entry: Entry, host: Host) -> None:
        """Takes away what a suspension or removal takes away, without any daemon; its own round does the rest."""
        ...


@runtime_checkable
class Acts(Protocol):
    """A reconciler whose noun has actions."""

    def act(self, verb: str, entry: Entry, host: Host) -> str:
        """Does it once, between rounds; says what was done. Raises HostError."""
        ...


@runtime_checkable
class Adopts(Protocol):
    """A reconciler whose noun can say some of what another hand changed on a node."""

    def adopt(self, entry: Entry, host: Host) -> tuple[dict[str, Any], str]:
        """The fields that make the machine's state the wanted one, and why not for the rest. No secret."""
        ...


@cache
def reconcilers() -> dict[str, Reconciler]:
    """Every reconciler by noun: each module of this package has one as RECONCILER."""
    modules = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]
    return {module.RECONCILER.noun: module.RECONCILER for module in modules}
