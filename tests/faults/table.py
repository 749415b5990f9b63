"""The fault table: every row of the suite. Rows on the same store follow each other and share a cluster."""

from __future__ import annotations

from . import broker_faults, crashes, network_faults

ROWS = sorted((*crashes.ROWS, *broker_faults.ROWS, *network_faults.ROWS), key=lambda row: (row.store, row.fresh))
