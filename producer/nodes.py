"""A node's credentials at the broker: made here, handed out once, kept only as RabbitMQ's own hash."""

from __future__ import annotations

from sqlalchemy import Engine, select, update

from ..broker_config.credentials import password_hash, random_password
from ..models.errors import NotFound
from ..models.store import NodeStatus, Resource, reading, writing


def credentials(engine: Engine, node: str) -> str:
    """A new password for the broker user of a node; the old one stops working at the next `broker apply`."""
    password = random_password()
    living = select(Resource.id).where(Resource.noun == "node", Resource.name == node, Resource.absent.is_(False))
    with writing(engine) as connection:
        node_id = connection.execute(living).scalar()
        if node_id is None:
            raise NotFound(f"no such node: {node}", hint="onehost node list")
        hashed = password_hash(password)
        connection.execute(update(NodeStatus).where(NodeStatus.node_id == node_id).values(password_hash=hashed))
    return password


def hashes(engine: Engine) -> dict[str, str]:
    """Hash of the broker password by node, for every living node that was ever given one."""
    with reading(engine) as connection:
        rows = connection.execute(
            select(Resource.name, NodeStatus.password_hash)
            .join(NodeStatus, NodeStatus.node_id == Resource.id)
            .where(Resource.noun == "node", Resource.absent.is_(False), NodeStatus.password_hash.is_not(None))
        )
        return {row.name: row.password_hash for row in rows}
