"""An FTP login: one more way into an account's files, locked in a folder of its home, with a password of its own."""

from __future__ import annotations

from collections.abc import Sequence

from .fields import DocumentRoot, PasswordHash, YesNo
from .noun import Noun, Option, Spec, Stage, Verb, delete
from .owned import OWNER, NamedInAccount, OfAccountSchema


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


class FtpLogin(NamedInAccount):
    """See the module."""

    name = "ftp_login"
    plural = "ftp_logins"
    schema = FtpLoginSchema
    limit = "ftp_logins"
    secret_fields = frozenset({"password_hash"})
    urgent_fields = frozenset({"suspended", "password_hash", "read_only", "folder"})
    columns = ("account", "folder", "read_only", "suspended")
    order = 45
    verbs = (
        Verb(
            "create",
            "Make a login for FTP; its name is what the client says.",
            "create alice.upload alice --folder web/shop --password",
            options=(OWNER, *OPTIONS, PASSWORD),
            makes=True,
        ),
        Verb("set", "Change its folder, or what it may do.", "set alice.upload --read-only", options=OPTIONS),
        Verb("passwd", "Give it a new password.", "passwd alice.upload", options=(PASSWORD,)),
        Verb("suspend", "Refuse it, and end its sessions.", "suspend alice.upload", fixed={"suspended": True}),
        Verb("unsuspend", "Let it in again.", "unsuspend alice.upload", fixed={"suspended": False}),
        delete("Remove it; the folder stays.", "alice.upload"),
    )

    def stages(self) -> Sequence[Stage]:
        return (Stage(frozenset({"storage"})), Stage(frozenset({"ftp"}), waits_for_all=False))

    def ordered(self, spec: Spec, before: Spec) -> bool:
        # Only the storage node makes folders.
        return bool(spec["folder"] != before["folder"])


NOUN: Noun = FtpLogin()
