"""Drift: where this machine differs from the ledger. Looked for without changing anything, put back when asked to.

Every entry that was applied is compared and staged, as for a round, and no daemon is switched: what is staged is how
the owned files should be. They are held against the disk, and what was staged is dropped again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..models import wire
from ..models.errors import HostError, Permanent
from .entry import Entry
from .host.kept import Kept
from .host.owned import Checked, Finding, Rows
from .ledger import ROUND
from .reconcilers import Adopts, Reconciler

if TYPE_CHECKING:
    from .host import Host
    from .ledger import Ledger

log = logging.getLogger(__name__)


#: After so many entries a look asks whether it is to give way.
ASKS_EACH = 20


class GaveWay(Exception):
    """A look was ended for something urgent. Nothing is known then."""


class StillDiffers(Permanent):
    """Not everything could be put back. `did`: what was, and where the overwritten is kept."""

    def __init__(self, what: str, did: Mapping[str, str]) -> None:
        super().__init__(what)
        self.did = did


class Drift:
    """Used on the executor's thread only, between rounds. `run_round` applies entries together."""

    def __init__(self, ledger: Ledger, host: Host, reconcilers: Mapping[str, Reconciler],
                 run_round: Callable[[Sequence[Entry]], Any], roles: Callable[[], frozenset[str]]) -> None:  # fmt: skip
        self._ledger = ledger
        self._host = host
        self._reconcilers = reconcilers
        self._round = run_round
        self._roles = roles

    def all(self, noun: str) -> list[Entry]:
        """What a reconciler may look at: other resources of this node."""
        return self._ledger.entries(noun)

    def find(self, gives_way: Callable[[], bool] = lambda: False) -> list[Finding]:
        """Every difference, those of files first. Changes nothing. Raises GaveWay as soon as `gives_way` says so."""
        entries, open_ones = self._ledger.settled()
        entries = [entry for entry in entries if entry.noun in self._reconcilers]
        known = open_ones | {e.id for e in entries if e.spec is not None}
        found = look(self._host, self._reconcilers, entries, known, self._roles(), self, gives_way)
        found += [Finding("down", "does not run", daemon=name) for name in self._down()]
        names = {entry.id: f"{entry.noun} {entry.name}" for entry in entries}
        return [replace(each, resource=names.get(each.owner, "")) for each in found]

    def _down(self) -> list[str]:
        return self._host.down(self._roles()) if self._host.daemons else []

    def adoptable(self) -> list[dict[str, Any]]:
        """For each resource that another hand changed: the fields that would make it wanted so, or why there are none.

        No secret leaves the node.
        """
        by_resource: dict[int, list[str]] = {}
        for finding in self.find():
            by_resource.setdefault(finding.owner, []).append(f"{finding.path or finding.daemon} {finding.what}".strip())
        told = []
        for entry in self._ledger.newest(by_resource):
            reconciler = self._reconcilers.get(entry.noun)
            adopts = isinstance(reconciler, Adopts) and entry.spec is not None
            fields, why_not = reconciler.adopt(entry, self._host) if adopts else ({}, "")  # type: ignore[union-attr]
            if not fields:
                why_not = why_not or f"no field of {entry.noun} can say this"
            told.append({"noun": entry.noun, "name": entry.name, "fields": fields, "why_not": why_not,
                         "differs": by_resource[entry.id]})  # fmt: skip
        for words in by_resource.get(0, []):
            told.append({"noun": "", "name": "", "fields": {}, "why_not": "no resource of onehost's can hold it; "
                         "put it in a file of your own", "differs": [words]})  # fmt: skip
        return told

    # ---- putting it back

    def repair(self) -> dict[str, str]:
        """Puts back what differs; gives what was done to each, and where the overwritten is kept. Raises StillDiffers.

        Files are mended where they are, resources by a round of their own, daemons are set up as at a start.
        """
        found = self.find()
        kept = Kept(self._host.machine)
        did: dict[str, str] = {}
        for each in found:
            words = f"{each.what}: {self._put_aside(each, kept)}"
            did[_about(each)] = f"{did[_about(each)]}; {words}" if _about(each) in did else words
        if kept.is_used:
            did = {"kept in": kept.folder, **did}
        names = {each.daemon for each in found if each.owner == 0 and each.kind != "mode"}
        self._set_up(names)
        owners = {each.owner for each in found if each.owner and each.kind != "mode"}
        entries = self._ledger.newest(owners)
        for at in range(0, len(entries), ROUND):
            self._round(entries[at : at + ROUND])
        failed = self._set_up(names) if entries else []
        for name in [each.daemon for each in found if each.kind == "down"]:
            failed += _tried(self._host.programs[name].start)
        left = [_about(each) for each in self.find()]
        log.info("repaired", extra={"action": "repair", "found": len(found), "left": len(left), "kept": kept.folder})
        if left or failed:
            words = "; ".join([*failed, *left[:3]])
            raise StillDiffers(f"{len(left)} of {len(found)} differences could not be put back: {words}", did)
        return did or {"it": "nothing differs"}

    def _put_aside(self, finding: Finding, kept: Kept) -> str:
        """Keeps what is about to be overwritten; a stranger, or what is no file, goes away. Words for the event."""
        place = self._host.machine.path(finding.path)
        if finding.kind == "mode":
            place.chmod(finding.mode)
            self._host.machine.runner.chown(place, 0, finding.group)
            return "put back"
        is_wrong = finding.kind == "content" and (place.is_symlink() or (place.exists() and not place.is_file()))
        was = kept.keep(finding.path, take_away=finding.kind == "stranger" or is_wrong) if finding.path else ""
        for daemon in self._host.daemons:
            if finding.kind == "stranger" and daemon.name == finding.daemon and isinstance(daemon, Checked):
                daemon.renew()
        return "put back, what was there is kept" if was else "put back"

    def _set_up(self, names: Collection[str]) -> list[str]:
        for part in self._host.daemons:
            if part.name in names and isinstance(part, Rows):
                entries, open_ones = self._ledger.settled()
                part.keep_only(open_ones | {entry.id for entry in entries if entry.spec is not None})
        return _tried(lambda: self._host.recover_again(names))


