"""Which rows are to blame when a metric raises on a batch: it is halved until the rows that raise stand alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

RUNS_MAX = 40_000
"""Runs spent on finding the rows of a batch that raise: enough for 20,000 rows that all do. Rows that are then not told
apart yet count as bad."""
Index = np.ndarray[Any, np.dtype[np.int64]]
Part = Callable[[int, int], "Index | str"]
"""Start and size of a part of the batch → the rows of the part that break the expectation, or what was raised."""


def halve(size: int, raised: str, part: Part, runs_max: int = RUNS_MAX) -> tuple[Index, dict[int, str]]:
    """The rows that break an expectation which raised on the batch, in order, and what was raised on those that could
    not be judged; the latter are among the former. Large parts first, so that what is not told apart is little."""
    bad: list[int] = []
    errors: dict[int, str] = {}
    todo, runs = deque([(0, size, raised)]), 0
    while todo:
        start, n, told = todo.popleft()
        if n <= 1 or runs >= runs_max:
            errors |= dict.fromkeys(range(start, start + n), told)
            continue
        for low, some in ((start, n // 2), (start + n // 2, n - n // 2)):
            runs += 1
            found = part(low, some)
            if isinstance(found, str):
                todo.append((low, some, found))
            else:
                bad += (found + low).tolist()
    return np.array(sorted({*bad, *errors}), dtype=np.int64), errors
