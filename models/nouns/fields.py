"""Marshmallow fields of our own words, so that every noun checks a name the same way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from marshmallow import fields

from .. import names


class Checked(fields.String):
    """A string that a function of `names` checks and respells."""

    check: Callable[[str], str]

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> str:
        return type(self).check(super()._deserialize(value, attr, data, **more))


class Domain(Checked):
    """A domain, kept as A-label."""

    check = staticmethod(names.domain)


class SshKey(Checked):
    """One SSH public key."""

    check = staticmethod(names.ssh_key)


class PasswordHash(Checked):
    """A sha512-crypt or yescrypt hash."""

    check = staticmethod(names.password_hash)


class DocumentRoot(Checked):
    """A path below an account's home."""

    check = staticmethod(names.document_root)


class Address(Checked):
    """An IP address."""

    check = staticmethod(names.address)


def integer(first: int, last: int, **more: Any) -> fields.Integer:
    """A whole number from `first` to `last`; text that looks like one is refused."""
    from marshmallow.validate import Range

    return fields.Integer(strict=True, validate=Range(first, last), **more)


class YesNo(fields.Boolean):
    """True or false; nothing that merely looks like it."""

    truthy = {True}
    falsy = {False}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value
