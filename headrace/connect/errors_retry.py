"""Trying again what failed by an outage: after 300 ms, then twice as long each time, as Kafka Connect does."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from headrace.errors import Retriable

T = TypeVar("T")
FIRST_S = 0.3


class Abandoned(Exception):
    """Whoever asked does not want it any more: the task stops, or the partitions are another's now."""


def delays(delay_max_s: float) -> Iterator[float]:
    """Seconds before each further try. Past the bound they are any part of it, so that a crowd does not knock at
    once."""
    delay = FIRST_S
    while delay <= delay_max_s:
        yield delay
        delay *= 2
    while True:
        yield random.uniform(0, delay_max_s)


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long: errors.retry.timeout (None: for ever) and errors.retry.delay.max.ms, in seconds."""

    timeout_s: float | None
    delay_max_s: float
    wait: Callable[[float], None]
    """Waits so many seconds, or less."""
    abandoned: Callable[[], bool]
    told: Callable[[Retriable, int, float], None]
    """Hears of (why, the how many-th try failed, seconds until the next)."""

    def insist(self, do: Callable[[], T]) -> T:
        """What `do` gives, once it does not raise Retriable. A wait that the other side asks for is kept.

        Raises the last Retriable when the time is over, after a try at its very end, and Abandoned.
        """
        end = None if self.timeout_s is None else time.monotonic() + self.timeout_s
        for attempt, delay in enumerate(delays(self.delay_max_s), 1):
            try:
                return do()
            except Retriable as error:
                now = time.monotonic()
                if end is not None and now >= end:
                    raise
                seconds = max(delay, error.retry_after_s)
                seconds = seconds if end is None else min(seconds, end - now)
                self.told(error, attempt, seconds)
                self._pass(seconds)
        raise AssertionError("delays never end")

    def _pass(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.abandoned():
            left = end - time.monotonic()
            if left <= 0:
                return
            self.wait(left)
        raise Abandoned
