"""What relay and audit process tell of themselves (models/metrics.py). No label names an account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, func, select

from ..broker_config.consumer import Consumer
from ..models.metrics import SIZES, Metric
from ..models.moment import now as time_now
from ..models.store import Action, NodeStatus, Placement, Resource, reading
from .standing import kept, open_since, seal_lag

PUBLISHED = "onehost_relay_published"
UNROUTABLE = "onehost_relay_unroutable"
NACKED = "onehost_relay_refused"
CONFIRMED = "onehost_relay_confirm_seconds"
SENT_TOGETHER = "onehost_relay_batch_letters"
RELAY = (
    Metric(PUBLISHED, "counter", "Letters that the broker has confirmed."),
    Metric(UNROUTABLE, "counter", "Letters that came back because no queue takes them."),
    Metric(NACKED, "counter", "Letters that a full queue has refused."),
    Metric(CONFIRMED, "histogram", "From the first letter of a batch to the last confirmation."),
    Metric(SENT_TOGETHER, "histogram", "Letters published together.", bounds=SIZES),
    Metric("onehost_relay_waiting", "gauge", "Letters that wait to be published."),
)

ACKNOWLEDGED = "onehost_audit_acknowledgements"
REFUSED = "onehost_audit_refused"
WRITTEN = "onehost_audit_batch_seconds"
TAKEN_TOGETHER = "onehost_audit_batch_letters"
AUDIT = (
    Metric(ACKNOWLEDGED, "counter", "Acknowledgements taken in, repeated ones too."),
    Metric(REFUSED, "counter", "Messages that were no letter, or not sent by the node they speak of."),
    Metric(WRITTEN, "histogram", "Writing one batch to the store."),
    Metric(TAKEN_TOGETHER, "histogram", "Messages of one batch.", bounds=SIZES),
    Metric("onehost_audit_redeliveries", "counter", "Messages that the broker had given out before."),
    Metric("onehost_audit_connections", "counter", "Connections made to the broker."),
    Metric("onehost_audit_unsealed_events", "gauge", "Events that wait for their seal."),
    Metric("onehost_audit_seal_lag_seconds", "gauge", "For how long the oldest of them waits."),
    Metric("onehost_audit_dead_letters", "gauge", "Dead letters that nobody has decided on."),
    Metric("onehost_audit_open_placements", "gauge", "Resources on nodes that are not as they are wanted yet."),
    Metric("onehost_audit_oldest_open_seconds", "gauge", "For how long the oldest of them waits."),
    Metric("onehost_audit_node_state", "gauge", "1 for the state that a node is in.", ("node", "state")),
)


def relay_look(engine: Engine) -> Mapping[str, Any]:
    """What waits for the relay now."""
    with reading(engine) as connection:
        placed = select(func.count()).select_from(Placement).where(Placement.sent < Placement.wanted)
        letters = select(func.count()).select_from(Action)
        waiting = connection.execute(placed).scalar_one() + connection.execute(letters).scalar_one()
    return {"onehost_relay_waiting": waiting}


def audit_look(engine: Engine, consumer: Consumer) -> Mapping[str, Any]:
    """How the store stands now."""
    since = open_since()
    with reading(engine) as connection:
        count, oldest = connection.execute(select(func.count(), func.min(since.c.since_at))).one()
        lag, dead = seal_lag(connection), kept(connection)
        states = connection.execute(
            select(Resource.name, NodeStatus.state).join(NodeStatus, NodeStatus.node_id == Resource.id)
            .where(Resource.absent.is_(False))
        ).all()  # fmt: skip
    now = time_now()
    return {
        "onehost_audit_redeliveries": consumer.redeliveries,
        "onehost_audit_connections": consumer.connections,
        "onehost_audit_unsealed_events": lag["unsealed"],
        "onehost_audit_seal_lag_seconds": (now - lag["unsealed_at"]).total_seconds() if lag["unsealed_at"] else 0.0,
        "onehost_audit_dead_letters": dead,
        "onehost_audit_open_placements": count,
        "onehost_audit_oldest_open_seconds": (now - oldest).total_seconds() if oldest else 0.0,
        "onehost_audit_node_state": {(row.name, row.state): 1.0 for row in states},
    }
