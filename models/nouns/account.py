"""An account: a unix user with a home on shared storage, a primary domain, PHP and logins, the same on every node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf

from .. import names
from ..errors import Refused
from .fields import DocumentRoot, Domain, PasswordHash, SshKey, YesNo, integer
from .noun import Action, Claim, Noun, Option, Spec, Stage, Surroundings, Verb

ACCESS = ("none", "sftp", "shell")


class AccountSchema(Schema):
    """The spec of an account."""

    domain = Domain(load_default=None, allow_none=True)
    document_root = DocumentRoot(load_default="web")
    php = YesNo(load_default=True)
    access = fields.String(load_default="sftp", validate=OneOf(ACCESS))
    ssh_keys = fields.List(SshKey(), load_default=list, validate=Length(max=50))
    suspended = YesNo(load_default=False)
    password_hash = PasswordHash(load_default=None, allow_none=True)
    uid = integer(20000, 59999, load_default=None, allow_none=True)
    gid = integer(20000, 59999, load_default=None, allow_none=True)
    shard = integer(0, 9999, load_default=None, allow_none=True)


OPTIONS = (
    Option("domain", "Primary domain; `www.` in front of it is served too."),
    Option("document_root", "Folder below the home that the domain shows."),
    Option("php", "Run PHP with the account's own uid.", "yes_no"),
    Option("access", "How the account may log in by SSH.", "choice", ACCESS),
    Option("ssh_keys", "File of SSH public keys, one a line.", "file"),
)
PASSWORD = Option("password_hash", "Ask for a password (or read it from standard input).", "password")


class Account(Noun):
    """See the module."""

    name = "account"
    plural = "accounts"
    schema = AccountSchema
    secret_fields = frozenset({"password_hash"})
    manager_fields = frozenset({"uid", "gid", "shard"})
    number_kinds = frozenset({"uid"})
    columns = ("domain", "access", "php", "suspended", "uid")
    order = 30
    verbs = (
        Verb(
            "create",
            "Make an account on every node.",
            "create alice --domain example.com --access sftp --password",
            options=(*OPTIONS, PASSWORD),
            makes=True,
        ),
        Verb("set", "Change settings of an account.", "set alice --access shell", options=OPTIONS),
        Verb("passwd", "Give an account a new password.", "passwd alice", options=(PASSWORD,)),
        Verb(
            "suspend",
            "Show a notice page, refuse logins, end sessions.",
            "suspend alice --reason unpaid",
            fixed={"suspended": True},
        ),
        Verb("unsuspend", "Undo a suspension, byte for byte.", "unsuspend alice", fixed={"suspended": False}),
        Verb(
            "delete",
            "Remove an account everywhere; its home goes to the trash.",
            "delete alice --yes alice",
            removes=True,
            asks=True,
        ),
    )

    actions = (
        Action(
            "logout",
            "End its shells and file transfers on every node.",
            "logout alice",
            roles=frozenset({"web", "ssh"}),
        ),
    )

    def check_name(self, name: str) -> str:
        return names.account(name)

    def check(self, name: str, spec: Spec | None, before: Spec | None, around: Surroundings) -> None:
        if before is not None:
            return
        nodes = around.all("node").values()
        if nodes and not any("storage" in node["roles"] for node in nodes):
            raise Refused(
                "no node has the role storage, so no home can be made",
                hint="onehost node add NAME ADDRESS --roles storage",
            )

    def number(self, spec: Spec, before: Spec | None, around: Surroundings) -> Spec:
        if before and before.get("uid"):
            return spec | {key: before[key] for key in self.manager_fields}
        uid = around.number("uid", around.setting("first_uid"), around.setting("last_uid"))
        shard = (uid - around.setting("first_uid")) // around.setting("pools_per_shard")
        return spec | {"uid": uid, "gid": uid, "shard": shard}

    def numbers(self, spec: Mapping[str, Any]) -> Mapping[str, int]:
        return {"uid": spec["uid"]} if spec.get("uid") else {}

    def claims(self, name: str, spec: Spec) -> Iterable[Claim]:
        if spec["domain"]:
            yield Claim("domain", spec["domain"])
            yield Claim("domain", f"www.{spec['domain']}")
        yield Claim("uid", str(spec["uid"]), forever=True)

    def stages(self) -> Sequence[Stage]:
        return (Stage(frozenset({"storage"})), Stage(frozenset({"web", "ssh"}), waits_for_all=False))

    def ordered(self, spec: Spec, before: Spec) -> bool:
        # Only the storage node makes folders, and they must be there before a site shows them.
        return bool(spec["document_root"] != before["document_root"])

    def destroys(self, spec: Spec | None, before: Spec | None) -> bool:
        if spec is None or before is None:
            return super().destroys(spec, before)
        return bool(spec["suspended"] and not before["suspended"])

    def urgent(self, spec: Spec | None, applied: Mapping[str, Any] | None) -> bool:
        if spec is None or applied is None:
            return spec is None
        return any(spec.get(key) != applied.get(key) for key in ("suspended", "password_hash", "access"))


NOUN = Account()
