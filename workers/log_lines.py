"""Lines of Apache's log, by account and site: whose each is, and how much was sent for it in which month."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .ledger import Ledger

#: The time, and the bytes sent. A quote that a visitor sends is written \", so the first bare one begins the request.
_SENT = re.compile(
    rb'\S+ - (?:""|(?:[^"\\]|\\.)*?) \[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] '
    rb'"(?:[^"\\]|\\.)*" \d{3} (\d{1,18}) '
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

#: Account and site by each name of a site.
Names = Mapping[bytes, tuple[int, str]]


@dataclass
class Lines:
    """A part of the log, taken apart."""

    #: By account and site, without the site's name in front.
    pieces: dict[int, dict[str, bytearray]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(bytearray)))
    #: Bytes sent, by account and month (202611).
    sent: dict[int, dict[int, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    #: Lines of a name that no site has.
    unknown: int = 0


def names(ledger: Ledger) -> dict[bytes, tuple[int, str]]:
    """Whose each name is, by what this node was told. Suspended sites count as others do."""
    sites = [(entry.id, entry.spec["domain"], ()) for entry in ledger.entries("account")
             if entry.spec and entry.spec.get("domain")]  # fmt: skip
    sites += [(entry.spec["account_id"], entry.name, entry.spec.get("aliases") or ())
              for entry in ledger.entries("domain") if entry.spec and entry.spec.get("account_id")]  # fmt: skip
    return {name.encode(): (account, site) for account, site, aliases in sites
            for each in (site, *aliases) for name in (each, f"www.{each}")}  # fmt: skip


def take_apart(data: bytes, whose: Names) -> Lines:
    """Every whole line of `data`, and the rest of it as one."""
    found = Lines()
    for line in data.removesuffix(b"\n").split(b"\n"):
        name, _, rest = line.partition(b" ")
        if (known := whose.get(name.lower())) is None:
            found.unknown += 1
            continue
        account, site = known
        found.pieces[account][site] += rest + b"\n"
        if said := _SENT.match(rest):
            found.sent[account][_month(said[1])] += int(said[2])
    return found


def month(at: datetime) -> int:
    """The month of a time, UTC, as 202611."""
    at = at.astimezone(UTC)
    return at.year * 100 + at.month


@lru_cache(maxsize=10_000)
def _month(text: bytes) -> int:
    day, name, rest = text.decode().split("/")
    try:
        number = _MONTHS.index(name) + 1
        return month(datetime.strptime(f"{day}/{number}/{rest}", "%d/%m/%Y:%H:%M:%S %z"))
    except ValueError:
        return 0
