"""PHP's own settings that a site may have: which, within what bounds, and what holds where nothing is said.

A worker of PHP-FPM keeps what a request has set, and gives it to its next request. So every site sends all of these
with every request: no site can ever see what another one of the same account has set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from marshmallow import ValidationError

_SIZE = re.compile(r"([0-9]{1,5})([MG])")
_ZONE = re.compile(r"[A-Za-z]{2,20}([/_+-][A-Za-z0-9]{1,20}){0,6}")
_IN_MEGABYTES = {"M": 1, "G": 1024}
_YES_NO = {"on": "on", "1": "on", "yes": "on", "true": "on", "off": "off", "0": "off", "no": "off", "false": "off"}


def _size(first: int, last: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        match = _SIZE.fullmatch(text.upper())
        size = int(match[1]) * _IN_MEGABYTES[match[2]] if match else 0
        if not first <= size <= last:
            raise ValidationError(f"must be {first}M to {last}M, such as {first}M")
        return f"{size}M"

    return check


def _number(first: int, last: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not re.fullmatch(r"[0-9]{1,6}", text) or not first <= int(text) <= last:
            raise ValidationError(f"must be {first} to {last}")
        return str(int(text))

    return check


def _flag(text: str) -> str:
    if text.lower() not in _YES_NO:
        raise ValidationError("must be on or off")
    return _YES_NO[text.lower()]


def _zone(text: str) -> str:
    if not _ZONE.fullmatch(text):
        raise ValidationError("must be a time zone such as Europe/Berlin")
    return text


#: By PHP's name: how it is checked and respelled, and the value where none is given (Debian's own).
KNOWN: Mapping[str, tuple[Callable[[str], str], str]] = {
    "memory_limit": (_size(16, 1024), "128M"),
    "upload_max_filesize": (_size(1, 1024), "2M"),
    "post_max_size": (_size(1, 1024), "8M"),
    # No longer than a pool lets a request run.
    "max_execution_time": (_number(1, 300), "30"),
    "max_input_time": (_number(1, 300), "60"),
    "max_input_vars": (_number(100, 20000), "1000"),
    "display_errors": (_flag, "off"),
    "date.timezone": (_zone, "UTC"),
}


def setting(text: str) -> str:
    """One setting as NAME=VALUE in its one spelling. Raises ValidationError."""
    name, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
    name = name.strip().lower()
    if not equals or name not in KNOWN:
        raise ValidationError(f"must be NAME=VALUE with one of {', '.join(KNOWN)}")
    try:
        return f"{name}={KNOWN[name][0](value.strip())}"
    except ValidationError as error:
        raise ValidationError(f"{name} {error.messages[0]}") from None


def effective(settings: Iterable[str]) -> dict[str, str]:
    """Every known setting with its value, from checked ones and what holds otherwise."""
    given = dict(text.split("=", 1) for text in settings)
    return {name: given.get(name, usual) for name, (_, usual) in KNOWN.items()}


def megabytes(size: str) -> int:
    """A checked size in megabytes."""
    return int(size.removesuffix("M"))
