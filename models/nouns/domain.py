"""A further site of an account: an addon domain, a subdomain, a parked domain, or a redirect.

One set of fields covers them: a domain shows a folder of the account's home (the primary's own: it is parked), or leads
elsewhere. More names of the same site are its aliases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marshmallow import ValidationError, fields, validates_schema
from marshmallow.validate import Length, OneOf

from ..errors import Refused
from ..php_settings import effective, megabytes
from .consent import check_parents
from .fields import (
    AccountName,
    DocumentRoot,
    Domain,
    PhpSetting,
    RedirectTarget,
    SiteDirective,
    SitePath,
    SiteUser,
    YesNo,
)
from .noun import Claim, Option, Spec, Stage, Surroundings, Verb, delete
from .owned import OWNER, NamedByDomain, OfAccountSchema

REDIRECT_STATUS = (301, 302, 307, 308)


class DomainSchema(OfAccountSchema):
    """The spec of a domain."""

    document_root = DocumentRoot(load_default=None, allow_none=True)
    aliases = fields.List(Domain(), load_default=list, validate=Length(max=100))
    redirect = RedirectTarget(load_default=None, allow_none=True)
    redirect_status = fields.Integer(strict=True, load_default=301, validate=OneOf(REDIRECT_STATUS))
    php = YesNo(load_default=True)
    php_settings = fields.List(PhpSetting(), load_default=list)
    protected_paths = fields.List(SitePath(), load_default=list, validate=Length(max=20))
    protected_users = fields.List(SiteUser(), load_default=list, validate=Length(max=200))
    override = fields.List(SiteDirective(), load_default=list, validate=Length(max=500))
    consent_of = AccountName(load_default=None, allow_none=True)
    suspended = YesNo(load_default=False)

    @validates_schema
    def fits_together(self, spec: Mapping[str, Any], **more: Any) -> None:
        """Rules over more than one field."""
        settings = effective(spec["php_settings"])
        given = [text.partition("=")[0] for text in spec["php_settings"]]
        if len(set(given)) != len(given):
            raise ValidationError("names a setting twice", "php_settings")
        if megabytes(settings["upload_max_filesize"]) > megabytes(settings["post_max_size"]):
            raise ValidationError("upload_max_filesize needs a post_max_size that is not smaller", "php_settings")
        if spec["protected_paths"] and not spec["protected_users"]:
            raise ValidationError("need protected_users, else nobody could see them", "protected_paths")
        users = [line.partition(":")[0] for line in spec["protected_users"]]
        if len(set(users)) != len(users):
            raise ValidationError("names a user twice", "protected_users")
        if spec["redirect"] and spec["protected_paths"]:
            raise ValidationError("a redirect has no paths to protect", "protected_paths")


OPTIONS = (
    Option("document_root", "Folder below the home that it shows (default: its name); the primary's own: parked."),
    Option("aliases", "Another domain of the same site; `www.` in front of each is served too.", "list"),
    Option("redirect", "Lead visitors to this URL, their path behind it, instead of showing a folder."),
    Option("redirect_status", "How a redirect is said: 301, 302, 307 or 308.", "number"),
    Option("php", "Run PHP with the account's own uid.", "yes_no"),
    Option("php_settings", "One of PHP's settings, such as memory_limit=256M.", "list"),
    Option("protected_paths", "A path that asks for user and password.", "list"),
    Option("protected_users", "File of USER:HASH for protected paths, one a line, as htpasswd -B writes it.", "file"),
    Option("override", "File of Apache directives for this site alone, for operators.", "file"),
    Option("consent_of", "Account that owns the domain above this one and has agreed to it."),
)


class DomainNoun(NamedByDomain):
    """See the module."""

    name = "domain"
    plural = "domains"
    schema = DomainSchema
    secret_fields = frozenset({"protected_users"})
    urgent_fields = frozenset({"suspended"})
    columns = ("account", "document_root", "redirect", "php", "suspended")
    order = 40
    verbs = (
        Verb(
            "create",
            "Make a site of an account on every node.",
            "create shop.example.com alice --document-root shop --aliases shop.example.net",
            options=(OWNER, *OPTIONS),
            makes=True,
        ),
        Verb(
            "set",
            "Change settings of a site.",
            "set shop.example.com --php-settings memory_limit=256M",
            options=OPTIONS,
        ),
        Verb("suspend", "Show a notice page.", "suspend shop.example.com", fixed={"suspended": True}),
        Verb("unsuspend", "Show the site again.", "unsuspend shop.example.com", fixed={"suspended": False}),
        delete("Remove a site everywhere; its folder stays in the account's home.", "shop.example.com"),
    )

    def check(self, name: str, spec: Spec | None, before: Spec | None, around: Surroundings) -> None:
        if spec is None:
            return
        old = {claim.value for claim in self.claims(name, before)} if before else set()
        new = [value for value in (name, *spec["aliases"]) if value not in old]
        check_parents(new, spec["account"], spec["consent_of"], around)
        owner = around.owner("account", spec["account"])
        if owner and not (before and before["php_settings"] == spec["php_settings"]):
            _check_memory(name, spec, owner[1])
        if spec["php"] and not spec["redirect"] and owner and not owner[1]["php"]:
            raise Refused(f"account {spec['account']} has PHP off, so {name} cannot run it",
                          hint=f"onehost account set {spec['account']} --php, or --no-php here")  # fmt: skip

    def takes(self, spec: Spec) -> Mapping[str, int]:
        return {"domains": 1, "aliases": len(spec["aliases"])}

    def claims(self, name: str, spec: Spec) -> Iterable[Claim]:
        for each in dict.fromkeys((name, *spec["aliases"])):
            yield Claim("domain", each)
            yield Claim("domain", f"www.{each}")

    def stages(self) -> Sequence[Stage]:
        return (Stage(frozenset({"storage"})), Stage(frozenset({"web"}), waits_for_all=False))

    def ordered(self, spec: Spec, before: Spec) -> bool:
        # Only the storage node makes folders, and they must be there before a site shows them.
        return any(spec[key] != before[key] for key in ("document_root", "redirect"))

    def destroys(self, spec: Spec | None, before: Spec | None) -> bool:
        if spec is None or before is None:
            return super().destroys(spec, before)
        return bool(spec["suspended"] and not before["suspended"])


def _check_memory(name: str, spec: Spec, owner: Spec) -> None:
    """Raises Refused if a site is to have more memory for PHP than its account: it would not get it."""
    most = owner.get("memory_mib")
    said = next((text.partition("=")[2] for text in spec["php_settings"] if text.startswith("memory_limit=")), None)
    if most and said and megabytes(said) > most:
        raise Refused(f"account {spec['account']} has {most} MiB for a PHP request, so {name} cannot have {said}",
                      hint=f"onehost account usage {spec['account']}")  # fmt: skip


NOUN = DomainNoun()
