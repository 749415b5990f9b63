"""The manager's store without a broker: wishes go in, and what nodes would say is handed to the audit process."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select, update

from onehost.broker_config.consumer import Delivery
from onehost.models import settings, wire
from onehost.models.digest import Digest
from onehost.models.moment import now
from onehost.models.store import Action, Base, Claim, NodeStatus, Placement, Resource, digests, reading, writing
from onehost.producer import Onehost, stages, waiting
from onehost.producer.audit import Audit
from onehost.producer.membership import nodes
from onehost.producer.presence import Presence

#: The epoch in which nodes speak unless a test says otherwise.
EPOCH = 77


class Store:
    """One manager, its store migrated already."""

    def __init__(self, url: str, folder: Path) -> None:
        # Without brakes, unless a test asks for them.
        config = settings.Manager(store=url, secrets=folder / "secrets", grace_seconds=0, held_beyond_per_hour=0)
        self.onehost = Onehost(config, actor="test")
        self.engine = self.onehost.engine
        self.audit = Audit(self.engine, Presence(15.0))
        self.numbers: dict[str, int] = {}

    def close(self) -> None:
        self.onehost.close()

    def cluster(self, *names: str) -> None:
        """A storage node and web nodes, all heard of."""
        for number, name in enumerate(names or ("s1", "w1", "w2")):
            roles = ["storage"] if name.startswith("s") else ["web", "ssh"]
            self.onehost.node_add(name, f"10.0.0.{number + 1}", roles)
            self.say(self.beat(name))
            self.ack(name, self.id("node", name), 1)
        with writing(self.engine) as connection:  # as if each had said hello
            connection.execute(update(NodeStatus).values(reported=0))
            connection.execute(delete(Action))

    def id(self, noun: str, name: str) -> int:
        """The newest resource of a name."""
        with reading(self.engine) as connection:
            newest = select(func.max(Resource.id)).where(Resource.noun == noun, Resource.name == name)
            return int(connection.execute(newest).scalar_one())

    # ---- what nodes say

    def say(self, *deliveries: Delivery) -> list[Delivery]:
        return self.audit.store(deliveries)

    def letter(self, node: str, body: dict[str, Any], *, user: str | None = None) -> Delivery:
        data = json.dumps(body | {"node": body.get("node", node)}).encode()
        sender = f"node-{node}" if user is None else user
        return Delivery("onehost.audit", f"ack.{node}.account", sender, "m", data, False)

    def beat(self, node: str, epoch: int = EPOCH, **more: Any) -> Delivery:
        said = {"form": "beat", "epoch": epoch, "last": self.numbers.get(node, 0), "at": time.time(), "synced": True}
        return self.letter(node, said | more)

    def acked(self, node: str, resource_id: int, generation: int, outcome: str = "applied", *, epoch: int = EPOCH,
              number: int | None = None, reason: str = "", user: str | None = None,
              **more: Any) -> Delivery:  # fmt: skip
        """An acknowledgement, under the node's next number unless one is given."""
        if number is None:
            number = self.numbers[node] = self.numbers.get(node, 0) + 1
        body = {"form": "ack", "epoch": epoch, "number": number, "incarnation": 0, "id": resource_id, "noun": "account",
                "name": "x", "generation": generation, "outcome": outcome, "reason": reason, "at": time.time(),
                "difference": {"site": "changed"}, **more}  # fmt: skip
        return self.letter(node, body, user=user)

    def ack(self, node: str, resource_id: int, generation: int, outcome: str = "applied", **more: Any) -> None:
        assert self.say(self.acked(node, resource_id, generation, outcome, **more)) == []

    def ack_all(self, receipt: Any, *names: str, outcome: str = "applied") -> None:
        for name in names or ("s1", "w1", "w2"):
            self.ack(name, receipt.resource_id, receipt.generation, outcome)

    def node_state(self, name: str, state: str) -> None:
        """As the presence would write it."""
        with writing(self.engine) as connection:
            node_id = next(node.id for node in nodes(connection).values() if node.name == name)
            connection.execute(update(NodeStatus).where(NodeStatus.node_id == node_id).values(state=state))
            stages.on_node_change(connection, node_id, now())

    # ---- what the relay would send

    def letters(self) -> list[wire.Letter]:
        """Every placement that waits to be sent and may be, but those of nodes, as its node would read it."""
        with reading(self.engine) as connection:
            found = [each for each in waiting.find(connection).batch() if not each.action_id]
        return [each for each in (wire.decode(each.letter.body) for each in found) if each["noun"] != "node"]

    # ---- looking

    def placements(self, resource_id: int) -> dict[str, Any]:
        with reading(self.engine) as connection:
            alive = nodes(connection)
            rows = connection.execute(select(Placement).where(Placement.resource_id == resource_id)).all()
        return {alive[row.node_id].name: row for row in rows}

    def job(self, job_id: int | None) -> dict[str, Any]:
        assert job_id is not None
        return self.onehost.job(job_id)

    def targets(self, job_id: int | None) -> dict[str, str]:
        return {node["node"]: node["state"] for node in self.job(job_id)["nodes"]}

    def claims(self) -> dict[str, int | None]:
        """Who holds each domain; negative: still releasing."""
        with reading(self.engine) as connection:
            rows = connection.execute(select(Claim).where(Claim.kind == "domain")).all()
        return {row.value: row.resource_id if row.releasing is None else -row.resource_id for row in rows}

    def wrong_digests(self) -> dict[str, list[int]]:
        """By node the buckets whose running sums are not those of its placements."""
        found = {}
        with reading(self.engine) as connection:
            for node in nodes(connection).values():
                counted = Digest()
                for row in connection.execute(select(Placement).where(Placement.node_id == node.id)):
                    if row.wanted:
                        counted.add(row.resource_id, row.wanted, row.outcome if row.done == row.wanted else 0)
                if differing := digests.read(connection, node.id).differing(counted):
                    found[node.name] = differing
        return found

    def dump(self) -> dict[str, Sequence[Any]]:
        """Every row of every table."""
        with reading(self.engine) as connection:
            return {
                table.name: sorted(map(repr, connection.execute(select(table)).all()))
                for table in Base.metadata.sorted_tables
            }
