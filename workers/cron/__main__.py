"""`python -m onehost.workers.cron`: one minute of this node's cron, as /etc/cron.d/onehost wants it."""

from __future__ import annotations

from pathlib import Path

from .minute import run

run(Path("/"))
