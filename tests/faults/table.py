"""The fault table: every row of the suite. Rows on the same store follow each other and share a cluster."""

from __future__ import annotations

from . import broker_faults, crashes, message_faults, network_faults, node_faults, store_faults

_ALL = (crashes, broker_faults, network_faults, store_faults, node_faults, message_faults)
ROWS = sorted((row for module in _ALL for row in module.ROWS), key=lambda row: (row.store, row.fresh))
