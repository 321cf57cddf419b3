"""What is kept of a column's values, batch by batch, in bounded memory: counts, a sample, moments, their order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

VALUES_MAX, VALUES_BYTES_MAX = 10_000, 1 << 24
"""Distinct values of a column that are counted one by one."""
COMMON_MAX = 50
SAMPLE_MAX = 10_000
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
Rows = np.ndarray[Any, np.dtype[np.int64]]


class Counts:
    """Distinct values with their counts and the row each came first in. Past VALUES_MAX only the more common half is
    kept, whose counts are then lower bounds."""

    def __init__(self) -> None:
        self._table: pa.Table | None = None  # value, count, first
        self._more_than: int | None = None

    def add(self, found: pa.Table) -> None:
        """The distinct values of a batch: value, count, first (the row)."""
        if self._table is not None:
            found = pa.concat_tables([self._table, found]).group_by("value", use_threads=False).aggregate(
                [("count", "sum"), ("first", "min")]).rename_columns(["value", "count", "first"])
        while found.num_rows and (found.num_rows > VALUES_MAX or found.nbytes > VALUES_BYTES_MAX):
            if self._more_than is None:
                self._more_than = min(VALUES_MAX, found.num_rows - 1)
            kept = min(VALUES_MAX, found.num_rows) // 2
            found = found.sort_by([("count", "descending"), ("first", "ascending")]).slice(0, kept).combine_chunks()
            found = found.take(pa.array(np.arange(found.num_rows)))  # a slice would keep the whole alive
        self._table = found

    @property
    def exact(self) -> bool:
        return self._more_than is None

    @property
    def distinct(self) -> int:
        """The number of values, or what it is more than."""
        return (0 if self._table is None else int(self._table.num_rows)) if self._more_than is None else self._more_than

    @property
    def repeats(self) -> bool:
        return self._table is not None and bool(pc.any(pc.greater(self._table["count"], 1), min_count=0).as_py())

    @property
    def last_new(self) -> int:
        return int(pc.max(self._table["first"]).as_py()) if self._table is not None and self.exact else 0

    def common(self) -> list[tuple[pa.Scalar, int]]:
        """The most common values, most common first, then as they came."""
        if self._table is None:
            return []
        top = self._table.sort_by([("count", "descending"), ("first", "ascending")]).slice(0, COMMON_MAX)
        return list(zip(top["value"], top["count"].to_pylist(), strict=True))


class Sample:
    """SAMPLE_MAX values, drawn by a number that each row has from its place alone."""

    def __init__(self) -> None:
        self.values: pa.Array | None = None
        self._drawn = np.zeros(0, np.uint64)

    def add(self, values: pa.Array, at: Rows) -> None:
        drawn = _mixed(at)
        if len(self._drawn) >= SAMPLE_MAX:
            low = drawn < self._drawn.max()
            values, drawn = values.filter(pa.array(low)), drawn[low]
        if self.values is not None:
            values, drawn = pa.concat_arrays([self.values, values]), np.concatenate([self._drawn, drawn])
        if len(drawn) > SAMPLE_MAX:
            kept = np.sort(np.argpartition(drawn, SAMPLE_MAX)[:SAMPLE_MAX])
            values, drawn = values.take(pa.array(kept)), drawn[kept]
        self.values, self._drawn = values, drawn

    def quantiles(self) -> dict[float, pa.Scalar]:
        """Values of the sample, never in between."""
        if self.values is None:
            return {}
        ordered = self.values.take(pc.sort_indices(self.values))
        return {q: ordered[int(q * (len(ordered) - 1) + 0.5)] for q in QUANTILES}


def _mixed(at: Rows) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A random-looking number for each row, another for each (the mixing of splitmix64)."""
    x = (at.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Moments:
    """Mean and standard deviation."""

    def __init__(self) -> None:
        self._n, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, values: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        with np.errstate(all="ignore"):
            mean, n = float(values.mean()), len(values)
            squares = float(((values - mean) ** 2).sum())
            apart, both = mean - self._mean, self._n + n
            self._squares += squares + apart * apart * self._n * n / both
            self._mean += apart * n / both
            self._n = both

    @property
    def mean(self) -> float | None:
        return self._mean if self._n and math.isfinite(self._mean) else None

    @property
    def stdev(self) -> float | None:
        """With one degree of freedom less than values."""
        return math.sqrt(self._squares / (self._n - 1)) if self._n > 1 and math.isfinite(self._squares) else None


class Order:
    """Whether values go up."""

    def __init__(self) -> None:
        self._last: pa.Scalar | None = None
        self._values = 0
        self._kind = "strictly"

    def add(self, values: pa.Array) -> None:
        """Values of a batch, at least one, without nulls."""
        self._values += len(values)
        if self._kind:
            before = values.slice(0, len(values) - 1)
            after = values.slice(1)
            if self._last is not None:
                before, after = pa.concat_arrays([pa.array([self._last], values.type), before]), values
            if pc.any(pc.greater(before, after), min_count=0).as_py():
                self._kind = ""
            elif self._kind == "strictly" and pc.any(pc.equal(before, after), min_count=0).as_py():
                self._kind = "weakly"
        self._last = values[-1]

    @property
    def kind(self) -> str:
        """“strictly”, “weakly” or nothing."""
        return self._kind if self._values > 1 else ""
