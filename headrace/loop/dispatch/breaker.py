"""A circuit breaker: what keeps failing is left alone for a while, then tried once. Plain state, pure functions.

    closed ──failures_max failures in a row──► open ──open_s──► half-open ──success──► closed
                                                ▲                  └─failure─► open, twice as long
                                                └──────────────────────┘

Times are passed in, milliseconds since 1970. A probe that never tells (we crashed) is followed by another after as long
as the breaker was open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydantic import Field

from headrace.config import Config

DOUBLINGS_MAX = 30


class BreakerConfig(Config):
    """When to leave the other side alone, and how long."""

    failures_max: int = Field(5, ge=1, description="Failures in a row that open the breaker.")
    open_s: float = Field(30, gt=0, description="Seconds it stays open the first time; doubles with each probe that "
                          "fails.")
    open_s_max: float = Field(900, gt=0, description="Seconds it stays open at most.")


@dataclass(frozen=True, slots=True)
class Breaker:
    """`failures` in a row; `trips`: how often in a row it opened; `until_ms`: open until then, None while closed;
    `probe_ms`: when the one call of the half-open state was let through."""

    failures: int = 0
    trips: int = 0
    until_ms: int | None = None
    probe_ms: int | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, written: Mapping[str, Any] | None) -> Breaker:
        return cls(**written) if written else cls()


def _open_ms(breaker: Breaker, config: BreakerConfig) -> int:
    doubled = config.open_s * 2 ** min(max(breaker.trips - 1, 0), DOUBLINGS_MAX)
    return int(min(doubled, config.open_s_max) * 1000)


def state(breaker: Breaker, now_ms: int) -> Literal["closed", "open", "half-open"]:
    if breaker.until_ms is None:
        return "closed"
    return "open" if now_ms < breaker.until_ms else "half-open"


def permit(breaker: Breaker, config: BreakerConfig, now_ms: int) -> tuple[Breaker, bool]:
    """Whether a call may be made now: always while closed, never while open, one at a time while half-open."""
    where = state(breaker, now_ms)
    if where != "half-open":
        return breaker, where == "closed"
    if breaker.probe_ms is not None and now_ms - breaker.probe_ms < _open_ms(breaker, config):
        return breaker, False
    return replace(breaker, probe_ms=now_ms), True


def succeeded() -> Breaker:
    """The other side answered: closed, with nothing held against it."""
    return Breaker()


def failed(breaker: Breaker, config: BreakerConfig, now_ms: int, *, reason: str = "",
           retry_after_s: float = 0.0) -> Breaker:
    """The other side did not answer, or said that it cannot. `retry_after_s` is how long it asked us to stay away."""
    breaker = replace(breaker, failures=breaker.failures + 1, reason=reason)
    probing = breaker.until_ms is not None and now_ms >= breaker.until_ms
    if breaker.until_ms is None and breaker.failures < config.failures_max:
        return breaker
    if breaker.until_ms is not None and not probing:
        return breaker  # a call that had left before it opened: counted, but it opens nothing anew
    breaker = replace(breaker, trips=breaker.trips + 1, probe_ms=None)
    wait_ms = max(_open_ms(breaker, config), int(retry_after_s * 1000))
    return replace(breaker, until_ms=now_ms + wait_ms)
