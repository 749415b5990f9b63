"""Nobody takes a name below another account's domain without its consent."""

from __future__ import annotations

from collections.abc import Iterable

from .. import names
from ..errors import Refused
from .noun import Surroundings


def check_parents(domains: Iterable[str], account: str, consent_of: str | None, around: Surroundings) -> None:
    """Raises Refused if the nearest domain above one of them is held by an account that has not agreed.

    That an account has agreed is said by whoever asks, and stands in the spec, so the audit tells who said it.
    """
    for domain in domains:
        for parent in names.parents(domain):
            holder = around.holder("domain", parent)
            if holder is None:
                continue
            if holder not in (account, consent_of):
                if around.holder("domain", domain) is not None:
                    break  # the name itself is taken, and consent would not help: its claim says whose it is
                raise Refused(
                    f"{domain} lies below {parent}, which belongs to account {holder}",
                    hint=f"onehost domain create … --consent-of {holder}, if {holder} has agreed",
                )
            break
