"""What holds between the values of a column, and between columns, over many batches: unique, ordered, equal, a key.

All is proved on every row, or not said. To be worth saying it must also be no accident, so that each finding comes
with what chance alone would have given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
UNIQUE_ROWS_MAX = 2_000_000
"""Values of a column that are compared with each other (8 bytes each); of more, it is not known whether they repeat."""
KEY_ROWS_MAX, KEY_COLUMNS_MAX = 500_000, 12
"""Rows, and columns without nulls (the first ones), among which compound keys are looked for; 8 bytes each."""
KEY_SIZE_MAX, KEYS_MAX = 3, 8
CHANCE_MIN = 3.0
"""Pairs of rows that would be alike if the columns had nothing to do with each other: with fewer, a key is no news."""
PAIR_COLUMNS_MAX = 30
"""Columns of one type (the first ones) of which each is compared with each."""


def hashes(array: pa.Array) -> Hashes:
    """64 bits for each value, the same for equal values; two values with different bits are different."""
    import polars as pl

    series = pl.from_arrow(_plain(array))  # Polars does not know every time zone
    assert isinstance(series, pl.Series)
    return series.hash().to_numpy()


def _plain(array: pa.Array) -> pa.Array:
    """Times as the whole numbers that they are."""
    if not pa.types.is_temporal(array.type):
        return array
    return array.view(pa.int32() if array.type.bit_width == 32 else pa.int64())


class Unique:
    """Whether values repeat. Hashes can only make two values out to be alike that are not, so True is proved."""

    def __init__(self) -> None:
        self._parts: list[Hashes] | None = []
        self._rows = self._looked = 0
        self._repeats = False

    def repeats(self) -> None:
        """To be called by who knows already."""
        self._repeats, self._parts = True, None

    def add(self, array: pa.Array) -> None:
        """Values of a batch, without nulls."""
        if self._parts is None:
            return
        self._parts.append(hashes(array))
        self._rows += len(array)
        if self._rows >= 2 * self._looked:
            self._look()
        if self._rows > UNIQUE_ROWS_MAX:
            self._parts = None

    def _look(self) -> None:
        if self._parts:
            self._looked = self._rows
            if _repeats(np.concatenate(self._parts)):
                self.repeats()

    def verdict(self) -> bool | None:
        """None: there are too many rows to know."""
        self._look()
        return False if self._repeats else None if self._parts is None else True


def _repeats(values: Hashes) -> bool:
    ordered = np.sort(values)
    return bool((ordered[1:] == ordered[:-1]).any())


@dataclass(frozen=True, slots=True)
class Ordered:
    """`low` is never above `high`, in `rows` rows where both are there."""

    low: str
    high: str
    rows: int
    chance: float
    """Share of rows in which it would be, if the two columns had nothing to do with each other."""


@dataclass(frozen=True, slots=True)
class Same:
    """Two columns with the same value in all `rows` rows where both have one."""

    a: str
    b: str
    rows: int
    nulls_alike: bool
    """Whether the one is null only where the other is, too."""


@dataclass(frozen=True, slots=True)
class Key:
    """Columns without nulls whose values together are unique, while those of fewer of them are not."""

    columns: tuple[str, ...]
    chance: float
    """Pairs of rows that would be alike if the columns had nothing to do with each other."""


class Pairs:
    """Columns of the same type, each compared with each, until they differ."""

    def __init__(self, groups: Sequence[tuple[Sequence[str], bool]]) -> None:
        """Each group: names of columns of one type, and whether its values have an order worth asking about."""
        pairs = [(pair, order) for names, order in groups for pair in combinations(names[:PAIR_COLUMNS_MAX], 2)]
        self._equal = {pair: (0, True) for pair, _ in pairs}  # rows, whether nulls are alike
        self._below = {p: 0 for (a, b), order in pairs if order for p in ((a, b), (b, a))}

    def add(self, columns: Mapping[str, pa.Array]) -> None:
        """Arrays of a batch by name, NaN being null already."""
        for a, b in list(self._equal):
            x, y = columns[a], columns[b]
            same, (rows, alike) = pc.equal(x, y), self._equal[a, b]
            if same.false_count:
                del self._equal[a, b]
            else:
                alike = alike and x.null_count == same.null_count == y.null_count
                self._equal[a, b] = rows + same.true_count, alike
        for a, b in list(self._below):
            fits = pc.less_equal(columns[a], columns[b])
            if fits.false_count:
                del self._below[a, b]
            else:
                self._below[a, b] += len(fits) - fits.null_count

    def equal(self) -> tuple[Same, ...]:
        return tuple(Same(a, b, rows, alike) for (a, b), (rows, alike) in self._equal.items() if rows)

    def ordered(self, samples: Mapping[str, pa.Array]) -> tuple[Ordered, ...]:
        """Samples of the columns' values, without nulls. What follows by way of a third column is left out."""
        equal = {frozenset(pair) for pair, (rows, _) in self._equal.items() if rows}
        found = {p for p, rows in self._below.items() if rows and frozenset(p) not in equal}
        direct = [(a, b) for a, b in self._below if (a, b) in found
                  and not any((a, c) in found and (c, b) in found for c in samples)]
        return tuple(Ordered(a, b, self._below[a, b], _above(samples[a], samples[b])) for a, b in direct)


