"""Logs as JSON, one object a line on stderr: time, level, logger, message, and the fields given (flow, step, …).

Known secrets are in none of them."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from headrace.secrets import scrubbed

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {"time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
                "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(),
                **{k: v for k, v in vars(record).items() if k not in _STANDARD}}
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str, ensure_ascii=False)


def set_up(level: str = "info") -> None:
    """Called once by a command that runs for long; libraries below a warning stay silent."""
    handler = logging.StreamHandler(scrubbed(sys.stderr))
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("headrace").setLevel(level.upper())
