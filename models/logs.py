"""Log lines of the long-running processes: one JSON object a line on standard error, which supervisor keeps."""

from __future__ import annotations

import json
import logging
import sys
import time

#: Attributes every record has; whatever else is on one was given by the caller.
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Constant message plus fields; control characters are escaped by JSON, so a line cannot be forged."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        said = {"at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
                "level": record.levelname.lower(), "log": record.name, "message": record.getMessage()}  # fmt: skip
        said |= {key: value for key, value in vars(record).items() if key not in _PLAIN}
        if record.exc_info:
            said["error"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def set_up(level: int = logging.INFO) -> None:
    """Called once, by `main`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("pika", "amqp", "kombu", "alembic"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
