"""Order statistics of many values in little room: exact up to `ROOM` values, a sketch beyond.

The sketch is that of Munro and Paterson, as KLL has it, with one difference: where KLL tosses a coin, here the choice
alternates. Level i holds values that stand for 2^i each. A level that is full is sorted, and of each two neighbours
one goes up: the first ones this time, the second ones next time. So nothing depends on chance (a state is the same
wherever it is computed; DataSketches' KLL seeds itself), and as each time costs a rank at most 2^i, it is off by at
most levels / ROOM of the count: 0.2 % for a million values, 0.5 % for a thousand millions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.contracts.aggregates.columns import Numbers
from headrace.contracts.aggregates.fold import pack, unpack

ROOM = 4096
"""Values a level has room for."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """`levels[i]` are values that stand for 2^i each; `turns[i]` how often level i went up."""

    floats: bool
    """Whether pandas holds the whole numbers as 64-bit floats."""
    levels: tuple[Numbers, ...]
    turns: tuple[int, ...]

    @property
    def count(self) -> int:
        return sum(len(level) << at for at, level in enumerate(self.levels))

    @property
    def lossy(self) -> bool:
        return len(self.levels) > 1


def ranks(values: Numbers, floats: bool) -> Ranks:
    return _settled(floats, [values], [0])


def join(a: Ranks, b: Ranks) -> Ranks:
    """Both; the same for the same states in the same order."""
    if a.levels[0].dtype != b.levels[0].dtype:  # whole numbers that came as floats in some batches
        a, b = _floats(a), _floats(b)
    long, short = (a, b) if len(a.levels) >= len(b.levels) else (b, a)
    levels = [np.concatenate([level, short.levels[at]]) if at < len(short.levels) else level
              for at, level in enumerate(long.levels)]
    turns = [turn + (short.turns[at] if at < len(short.turns) else 0) for at, turn in enumerate(long.turns)]
    return _settled(a.floats or b.floats, levels, turns)


def _floats(state: Ranks) -> Ranks:
    return Ranks(state.floats, tuple(level.astype(np.float64) for level in state.levels), state.turns)


def _settled(floats: bool, levels: list[Numbers], turns: list[int]) -> Ranks:
    """With no level fuller than it may be. The odd one out of a level stays behind."""
    at = 0
    while at < len(levels):
        if len(levels[at]) > ROOM:
            level = np.sort(levels[at])
            even = len(level) & ~1
            up, levels[at] = level[turns[at] % 2:even:2], level[even:]
            turns[at] += 1
            if at + 1 == len(levels):
                levels.append(level[:0])
                turns.append(0)
            levels[at + 1] = np.concatenate([levels[at + 1], up])
        at += 1
    return Ranks(floats, tuple(levels), tuple(turns))


def at_ranks(state: Ranks, wanted: Numbers) -> Numbers:
    """The values at some ranks, counted from 0, as if every value stood there as often as it counts."""
    values = np.concatenate(state.levels)
    order = np.argsort(values, kind="stable")
    weights = np.concatenate([np.full(len(level), 1 << at) for at, level in enumerate(state.levels)])
    return values[order][np.searchsorted(np.cumsum(weights[order]), wanted, side="right")]


def dump(state: Ranks) -> bytes:
    lead = state.levels[0].dtype.str
    return pack([state.floats, lead, list(state.turns)], [level.tobytes() for level in state.levels])


def load(data: bytes) -> Ranks:
    (floats, kind, turns), blobs = unpack(data)
    levels: Any = tuple(np.frombuffer(blob, dtype=np.dtype(kind)) for blob in blobs)
    return Ranks(floats, levels, tuple(turns))
