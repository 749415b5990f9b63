"""A certificate: what a domain shows to clients that speak TLS. The manager signs one itself where none is brought."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from marshmallow import ValidationError, fields, post_load

from .. import certificates, self_signed
from ..errors import Refused
from .noun import Noun, Option, Spec, Stage, Surroundings, Verb, delete
from .owned import OWNER, NamedByDomain, OfAccountSchema

#: A chain with its key is never longer, in characters.
LONGEST_PEM = 64 * 1024
_FACTS = ("names", "issuer", "fingerprint", "not_after_at", "self_signed")


class Pem(fields.Field[str]):
    """PEM as one text or as its lines. What is wrong with it is said without repeating it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> str:
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "\n".join(value) + "\n"
        if not isinstance(value, str) or not re.fullmatch(r"[\x20-\x7e\r\n]+", value) or len(value) > LONGEST_PEM:
            raise ValidationError("is not PEM")
        return value


class CertificateSchema(OfAccountSchema):
    """The spec of a certificate. Neither certificate nor key: the manager makes them."""

    certificate = Pem(load_default=None, allow_none=True)
    key = Pem(load_default=None, allow_none=True)
    names = fields.List(fields.String(), load_default=None, allow_none=True)
    issuer = fields.String(load_default=None, allow_none=True)
    fingerprint = fields.String(load_default=None, allow_none=True)
    not_after_at = fields.String(load_default=None, allow_none=True)
    self_signed = fields.Boolean(load_default=None, allow_none=True)

    @post_load
    def both_or_neither(self, spec: Spec, **more: Any) -> Spec:
        """A chain without its key serves nobody."""
        if (spec["certificate"] is None) != (spec["key"] is None):
            missing = "key" if spec["key"] is None else "certificate"
            raise ValidationError("is needed too: certificate and key come together, or neither", missing)
        return spec


FILES = (
    Option("certificate", "File with the certificate first, then those that signed it, in PEM.", "file"),
    Option("key", "File with its private key in PEM, without a password.", "file"),
)


class CertificateNoun(NamedByDomain):
    """See the module."""

    name = "certificate"
    plural = "certificates"
    schema = CertificateSchema
    # The certificate is none, but long and of no use in a record.
    secret_fields = frozenset({"certificate", "key"})
    manager_fields = NamedByDomain.manager_fields | frozenset(_FACTS)
    columns = ("account", "names", "issuer", "not_after_at", "self_signed")
    # After the domain that it is for: both may come in one file.
    order = 42
    verbs = (
        Verb(
            "create",
            "Show a certificate for a domain: the one brought, or one signed by nobody else.",
            "create shop.example.com alice --certificate fullchain.pem --key privkey.pem",
            options=(OWNER, *FILES),
            makes=True,
        ),
        Verb(
            "upload",
            "Show another certificate; without --key it is for the same key.",
            "upload shop.example.com --certificate fullchain.pem --key privkey.pem",
            options=FILES,
        ),
        Verb(
            "self-sign",
            "Make a new key and a certificate that nobody vouches for.",
            "self-sign shop.example.com",
            fixed={"certificate": None, "key": None},
        ),
        delete("Show the cluster's own certificate again.", "shop.example.com"),
    )

    def check(self, name: str, spec: Spec | None, before: Spec | None, around: Surroundings) -> None:
        if spec is None or not _is_new(spec, before):
            return
        # What comes back with its account has its facts, and may come before its domain does.
        if spec["fingerprint"] is None and around.holder("domain", name) != spec["account"]:
            raise Refused(f"{name} is no domain of account {spec['account']}",
                          hint=f"onehost domain create {name} {spec['account']}")  # fmt: skip
        if spec["certificate"]:
            certificates.expect_name(_checked(spec), name)
        else:
            spec["names"] = [name, f"www.{name}"]

    def number(self, spec: Spec, before: Spec | None, around: Surroundings) -> Spec:
        if not _is_new(spec, before):
            return spec
        signed_here = spec["certificate"] is None
        if signed_here:
            made = self_signed.made(spec["names"][0], spec["names"])
            spec = spec | {"certificate": made.certificate, "key": made.key}
        found = _checked(spec)
        facts = (list(found.names), found.issuer, found.fingerprint, found.not_after_at.isoformat(), signed_here)
        return spec | {"certificate": found.chain, "key": found.key} | dict(zip(_FACTS, facts, strict=True))

    def stages(self) -> Sequence[Stage]:
        return (Stage(frozenset({"web"}), waits_for_all=False),)


def _is_new(spec: Spec, before: Spec | None) -> bool:
    """Whether it is another certificate than before, and so must be looked at."""
    return not (before and spec["certificate"] and all(spec[key] == before[key] for key in ("certificate", "key")))


def _checked(spec: Spec) -> certificates.Certificate:
    return certificates.checked(spec["certificate"], spec["key"], datetime.now(UTC))


NOUN: Noun = CertificateNoun()
