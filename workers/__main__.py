"""`python -m onehost.workers`: runs this node's worker in the foreground, as supervisor wants it."""

from __future__ import annotations

import sys

from ..models import settings
from ..models.errors import OnehostError
from .main import run

try:
    run(settings.worker())
except OnehostError as error:
    print(f"error: {error.what}" + (f". try: {error.hint}" if error.hint else ""), file=sys.stderr)
    sys.exit(error.exit_code)
