"""What may be said of a site, checked hard and spelled one way: redirect targets, paths, users, directives."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from marshmallow import ValidationError

from . import names

#: A URL's characters (RFC 3986) without quotes, backslash and `$`, which mean something to Apache.
_URL = re.compile(r"https?://[A-Za-z0-9._~:/\[\]@!&()*+,;=%-]{1,1000}")
_PATH = re.compile(r"/(?:[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,99}(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,99}){0,15})?")
#: bcrypt of cost 4 to 12, or sha512-crypt of at most 99,999 rounds: Apache works it out for every request.
_USER = re.compile(
    r"[A-Za-z0-9._@-]{1,64}:(?:\$2[aby]\$(?:0[4-9]|1[0-2])\$[./0-9A-Za-z]{53}"
    r"|\$6\$(?:rounds=[0-9]{4,5}\$)?[./0-9A-Za-z]{1,16}\$[./0-9A-Za-z]{86})"
)
LONGEST_DIRECTIVE = 1000


def redirect(text: str) -> str:
    """An http or https URL without query, its host as A-label. Raises ValidationError."""
    problem = ValidationError("must be a URL such as https://www.example.com/shop, without query, user or quotes")
    host_part, slash, path = text.partition("://")[2].partition("/") if isinstance(text, str) else ("", "", "")
    try:
        address = urlsplit(text)
        host, port = address.hostname or "", address.port
    except (ValueError, AttributeError, TypeError):
        raise problem from None
    if address.scheme not in ("http", "https") or not host or "@" in host_part:
        raise problem
    name = _host(host)
    if name is None:
        raise problem
    found = f"{address.scheme}://{name}{f':{port}' if port else ''}{slash}{path}"
    if not _URL.fullmatch(found) or re.search(r"%(?![0-9A-Fa-f]{2})|%(?:0|1|7[fF])", found):
        raise problem
    return found


def _host(host: str) -> str | None:
    try:
        return f"[{names.address(host)}]" if ":" in host else names.address(host)
    except ValidationError:
        pass
    try:
        return names.domain(host)
    except ValidationError:
        return None


def path(text: str) -> str:
    """A path of a site, from its root, without a slash at the end. Raises ValidationError."""
    text = text.rstrip("/") or "/" if isinstance(text, str) else ""
    if not _PATH.fullmatch(text):
        raise ValidationError("must be a path such as /private, of letters, digits, '_', '-', '.' and '~'")
    return text


def user(text: str) -> str:
    """A user of a protected path as USER:HASH. Raises ValidationError; the text is never repeated in the message."""
    if not isinstance(text, str) or not _USER.fullmatch(text):
        raise ValidationError("must be USER:HASH with bcrypt of cost 4 to 12 (htpasswd -B), or sha512-crypt")
    return text


def directive(text: str) -> str:
    """One line of an operator's directives. Raises ValidationError."""
    if not isinstance(text, str) or len(text) > LONGEST_DIRECTIVE or not text.replace("\t", " ").isprintable():
        raise ValidationError(f"must be one line of at most {LONGEST_DIRECTIVE} printable characters")
    return text.replace("\t", " ")
