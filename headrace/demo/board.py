"""What has been seen so far in a run: plain data, which the acts write and the view and the report read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from headrace.demo.data import Day
from headrace.demo.told import Told

if TYPE_CHECKING:
    from headrace.control import Alert

ACTS = {"speed": "the year, as fast as it goes",
        "kill": "kill -9, twice, in mid-stream",
        "story": "the days pass, and a storm comes",
        "loop": "a model through the year: monitored, retrained, gated, switched"}
ALARMING = 0.35
"""The share of a day's flights that flows/arrivals.yaml raises an alert at: for the pictures only."""
RATE_OVER_S = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """How far one flow was at one moment: seconds since the start, records committed, records to go."""

    at_s: float
    act: str
    flow: str
    done: int
    lag: int


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker killed: when, and at which of how many records."""

    at_s: float
    flow: str
    done: int
    end: int
    back_s: float | None = None
    """From the kill to the next committed transaction, made by its successor."""


@dataclass(slots=True)
class Board:
    """One run. Times are seconds since `begun`, which is when the stack was up."""

    run: str
    flights: int
    acts: tuple[str, ...] = tuple(ACTS)
    begun: float = field(default_factory=time.monotonic)
    act: str = ""
    act_began: dict[str, float] = field(default_factory=dict)
    ended_s: float | None = None
    """When the last act was over; from then on the clock of the view stands still."""
    samples: list[Sample] = field(default_factory=list)
    latest: dict[str, Sample] = field(default_factory=dict)
    """Of each flow of the current act."""
    held: dict[str, Counter[str]] = field(default_factory=dict)
    """Reasons by flow, in the act where the whole year passes."""
    kills: list[Kill] = field(default_factory=list)
    days: list[Day] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    loop: Told = field(default_factory=Told)
    said: list[tuple[float, str]] = field(default_factory=list)
    records_per_second: int = 0

    def now_s(self) -> float:
        return time.monotonic() - self.begun if self.ended_s is None else self.ended_s

    def enter(self, act: str) -> None:
        self.act = act
        self.act_began[act] = self.now_s()
        self.latest = {}

    def say(self, text: str) -> None:
        self.said.append((self.now_s(), text))

    def sample(self, flow: str, done: int, end: int) -> Sample:
        made = Sample(self.now_s(), self.act, flow, done, max(0, end - done))
        self.samples.append(made)
        self.latest[flow] = made
        return made

    def series(self, act: str, flow: str) -> list[Sample]:
        return [s for s in self.samples if s.act == act and s.flow == flow]

    def rate(self, flow: str) -> float:
        """Records a second over the last second."""
        mine = self.series(self.act, flow)
        if len(mine) < 2:
            return 0.0
        last = mine[-1]
        first = next((s for s in reversed(mine) if last.at_s - s.at_s >= RATE_OVER_S), mine[0])
        return (last.done - first.done) / max(last.at_s - first.at_s, 1e-3)


def moving(samples: Sequence[Sample], before_s: float = 1.0) -> list[Sample]:
    """From a second before the first commit to the first look that found nothing left: what is worth drawing."""
    first = next((s.at_s for s in samples if s.done > samples[0].done), 0.0) - before_s
    last = next((s.at_s for s in samples if s.at_s > first and s.lag == 0 and s.done), float("inf"))
    return [s for s in samples if first <= s.at_s <= last]


def steady_rate(samples: list[Sample]) -> int:
    """Records a second of all flows of an act together, from the last moment at which none had committed anything to
    the moment at which all had committed everything. The time their processes took to start is left out."""
    if not samples:
        return 0
    flows = {s.flow for s in samples}
    end = {flow: next(s for s in samples if s.flow == flow and s.lag == 0).at_s
           for flow in flows if any(s.flow == flow and s.lag == 0 for s in samples)}
    moving = [s.at_s for s in samples if s.done > 0]
    if len(end) < len(flows) or not moving:
        return 0
    start = max((s.at_s for s in samples if s.at_s < min(moving)), default=min(moving))
    total = sum(max(s.done for s in samples if s.flow == flow) for flow in flows)
    return round(total / max(max(end.values()) - start, 1e-3))


def per_slice(samples: Sequence[Sample], slices: int) -> list[tuple[float, float]]:
    """Records a second in equal slices of the time the samples span: (middle of the slice in s, rate).

    What was committed between two looks counts evenly over the time between them.
    """
    if len(samples) < 2:
        return []
    begin_s, slice_s = samples[0].at_s, max(samples[-1].at_s - samples[0].at_s, 1e-3) / slices
    done = [0.0] * slices
    for before, after in pairwise(samples):
        many = after.done - before.done
        first, last = (before.at_s - begin_s) / slice_s, (after.at_s - begin_s) / slice_s
        for cell in range(int(first), min(int(last) + 1, slices)) if many else ():
            done[cell] += many * (min(cell + 1, last) - max(cell, first)) / max(last - first, 1e-9)
    return [(begin_s + (cell + 0.5) * slice_s, n / slice_s) for cell, n in enumerate(done)]
