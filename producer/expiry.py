"""Certificates of domains whose time is nearly over, as the store knows them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, select

from ..models.store import Resource, Revision

#: So long before its end a certificate is worth a word.
SOON = timedelta(days=14)


def expiring(connection: Connection, now: datetime) -> list[dict[str, Any]]:
    """Name and end of each certificate that ends soon or has ended, the first to end first."""
    rows = connection.execute(
        select(Resource.name, Revision.payload)
        .join(Revision, and_(Revision.resource_id == Resource.id, Revision.generation == Resource.generation))
        .where(Resource.noun == "certificate", Resource.absent.is_(False))
    )
    ends = [(datetime.fromisoformat(json.loads(row.payload)["not_after_at"]), row.name) for row in rows]
    return [{"name": name, "not_after_at": end} for end, name in sorted(ends) if end < now + SOON]
