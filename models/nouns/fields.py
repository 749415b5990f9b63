"""Marshmallow fields of our own words, so that every noun checks a name the same way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from marshmallow import fields

from .. import names, php_settings, schedule, sites


class Checked(fields.String):
    """A string that a function of `names` checks and respells."""

    check: Callable[[str], str]

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> str:
        return type(self).check(super()._deserialize(value, attr, data, **more))


class Domain(Checked):
    """A domain, kept as A-label."""

    check = staticmethod(names.domain)


class AccountName(Checked):
    """The name of an account."""

    check = staticmethod(names.account)


class PlanName(Checked):
    """The name of a plan."""

    check = staticmethod(names.plan)


class SshKey(Checked):
    """One SSH public key."""

    check = staticmethod(names.ssh_key)


class Schedule(Checked):
    """When a cron entry runs."""

    check = staticmethod(schedule.schedule)


class Command(Checked):
    """One line that a shell is given."""

    check = staticmethod(names.command)


class PasswordHash(Checked):
    """A sha512-crypt or yescrypt hash."""

    check = staticmethod(names.password_hash)


class DocumentRoot(Checked):
    """A path below an account's home."""

    check = staticmethod(names.document_root)


class PhpSetting(Checked):
    """One of PHP's settings as NAME=VALUE."""

    check = staticmethod(php_settings.setting)


class RedirectTarget(Checked):
    """Where a site leads to."""

    check = staticmethod(sites.redirect)


class SitePath(Checked):
    """A path of a site."""

    check = staticmethod(sites.path)


class SiteUser(Checked):
    """A user of protected paths, with the hash of the password."""

    check = staticmethod(sites.user)


class SiteDirective(Checked):
    """One line of Apache directives."""

    check = staticmethod(sites.directive)


class Network(Checked):
    """An IP address or a network."""

    check = staticmethod(names.network)


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
