"""`python -m onehost.producer relay|audit`: runs one of the manager's processes in the foreground, under supervisor."""

from __future__ import annotations

import sys

from ..models import settings
from ..models.errors import OnehostError
from .main import run_audit, run_relay

PROCESSES = {"relay": run_relay, "audit": run_audit}

process = PROCESSES.get(" ".join(sys.argv[1:]))
if process is None:
    sys.exit("usage: python -m onehost.producer relay|audit")
try:
    process(settings.manager())
except OnehostError as error:
    print(f"error: {error.what}" + (f". try: {error.hint}" if error.hint else ""), file=sys.stderr)
    sys.exit(error.exit_code)
