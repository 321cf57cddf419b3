"""Tumbling windows over offsets or event time, and the rule that makes few events of them: pure, vectorised.

A window is a stretch of an integer axis, offsets or milliseconds: window k is [shift + k·size, shift + (k+1)·size).
It closes when the watermark, the highest position seen less `late`, reaches its end; nothing here reads a clock.
Whatever the batches are in which the same rows come, the same windows close with the same counts, and the same fire:
every decision stands on positions alone. What is kept between batches is a `Memory`, a handful of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

OPEN_MAX = 8
"""Windows of one partition that can be open at once; `Axis` refuses a lateness that would need more."""


class Window(NamedTuple):
    """Counts of the rows of windows k_first … k (one window, unless counts were carried over), with their offsets."""

    k: int
    rows: int
    matched: int
    offset_first: int
    offset_last: int
    k_first: int

    def plus(self, later: Window) -> Window:
        """This one and a later one, as one; a side without rows has no say in the offsets."""
        if not self.rows or not later.rows:
            return (self if self.rows else later)._replace(k=later.k)
        return Window(later.k, self.rows + later.rows, self.matched + later.matched,
                      min(self.offset_first, later.offset_first), max(self.offset_last, later.offset_last),
                      self.k_first)


@dataclass(frozen=True, slots=True)
class Axis:
    """How positions are cut into windows. `late` is how far behind the highest position a row may come and count."""

    size: int
    late: int = 0
    shift: int = 0

    def __post_init__(self) -> None:
        assert self.size > 0
        assert 0 <= self.late <= (OPEN_MAX - 1) * self.size, "more windows would be open than the state may hold"

    def start(self, k: int) -> int:
        return self.shift + k * self.size

    def end(self, k: int) -> int:
        return self.shift + (k + 1) * self.size

    def open_from(self, highest: int) -> int:
        """The first window that is still open once `highest` was seen."""
        return (highest - self.late - self.shift) // self.size


class Memory(NamedTuple):
    """What one partition keeps between batches. `silent_to` is the last window that may raise nothing."""

    highest: int
    silent_to: int
    hot: bool = False
    """An event was raised, and no judged window has been back within bounds since."""
    open: tuple[Window, ...] = ()
    carried: Window | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """When a closed window raises an event."""

    measure: str
    """share | count | volume"""
    threshold: float
    below: bool = False
    """Raise when the measure is below the threshold; else when it is at or above it."""
    rows_min: int = 1
    cool_down: int = 0
    """After an event, this many windows raise nothing."""
    repeat: bool = False
    """Raise again (after the cool-down) while the measure stays beyond the threshold."""
    carry: bool = False
    """Counts of windows that raise nothing count on in the next one."""

    def observed(self, window: Window) -> float | None:
        """The measure, or None where the window says nothing: a share of fewer than `rows_min` rows."""
        if self.measure == "share":
            return window.matched / window.rows if window.rows >= max(self.rows_min, 1) else None
        return float(window.matched if self.measure == "count" else window.rows)


class Fired(NamedTuple):
    """One event: its window, what was measured, and the row (an index into the batch) that closed it."""

    window: Window
    observed: float
    closed_by: int


def advance(axis: Axis, rule: Rule, memory: Memory | None, positions: Ints, matched: Bools, offsets: Ints
            ) -> tuple[Memory, list[Fired], int]:
    """Take one partition's next rows, in order of their offsets: the new memory, the events, how many came too late.

    `positions`, `matched` and `offsets` are as long as each other, and not empty. O(rows) in numpy, O(windows) in
    Python; a gap of any number of empty windows costs the same as one.
    """
    if memory is None:
        first = int(positions[0])
        # A measure that fell below its threshold is not judged on the window in which we began to look.
        begun = (first - axis.shift) // axis.size if rule.below else axis.open_from(first) - 1
        memory = Memory(highest=first, silent_to=begun)
    judged_to = axis.open_from(memory.highest)
    highest = np.maximum(np.maximum.accumulate(positions), memory.highest)
    k = (positions - axis.shift) // axis.size
    on_time = k >= (highest - axis.late - axis.shift) // axis.size
    windows = {window.k: window for window in memory.open}
    for found in _group(k[on_time], matched[on_time], offsets[on_time]):
        windows[found.k] = windows[found.k].plus(found) if found.k in windows else found
    open_from = axis.open_from(int(highest[-1]))
    in_order = [windows[at] for at in sorted(windows)]
    memory = memory._replace(highest=int(highest[-1]), open=tuple(w for w in in_order if w.k >= open_from))
    fired: list[Fired] = []
    for run in _runs([w for w in in_order if w.k < open_from], judged_to, open_from):
        memory, raised = _judge(rule, memory, run)
        if raised is None:
            continue
        row = int(np.searchsorted(highest, axis.end(raised.k) + axis.late))
        if not raised.rows:  # nothing was in it, so its only place is where its emptiness showed
            raised = raised._replace(offset_first=int(offsets[row]), offset_last=int(offsets[row]))
        fired.append(Fired(raised, rule.observed(raised) or 0.0, row))
    return memory, fired, len(k) - int(np.count_nonzero(on_time))


def _group(k: Ints, matched: Bools, offsets: Ints) -> list[Window]:
    """The rows of each window, counted. `offsets` rise."""
    found, which = np.unique(k, return_inverse=True)
    rows = np.bincount(which, minlength=len(found))
    hits = np.bincount(which[matched], minlength=len(found))
    first, last = np.empty(len(found), np.int64), np.empty(len(found), np.int64)
    first[which[::-1]], last[which] = offsets[::-1], offsets  # of repeated indices the last assignment stands
    return list(map(Window._make, zip(found.tolist(), rows.tolist(), hits.tolist(), first.tolist(), last.tolist(),
                                      found.tolist(), strict=True)))


def _runs(closed: Sequence[Window], start: int, end: int) -> Iterator[Window]:
    """Windows start … end - 1 in order: those with rows, and between them every run of empty ones as one."""
    at = start
    for window in closed:
        if at < window.k:
            yield Window(window.k - 1, 0, 0, 0, 0, at)
        yield window
        at = window.k + 1
    if at < end:
        yield Window(end - 1, 0, 0, 0, 0, at)


def _judge(rule: Rule, memory: Memory, run: Window) -> tuple[Memory, Window | None]:
    """One closed window, or a run of empty ones, which raises one event at most: the window that raised it."""
    window = memory.carried.plus(run) if memory.carried else run
    observed = rule.observed(window)
    if observed is None:
        return memory, None
    beyond = observed < rule.threshold if rule.below else observed >= rule.threshold
    at = max(run.k_first, memory.silent_to + 1)
    if beyond and at <= run.k and (not memory.hot or (rule.repeat and run.rows)):
        first = window.k_first if window.rows else at
        return (memory._replace(silent_to=at + rule.cool_down, hot=not rule.carry, carried=None),
                window._replace(k=at, k_first=first))
    carried = window if rule.carry and window.rows else None
    return memory._replace(hot=memory.hot and beyond, carried=carried), None


def to_state(memory: Memory) -> dict[str, Any]:
    """The memory as JSON values, in a few hundred characters: it rides in the metadata of a committed offset."""
    state: dict[str, Any] = {"h": memory.highest, "s": memory.silent_to, "o": [list(w[:5]) for w in memory.open]}
    if memory.hot:
        state["x"] = 1
    if memory.carried:
        state["c"] = list(memory.carried)
    return state


def from_state(state: Mapping[str, Any]) -> Memory | None:
    """What `to_state` wrote; None for a partition not seen before."""
    if "h" not in state:
        return None
    carried = Window._make(state["c"]) if "c" in state else None
    return Memory(state["h"], state["s"], "x" in state, tuple(Window._make([*w, w[0]]) for w in state["o"]), carried)
