"""What all nouns have in common that belong to an account."""

from __future__ import annotations

from marshmallow import Schema, ValidationError

from .. import names
from ..errors import Invalid
from .fields import AccountName, integer
from .noun import Noun, Option, Spec, Surroundings

#: Whose it is, said when it is made.
OWNER = Option("account", "Whose it is.", required=True, positional=True)


class OfAccountSchema(Schema):
    """Whose it is; the numbers are given by the manager."""

    account = AccountName(required=True)
    account_id = integer(1, 2**62, load_default=None, allow_none=True)
    uid = integer(20000, 59999, load_default=None, allow_none=True)
    gid = integer(20000, 59999, load_default=None, allow_none=True)


class OfAccount(Noun):
    """Removed with its account, and run with its uid."""

    belongs_to = "account"
    inherits = ("uid", "gid")
    manager_fields = frozenset({"account_id", "uid", "gid"})


class NamedInAccount(OfAccount):
    """Its name is its account's, a dot and one of its own: alice.backup."""

    def check_name(self, name: str) -> str:
        return names.owned(name)

    def check(self, name: str, spec: Spec | None, before: Spec | None, around: Surroundings) -> None:
        names.check_owner(name, spec)


class NamedByDomain(OfAccount):
    """Its name is a domain."""

    def check_name(self, name: str) -> str:
        try:
            return names.domain(name)
        except ValidationError as error:
            raise Invalid(f"{self.name} {name!r} is not valid: {error.messages[0]}") from None
