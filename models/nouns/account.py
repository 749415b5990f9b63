"""An account: a unix user with a home on shared storage, a primary domain, PHP and logins, the same on every node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf

from .. import names
from ..errors import Refused
from .consent import check_parents
from .fields import DocumentRoot, Domain, PasswordHash, PlanName, SshKey, YesNo, integer
from .noun import Action, Claim, Noun, Option, Spec, Stage, Surroundings, Verb, delete
from .plan import PlanSchema, allowed

ACCESS = ("none", "sftp", "shell")


class AccountSchema(Schema):
    """The spec of an account."""

    domain = Domain(load_default=None, allow_none=True)
    document_root = DocumentRoot(load_default="web")
    php = YesNo(load_default=True)
    access = fields.String(load_default="sftp", validate=OneOf(ACCESS))
    ftp = YesNo(load_default=True)
    ssh_keys = fields.List(SshKey(), load_default=list, validate=Length(max=50))
    suspended = YesNo(load_default=False)
    password_hash = PasswordHash(load_default=None, allow_none=True)
    uid = integer(20000, 59999, load_default=None, allow_none=True)
    gid = integer(20000, 59999, load_default=None, allow_none=True)
    shard = integer(0, 9999, load_default=None, allow_none=True)
    plan = PlanName(load_default=None, allow_none=True)
    #: Its own limits, before those of its plan.
    limits = fields.Nested(PlanSchema(partial=True), load_default=dict)
    php_processes = integer(1, 500, load_default=None, allow_none=True)
    memory_mib = integer(16, 4096, load_default=None, allow_none=True)
    shell = YesNo(load_default=None, allow_none=True)


OPTIONS = (
    Option("domain", "Primary domain; `www.` in front of it is served too."),
    Option("document_root", "Folder below the home that the domain shows."),
    Option("php", "Run PHP with the account's own uid.", "yes_no"),
    Option("access", "How the account may log in by SSH.", "choice", ACCESS),
    Option("ftp", "Lets the account itself log in by FTP, with its own password.", "yes_no"),
    Option("ssh_keys", "File of SSH public keys, one a line.", "file"),
    Option("plan", "The plan whose limits it has."),
    Option("limits", "A limit of its own instead of the plan's, such as domains=20; say all of them.", "mapping"),
)
PASSWORD = Option("password_hash", "Ask for a password (or read it from standard input).", "password")


class Account(Noun):
    """See the module."""

    name = "account"
    plural = "accounts"
    schema = AccountSchema
    version = (1, 1)
    secret_fields = frozenset({"password_hash"})
    urgent_fields = frozenset({"suspended", "password_hash", "access", "ftp"})
    follows = "plan"
    following_fields = frozenset({"php_processes", "memory_mib", "shell"})
    manager_fields = frozenset({"uid", "gid", "shard", *following_fields})
    number_kinds = frozenset({"uid"})
    no_way_back = {"delete": "its home is in the trash, and its uid is never given out again"}
    columns = ("domain", "plan", "access", "php", "suspended", "uid")
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
        delete("Remove an account everywhere; its home goes to the trash.", "alice"),
    )

    actions = (
        Action(
            "logout",
            "End its shells and file transfers on every node.",
            "logout alice",
            roles=frozenset({"web", "ssh", "ftp"}),
        ),
    )

    def check_name(self, name: str) -> str:
        return names.account(name)

    def check(self, name: str, spec: Spec | None, before: Spec | None, around: Surroundings) -> None:
        if spec and spec["domain"] and not (before and before["domain"] == spec["domain"]):
            check_parents([spec["domain"]], name, None, around)
        if spec and spec["access"] == "shell" and not (before and before["access"] == "shell"):
            _check_shell(name, spec, around)
        if before is not None:
            return
        nodes = around.all("node").values()
        if nodes and not any("storage" in node["roles"] for node in nodes):
            raise Refused(
                "no node has the role storage, so no home can be made",
                hint="onehost node add NAME ADDRESS --roles storage",
            )

    def number(self, spec: Spec, before: Spec | None, around: Surroundings) -> Spec:
        limits = allowed(spec, around)
        # What is not limited is not said: it is then as if there were no plans.
        spec = spec | {key: None if limits[key] is True else limits[key] for key in self.following_fields}
        if before and before.get("uid"):
            return spec | {key: before[key] for key in ("uid", "gid", "shard")}
        uid = around.number("uid", around.setting("first_uid"), around.setting("last_uid"))
        shard = (uid - around.setting("first_uid")) // around.setting("pools_per_shard")
        return spec | {"uid": uid, "gid": uid, "shard": shard}

    def numbers(self, spec: Mapping[str, Any]) -> Mapping[str, int]:
        return {"uid": spec["uid"]} if spec.get("uid") else {}

    def takes(self, spec: Spec) -> Mapping[str, int]:
        return {"ssh_keys": len(spec["ssh_keys"])}

    def claims(self, name: str, spec: Spec) -> Iterable[Claim]:
        if spec["domain"]:
            yield Claim("domain", spec["domain"])
            yield Claim("domain", f"www.{spec['domain']}")
        yield Claim("uid", str(spec["uid"]), forever=True)

    def stages(self) -> Sequence[Stage]:
        return (Stage(frozenset({"storage"})), Stage(frozenset({"web", "ssh", "ftp"}), waits_for_all=False))

    def ordered(self, spec: Spec, before: Spec) -> bool:
        # Only the storage node makes folders, and they must be there before a site shows them.
        return bool(spec["document_root"] != before["document_root"])

    def destroys(self, spec: Spec | None, before: Spec | None) -> bool:
        if spec is None or before is None:
            return super().destroys(spec, before)
        return bool(spec["suspended"] and not before["suspended"])


def _check_shell(name: str, spec: Spec, around: Surroundings) -> None:
    if not allowed(spec, around)["shell"]:
        whose = "its own limits allow" if "shell" in spec["limits"] else f"plan {spec['plan']} allows"
        raise Refused(f"{name} cannot have access shell: {whose} none",
                      hint=f"onehost account set {name} --limits shell=yes, or another plan")  # fmt: skip


NOUN = Account()
