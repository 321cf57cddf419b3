"""A row of the suite's table: a fault, how often, and on how many records."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.faults.checker import Outcome
from tests.faults.world import World

SESSION_S, TRANSACTION_S = 10.0, 15.0
"""The time-outs of a worker's consumer and producer."""
SAME_ID_S = SESSION_S + 5
OTHER_ID_S = SESSION_S + TRANSACTION_S + 10
BROKER_S = 30.0 + 5
"""How long recovery may take: by the same transactional id, by another, and after a broker that was away for 5 s."""


@dataclass(frozen=True, slots=True)
class Size:
    """`times` is how often each variant of the fault is done; `minutes` is of rows that go by the clock."""

    records: int
    times: int = 1
    minutes: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """`run(world, rng, size)` does all of it; everything random comes from `rng`. `breaks` says that it needs a stack
    of the suite's own. `recovers_s` bounds the time of recovery, where the row promises one."""

    number: int
    name: str
    run: Callable[[World, random.Random, Size], Outcome]
    full: Size
    short: Size
    breaks: bool = False
    recovers_s: float | None = None

    def sized(self, *, short: bool, count: int | None = None, minutes: float | None = None) -> Size:
        size = self.short if short else self.full
        return replace(size, times=count or size.times, minutes=minutes or size.minutes)

    def done(self, world: World, seed: int, size: Size) -> Outcome:
        """The row with a seed; what goes wrong on the way is a breach."""
        try:
            out = self.run(world, random.Random(f"{seed}.{self.number}"), size)
        except Exception as error:
            out = Outcome(breaches=[f"{type(error).__name__}: {error}"])
        if self.recovers_s is not None:
            slow = [each for each in out.recoveries_s if each > self.recovers_s]
            out.notes["slower than promised"] = slow
        return out
