"""An FTP login: one more way into an account's files, locked in a folder of its home, with a password of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import names
from .fields import DocumentRoot, PasswordHash, YesNo
from .noun import Noun, Option, Spec, Stage, Surroundings, Verb
from .owned import OfAccount, OfAccountSchema


class FtpLoginSchema(OfAccountSchema):
    """The spec of an FTP login."""

    folder = DocumentRoot(load_default=None, allow_none=True)
    read_only = YesNo(load_default=False)
    suspended = YesNo(load_default=False)
    password_hash = PasswordHash(load_default=None, allow_none=True)


OPTIONS = (
    Option("folder", "Folder below the home that it is locked in; empty: the whole home."),
    Option("read_only", "Lets fetch files, and change nothing.", "yes_no"),
)
PASSWORD = Option("password_hash", "Ask for a password (or read it from standard input).", "password")


class FtpLogin(OfAccount):
    """See the module."""

    name = "ftp_login"
    plural = "ftp_logins"
    schema = FtpLoginSchema
    limit = "ftp_logins"
    secret_fields = frozenset({"password_hash"})
    columns = ("account", "folder", "read_only", "suspended")
    order = 45
    verbs = (
        Verb(
            "create",
            "Make a login for FTP; its name is what the client says.",
            "create alice.upload alice --folder web/shop --password",
            options=(Option("account", "Whose it is.", required=True, positional=True), *OPTIONS, PASSWORD),
            makes=True,
        ),
        Verb("set", "Change its folder, or what it may do.", "set alice.upload --read-only", options=OPTIONS),
        Verb("passwd", "Give it a new password.", "passwd alice.upload", options=(PASSWORD,)),
        Verb("suspend", "Refuse it, and end its sessions.", "suspend alice.upload", fixed={"suspended": True}),
        Verb("unsuspend", "Let it in again.", "unsuspend alice.upload", fixed={"suspended": False}),
        Verb(
            "delete",
            "Remove it; the folder stays.",
            "delete alice.upload --yes alice.upload",
            removes=True,
            asks=True,
        ),
    )

    def check_name(self, name: str) -> str:
        return names.owned(name)

    def check(self, name: str, spec: Spec | None, before: Spec | None, around: Surroundings) -> None:
        names.check_owner(name, spec)

    def stages(self) -> Sequence[Stage]:
        return (Stage(frozenset({"storage"})), Stage(frozenset({"ftp"}), waits_for_all=False))

    def ordered(self, spec: Spec, before: Spec) -> bool:
        # Only the storage node makes folders.
        return bool(spec["folder"] != before["folder"])

    def urgent(self, spec: Spec | None, applied: Mapping[str, Any] | None) -> bool:
        if spec is None or applied is None:
            return spec is None
        return any(spec[key] != applied.get(key) for key in ("suspended", "password_hash", "read_only", "folder"))


NOUN: Noun = FtpLogin()