def _above(low: pa.Array, high: pa.Array) -> float:
    """The chance that a value of the one is above a value of the other."""
    if not len(low) or not len(high):
        return 0.0
    x, y = (np.sort(pc.cast(_plain(v), pa.float64(), safe=False).to_numpy(zero_copy_only=False)) for v in (low, high))
    return float(np.searchsorted(y, x, side="left").sum() / (len(x) * len(y)))


class Keys:
    """Looks for compound keys, at the end."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._parts: dict[str, list[Hashes]] = {c: [] for c in columns}
        self._rows = 0

    def add(self, columns: Mapping[str, pa.Array], rows: int) -> None:
        """Arrays of a batch by name. A column with a null is no part of a key."""
        self._rows += rows
        self._parts = {} if self._rows > KEY_ROWS_MAX else {
            c: parts for c, parts in self._parts.items() if not columns[c].null_count}
        for column in list(self._parts)[:KEY_COLUMNS_MAX]:
            self._parts[column].append(hashes(columns[column]))
        for column in list(self._parts)[KEY_COLUMNS_MAX:]:
            del self._parts[column]

    def found(self, unique: set[str]) -> tuple[Key, ...]:
        """The keys among columns that are not unique by themselves, those of fewest columns and least chance to be an
        accident first."""
        parts = {c: np.concatenate(p) for c, p in self._parts.items() if c not in unique and p}
        alike = {c: _alike(values) for c, values in parts.items()}
        parts = {c: values for c, values in parts.items() if alike[c] < 1}
        keys: list[Key] = []
        for size in range(2, KEY_SIZE_MAX + 1):
            for columns in combinations(parts, size):
                chance = float(np.prod([alike[c] for c in columns])) * self._rows * (self._rows - 1) / 2
                smaller = any(set(key.columns) < set(columns) for key in keys)
                if chance >= CHANCE_MIN and not smaller and _unique([parts[c] for c in columns]):
                    keys.append(Key(columns, chance))
        return tuple(sorted(keys, key=lambda k: (len(k.columns), -k.chance, k.columns))[:KEYS_MAX])


def _alike(values: Hashes) -> float:
    """The chance that two rows have the same value."""
    ordered, n = np.sort(values), len(values)
    edges = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
    counts = np.diff(edges).astype(np.float64)
    return float((counts * (counts - 1)).sum() / (n * (n - 1))) if n > 1 else 1.0


def _unique(columns: list[Hashes]) -> bool:
    """Whether the columns together are unique; asked of the first rows first, where most are found not to be."""
    for rows in (4096, 65536, len(columns[0])):
        joined = columns[0][:rows].copy()
        for column in columns[1:]:
            joined = joined * np.uint64(0x9E3779B97F4A7C15) + column[:rows]
        if _repeats(joined):
            return False
    return True
