"""The identity: what all nodes show alike, so that no client sees a difference: SSH host keys and a certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import Schema, fields

from .. import host_keys, self_signed
from ..errors import Invalid
from .fields import Domain, YesNo
from .noun import Noun, Option, Spec, Stage, Surroundings, Verb, delete

#: There is one.
NAME = "cluster"
#: In the certificate of a cluster that has no name.
NO_NAME = "onehost"
_PRIVATE = tuple(f"ssh_{kind}" for kind in host_keys.KINDS)
_PUBLIC = tuple(f"ssh_{kind}_public" for kind in host_keys.KINDS)
_TLS = ("tls_key", "tls_certificate", "tls_fingerprint", "tls_not_after_at")


class IdentitySchema(Schema):
    """The spec of the identity. Keys are made by the manager, and the private ones are secrets."""

    host_name = Domain(load_default=None, allow_none=True)
    renew = YesNo(load_default=False)
    ssh_ed25519 = fields.String(load_default=None, allow_none=True)
    ssh_ecdsa = fields.String(load_default=None, allow_none=True)
    ssh_rsa = fields.String(load_default=None, allow_none=True)
    ssh_ed25519_public = fields.String(load_default=None, allow_none=True)
    ssh_ecdsa_public = fields.String(load_default=None, allow_none=True)
    ssh_rsa_public = fields.String(load_default=None, allow_none=True)
    tls_key = fields.String(load_default=None, allow_none=True)
    tls_certificate = fields.String(load_default=None, allow_none=True)
    tls_fingerprint = fields.String(load_default=None, allow_none=True)
    tls_not_after_at = fields.String(load_default=None, allow_none=True)


HOST_NAME = Option("host_name", "The name by which clients know the cluster; it stands in the certificate.")


class Identity(Noun):
    """See the module."""

    name = "identity"
    plural = "identities"
    schema = IdentitySchema
    # The certificate is none, but long and of no use in a record.
    secret_fields = frozenset({*_PRIVATE, "tls_key", "tls_certificate"})
    manager_fields = frozenset({*_PRIVATE, *_PUBLIC, *_TLS})
    following_fields = frozenset({"tls_fingerprint", "tls_not_after_at"})
    no_way_back = {"renew": "keys that were replaced are kept nowhere; onehost identity renew makes others"}
    columns = ("host_name", "ssh_ed25519_public", "tls_not_after_at")
    order = 25
    verbs = (
        Verb(
            "create",
            "Make keys for the whole cluster; `onehost init` has done it.",
            "create cluster --host-name cp.example.com",
            options=(HOST_NAME,),
            makes=True,
        ),
        Verb(
            "set",
            "Give the cluster another name, with a new certificate. SSH keys stay.",
            "set cluster --host-name cp.example.com",
            options=(HOST_NAME,),
        ),
        Verb(
            "renew",
            "Make all keys anew. Every client of SSH is warned until it knows them: for keys that somebody has seen.",
            "renew cluster --yes cluster",
            fixed={"renew": True},
            asks=True,
        ),
        delete("Let each node show keys of its own again.", "cluster"),
    )

    def check_name(self, name: str) -> str:
        if name != NAME:
            raise Invalid(f"there is one identity, and it is called {NAME}, not {name!r}")
        return name

    def number(self, spec: Spec, before: Spec | None, around: Surroundings) -> Spec:
        is_new = spec["renew"] or not spec["ssh_ed25519"]
        if is_new:
            for kind in host_keys.KINDS:
                spec[f"ssh_{kind}"], spec[f"ssh_{kind}_public"] = host_keys.made(kind)
        if is_new or not before or before["host_name"] != spec["host_name"]:
            tls = self_signed.made(spec["host_name"] or NO_NAME)
            not_after = tls.not_after_at.isoformat()
            spec |= dict(zip(_TLS, (tls.key, tls.certificate, tls.fingerprint, not_after), strict=True))
        return spec | {"renew": False}

    def urgent(self, spec: Spec | None, applied: Mapping[str, Any] | None) -> bool:
        # A node that is new, or was away, starts no sshd before it shows the cluster's keys.
        return True

    def stages(self) -> Sequence[Stage]:
        return (Stage(frozenset({"ssh", "web", "ftp"}), waits_for_all=False),)


def publics(spec: Mapping[str, Any]) -> dict[str, str]:
    """The public host keys by kind."""
    return {kind: spec[f"ssh_{kind}_public"] for kind in host_keys.KINDS}


NOUN = Identity()
