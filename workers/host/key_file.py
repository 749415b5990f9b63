"""A file of authorized keys: sections, each of one resource, so that keys come and go without knowing of each other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_HEAD = re.compile(r"# onehost (\d+)(?: of (\d+))?")


@dataclass(frozen=True)
class Section:
    """The keys of a resource: of an account, or of one that belongs to the account."""

    owner: int
    account: int
    lines: tuple[str, ...]


def render(sections: Iterable[Section]) -> bytes | None:
    """The file; None if there is no key in it. The same sections give the same bytes.

    sshd takes the first line that fits. So a key with limits of its own stands before the account's list, and its
    limits hold even if the list has the same key without them.
    """
    lines = []
    for each in sorted(sections, key=lambda each: (each.owner == each.account, each.owner)):
        if each.lines:
            of = "" if each.owner == each.account else f" of {each.account}"
            lines += [f"# onehost {each.owner}{of}", *each.lines]
    return ("\n".join(lines) + "\n").encode() if lines else None


def parse(content: bytes | None) -> dict[int, Section]:
    """The sections by owner. What stands before the first is not ours and is lost with the next writing."""
    heads: list[tuple[int, int]] = []
    lines: list[list[str]] = []
    for line in (content or b"").decode(errors="replace").splitlines():
        if match := _HEAD.fullmatch(line):
            heads.append((int(match[1]), int(match[2] or match[1])))
            lines.append([])
        elif lines:
            lines[-1].append(line)
    return {owner: Section(owner, account, tuple(own)) for (owner, account), own in zip(heads, lines, strict=True)}
