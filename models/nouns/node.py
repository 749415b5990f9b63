"""A node: a machine of the cluster with its address, what it does, and whether it takes traffic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf

from .. import names
from ..errors import Refused
from .fields import Address, integer
from .noun import Action, Claim, Noun, Option, Spec, Stage, Surroundings, Verb

ROLES = ("web", "ssh", "ftp", "storage", "director")
TRAFFIC = ("active", "cordoned", "drained")


#: Daemons by the names that people know, those of the director last.
DAEMONS = ("apache", "php", "ssh", "proftpd", "cron", "haproxy", "keepalived")
#: What can be done to one.
DAEMON_VERBS = {
    "start": "Start it, and let it come with the next boot.",
    "stop": "Stop it; it stays stopped until it is started.",
    "restart": "Stop and start it, if its configuration passes its own check.",
    "reload": "Have it read its configuration again, if that passes its own check.",
    "enable": "Let it come with the next boot, without starting it now.",
}


class DaemonSchema(Schema):
    """Which daemon of a node is meant."""

    daemon = fields.String(required=True, validate=OneOf(DAEMONS))


class NodeSchema(Schema):
    """The spec of a node."""

    address = Address(required=True)
    roles = fields.List(fields.String(validate=OneOf(ROLES)), required=True, validate=Length(min=1))
    weight = integer(1, 256, load_default=100)
    traffic = fields.String(load_default="active", validate=OneOf(TRAFFIC))
    drain_seconds = integer(0, 86400, load_default=600)


class Node(Noun):
    """See the module."""

    name = "node"
    plural = "nodes"
    schema = NodeSchema
    no_way_back = {"remove": "what it held was given to others; onehost node add makes it a member again"}
    columns = ("address", "roles", "traffic", "weight")
    order = 10
    verbs = (
        Verb(
            "add",
            "Add a node and make its broker user.",
            "add web1 10.0.0.11 --roles web --roles ssh",
            options=(
                Option("address", "The node's address inside the cluster.", required=True, positional=True),
                Option("roles", "What the node does; may be given again.", "list", ROLES, required=True),
                Option("weight", "Share of the traffic, 1 to 256.", "number"),
            ),
            makes=True,
        ),
        Verb(
            "set",
            "Change a node's weight or address.",
            "set web1 --weight 50",
            options=(
                Option("weight", "Share of the traffic, 1 to 256.", "number"),
                Option("address", "The node's address inside the cluster."),
            ),
        ),
        Verb("cordon", "Give it no new traffic.", "cordon web1", fixed={"traffic": "cordoned"}),
        Verb(
            "drain",
            "Give it no new traffic and wait until its connections are over.",
            "drain web1 --drain-seconds 60",
            fixed={"traffic": "drained"},
            options=(Option("drain_seconds", "How long to wait at most.", "number"),),
        ),
        Verb("uncordon", "Give it traffic again.", "uncordon web1", fixed={"traffic": "active"}),
        Verb("remove", "Take a node out of the cluster.", "remove web1 --yes web1", removes=True, asks=True),
    )

    actions = (
        Action("sync", "Let it compare what it holds with the store, now.", "sync web1", on_itself=True),
        Action("repair", "Put back what differs from its ledger; the overwritten is kept.", "repair web1",
               on_itself=True, deadline_seconds=300.0, kind="node.repair"),
        *(Action(f"daemon-{verb}", text, "", on_itself=True, schema=DaemonSchema, kind=f"daemon.{verb}",
                 deadline_seconds=120.0) for verb, text in DAEMON_VERBS.items()),
    )  # fmt: skip

    def check_name(self, name: str) -> str:
        return names.node(name)

    def check(self, name: str, spec: Spec | None, before: Spec | None, around: Surroundings) -> None:
        if before and spec and sorted(spec["roles"]) != sorted(before["roles"]):
            raise Refused(
                f"the roles of node {name} cannot be changed", hint=f"onehost node remove {name}, then add it"
            )
        if before and before["traffic"] == "active" and (spec is None or spec["traffic"] != "active"):
            self._refuse_last(name, before, around, is_removal=spec is None)

    def _refuse_last(self, name: str, before: Spec, around: Surroundings, *, is_removal: bool) -> None:
        others = [spec for other, spec in around.all("node").items() if other != name and spec["traffic"] == "active"]
        for service, wanted in sorted(around.all("virtual_service").items()):
            role = wanted["role"]
            if role in before["roles"] and not any(role in spec["roles"] for spec in others):
                lost = f"; one that will not come back: onehost node remove {name} --lost" if is_removal else ""
                raise Refused(
                    f"node {name} is the last active real server of virtual service {service}",
                    hint=f"onehost node uncordon another node first{lost}",
                )

    def claims(self, name: str, spec: Spec) -> Iterable[Claim]:
        yield Claim("node address", spec["address"])

    def stages(self) -> Sequence[Stage]:
        return (Stage(frozenset({"director"}), waits_for_all=False),)

    def extra_nodes(self, name: str) -> frozenset[str]:
        return frozenset({name})


NOUN = Node()