def look(host: Host, reconcilers: Mapping[str, Reconciler], entries: Iterable[Entry], known: Collection[int],
         roles: frozenset[str], view: Any, gives_way: Callable[[], bool] = lambda: False) -> list[Finding]:  # fmt: skip
    """Where the machine differs from these applied entries. Ids of `known` own what they own; other ids are nobody."""
    checked = [each for each in host.daemons if isinstance(each, Checked) and host.needs(each.name, roles)]
    for daemon in checked:
        daemon.forget()
    try:
        parts: list[Finding] = []
        for number, entry in enumerate(entries):
            if number % ASKS_EACH == 0 and gives_way():
                raise GaveWay
            parts += _compare(host, reconcilers[entry.noun], entry, view, checked)
        settled = frozenset(entry.id for entry in entries if entry.spec is not None)
        settled -= {each.owner for each in parts if each.kind == "unknown"}
        files = [each for daemon in checked for each in _check(daemon, settled, frozenset(known) - settled)]
    finally:
        for daemon in checked:
            daemon.forget()
    shown = {each.owner for each in files if each.owner and each.kind != "mode"}
    return files + [each for each in parts if each.owner not in shown]


def _compare(host: Host, reconciler: Reconciler, entry: Entry, view: Any,
             checked: Sequence[Checked]) -> list[Finding]:  # fmt: skip
    """What the reconciler would change, and, where daemons can be checked, its files staged."""
    try:
        difference = reconciler.compare(entry, host, view)
        if checked and entry.spec is not None:
            reconciler.stage(entry, host, view)
    except (HostError, OSError) as error:
        return [Finding("unknown", f"cannot be compared: {error}", owner=entry.id)]
    words = "; ".join(f"{part}: {text}" for part, text in difference.items())
    return [Finding("resource", f"would be put back ({words})", owner=entry.id)] if difference else []


def _check(daemon: Checked, settled: frozenset[int], known: frozenset[int]) -> list[Finding]:
    try:
        return daemon.check(settled, known)
    except (HostError, OSError, ValueError) as error:
        return [Finding("content", f"cannot be checked: {error}", daemon=daemon.name)]


def _tried(act: Callable[[], None]) -> list[str]:
    try:
        act()
    except (HostError, OSError) as error:
        return [str(error)]
    return []


def _about(finding: Finding) -> str:
    """What it is about, in few words: the end of the path, else the resource or daemon."""
    path = finding.path if len(finding.path) <= wire.MAX_WORD else f"…{finding.path[1 - wire.MAX_WORD :]}"
    return path or finding.resource or f"daemon {finding.daemon}"


def told(finding: Finding) -> dict[str, str]:
    """A finding as it travels and is shown."""
    return {"path": finding.path, "what": finding.what, "resource": finding.resource, "daemon": finding.daemon,
            "diff": finding.diff}  # fmt: skip


def summary(found: Sequence[Finding], most: int) -> dict[str, str]:
    """The first of them for a beat: what each is about, and what is with it."""
    return {_about(each): each.what for each in found[:most]}
