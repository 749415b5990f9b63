"""A virtual service: one address and port in front of every node that has a role."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from marshmallow import Schema, fields
from marshmallow.validate import OneOf

from ..errors import Invalid, Refused
from .fields import Address, integer
from .node import ROLES
from .noun import Claim, Noun, Option, Spec, Stage, Surroundings, Verb, delete

SCHEDULERS = ("wrr", "wlc")
CHECKS = ("tcp", "http", "ssh")


class VirtualServiceSchema(Schema):
    """The spec of a virtual service."""

    address = Address(required=True)
    port = integer(1, 65535, required=True)
    role = fields.String(load_default="web", validate=OneOf(ROLES[:3]))
    persistence_seconds = integer(0, 86400, load_default=300)
    scheduler = fields.String(load_default="wrr", validate=OneOf(SCHEDULERS))
    check = fields.String(load_default="tcp", validate=OneOf(CHECKS))


OPTIONS = (
    Option("role", "Nodes with this role are its real servers.", "choice", ROLES[:3]),
    Option("persistence_seconds", "How long a client stays on its node; 0: not at all.", "number"),
    Option("scheduler", "How new clients are spread.", "choice", SCHEDULERS),
    Option("check", "How the director asks whether a node is well.", "choice", CHECKS),
)


class VirtualService(Noun):
    """See the module."""

    name = "virtual_service"
    plural = "virtual_services"
    schema = VirtualServiceSchema
    columns = ("address", "port", "role", "persistence_seconds", "scheduler", "check")
    order = 20
    verbs = (
        Verb(
            "create",
            "Serve an address and port from every node with a role.",
            "create http 198.51.100.10 80 --role web --check http",
            options=(
                Option("address", "The virtual address.", required=True, positional=True),
                Option("port", "The port.", "number", required=True, positional=True),
                *OPTIONS,
            ),
            makes=True,
        ),
        Verb("set", "Change how it balances.", "set http --persistence-seconds 600", options=OPTIONS),
        delete("Stop serving it.", "http"),
    )

    def check_name(self, name: str) -> str:
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", name):
            raise Invalid(f"virtual service name {name!r} must be 1 to 40 of a-z, 0-9 and '-', a letter first")
        return name

    def check(self, name: str, spec: Spec | None, before: Spec | None, around: Surroundings) -> None:
        if spec and spec["role"] == "ftp" and not spec["persistence_seconds"]:
            raise Refused(
                f"virtual service {name} needs persistence: an FTP client's data connections must reach the same node",
                hint=f"onehost virtual-service set {name} --persistence-seconds 300",
            )

    def claims(self, name: str, spec: Spec) -> Iterable[Claim]:
        yield Claim("address:port", f"{spec['address']}:{spec['port']}")

    def stages(self) -> Sequence[Stage]:
        return (Stage(frozenset({"director"}), waits_for_all=False),)


NOUN = VirtualService()
