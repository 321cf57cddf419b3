"""When a FAILED task is started again by itself: the first time at once, then after n² + n minutes, at most 60.

n counts the restarts since the task last ran well: longer than its own delay would be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

DELAY_MAX_S = 3600.0


def delay_s(count: int) -> float:
    """Seconds between a failure and its restart, after `count` restarts in a row: 0, 2, 6, 12, … 60 minutes."""
    return min((count * count + count) * 60.0, DELAY_MAX_S)


@dataclass(frozen=True, slots=True)
class Restarts:
    """A task's automatic restarts. Times are seconds since the epoch; `at` is when the next one is due."""

    count: int = 0
    last: float | None = None
    at: float | None = None

    def failed(self, now: float) -> Restarts:
        """It has just failed."""
        count = 0 if self.last is not None and now - self.last > max(delay_s(self.count), 60.0) else self.count
        return Restarts(count, self.last, now + delay_s(count))

    def due(self, now: float) -> bool:
        return self.at is not None and self.at <= now

    def restarted(self, now: float) -> Restarts:
        """It has just been started again, by itself."""
        return Restarts(self.count + 1, now, None)

    def told(self) -> dict[str, Any]:
        """For the status: how often, when last, when next."""
        return {"count": self.count, "last_at": _iso(self.last), "next_at": _iso(self.at)}

    @classmethod
    def kept(cls, told: Mapping[str, Any] | None) -> Restarts:
        """As it was told, by a worker before this one."""
        if not told:
            return cls()
        return cls(int(told["count"]), _seconds(told["last_at"]), _seconds(told["next_at"]))


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _seconds(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()
