"""Keeping to a rate: batches small enough to be smooth, and the wait after each."""

from __future__ import annotations

import threading
import time

BATCHES_PER_S = 20
BEHIND_S_MAX = 1.0
"""So much of lost time is caught up; a longer stand-still does not turn into a burst."""


class Pace:
    """`rate` records a second, None for no bound; `records_max` of them at a time."""

    def __init__(self, rate: float | None, records_max: int) -> None:
        self.rate = rate
        self.records_max = records_max if rate is None else max(1, min(records_max, round(rate / BATCHES_PER_S)))
        self._due = time.monotonic()

    def wait(self, records: int, stop: threading.Event) -> None:
        """After `records` records: until the next are due, or `stop`."""
        if self.rate is None:
            return
        now = time.monotonic()
        self._due = max(self._due, now - BEHIND_S_MAX) + records / self.rate
        if self._due > now:
            stop.wait(self._due - now)
