"""GET and PUT /admin/loggers: the levels of Python's loggers, under Kafka Connect's names for them."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from headrace.connect.plugins import Refused

LEVELS = {"OFF": logging.CRITICAL + 10, "FATAL": logging.CRITICAL, "ERROR": logging.ERROR, "WARN": logging.WARNING,
          "INFO": logging.INFO, "DEBUG": logging.DEBUG, "TRACE": logging.DEBUG - 5, "ALL": 1}
ROOT = "root"
NAME_MAX = 200


class Loggers:
    """Levels, and when this API changed them last."""

    def __init__(self) -> None:
        self._changed_ms: dict[str, int] = {}
        self._lock = threading.Lock()

    def all(self) -> dict[str, dict[str, Any]]:
        """Every logger there is, with the level that counts for it."""
        return {name: self._told(name, logger.getEffectiveLevel()) for name, logger in sorted(_loggers().items())}

    def one(self, name: str) -> dict[str, Any]:
        """Raises Refused."""
        logger = _loggers().get(name)
        if logger is None:
            raise Refused(404, f"Logger {name} not found.")
        return self._told(name, logger.getEffectiveLevel())

    def set(self, name: str, level: str) -> list[str]:
        """Set a logger and all below it; the names of those that this changed. Raises Refused."""
        number = LEVELS.get(level.upper())
        if number is None:
            raise Refused(404, f"invalid log level '{level}'.")
        if len(name) > NAME_MAX:
            raise Refused(404, f"Logger {name[:NAME_MAX]}… not found.")
        with self._lock:
            logging.getLogger(None if name == ROOT else name)  # from now on there is one
            below = {one: logger for one, logger in _loggers().items()
                     if name in (ROOT, one) or one.startswith(f"{name}.")}
            changed = sorted(one for one, logger in below.items() if logger.getEffectiveLevel() != number
                             or (one == name and one not in self._changed_ms))
            for one in changed:
                below[one].setLevel(number)
                self._changed_ms[one] = int(time.time() * 1e3)
        return changed

    def _told(self, name: str, number: int) -> dict[str, Any]:
        at_most = [text for text, least in LEVELS.items() if number >= least]
        return {"level": at_most[0] if at_most else "ALL", "last_modified": self._changed_ms.get(name)}


def _loggers() -> dict[str, logging.Logger]:
    """Those that are there: of headrace and what it uses; not those that only keep libraries quiet."""
    there = {name: one for name, one in list(logging.root.manager.loggerDict.items())
             if isinstance(one, logging.Logger) and not name.startswith("headrace.librdkafka")}
    return {ROOT: logging.root, **there}
