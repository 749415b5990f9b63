"""What a worker tells of itself (models/metrics.py). No label names an account."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..models.metrics import Metric

if TYPE_CHECKING:
    from ..broker_config.consumer import Consumer
    from .ledger import Ledger

ROUNDS = "onehost_worker_rounds"
PHASES = "onehost_worker_phase_seconds"
COMMITS = "onehost_worker_commit_seconds"
WORKER = (
    Metric(ROUNDS, "counter", "Rounds run."),
    Metric(PHASES, "histogram", "One phase of a round.", ("phase",)),
    Metric(COMMITS, "histogram", "One durable commit of the ledger."),
    Metric("onehost_worker_open_entries", "gauge", "Resources that are not as they are wanted yet."),
    Metric("onehost_worker_failed_entries", "gauge", "Resources that cannot be as they are wanted."),
    Metric("onehost_worker_held_acknowledgements", "gauge", "Acknowledgements that the manager may not have yet."),
    Metric("onehost_worker_synced", "gauge", "1 once this worker holds everything that it was told it lacks."),
    Metric("onehost_worker_redeliveries", "counter", "Messages that the broker had given out before."),
    Metric("onehost_worker_connections", "counter", "Connections made to the broker to receive; 1 is none lost."),
)


def look(ledger: Ledger, synced: threading.Event, consumer: Consumer) -> Mapping[str, Any]:
    """How the ledger stands now."""
    counts = ledger.counts()
    return {
        "onehost_worker_open_entries": counts["open"],
        "onehost_worker_failed_entries": counts["failed"],
        "onehost_worker_held_acknowledgements": counts["held"],
        "onehost_worker_synced": float(synced.is_set()),
        "onehost_worker_redeliveries": consumer.redeliveries,
        "onehost_worker_connections": consumer.connections,
    }
