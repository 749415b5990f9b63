"""What all nouns have in common that belong to an account."""

from __future__ import annotations

from marshmallow import Schema

from .fields import AccountName, integer
from .noun import Noun


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
