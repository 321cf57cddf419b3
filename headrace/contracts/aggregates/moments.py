"""Mean, standard deviation and sum.

Each is computed by the numpy calls pandas makes, on the array pandas would have, so that the last bit is the same.
States add up: counts and sums, and for the deviation the sum of squares about the mean, joined by Chan's formula.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.aggregates.aggregate import Aggregate
from headrace.contracts.aggregates.bounds import Bounds, bounds, number, quoted, reader, shown, verdict
from headrace.contracts.aggregates.columns import Column, column, numbers
from headrace.contracts.aggregates.fold import Fold
from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict

Deviation = tuple[int, float, float]
"""Count, sum, sum of squares about the mean."""
Sum = tuple[bool, int, float]
"""Whether pandas adds up floats, the sum as a whole number of 64 bits, the sum as a float."""


def mean(e: Expectation, schema: pa.Schema) -> Aggregate | str:
    made = _prepared(e, schema, "mean")
    if isinstance(made, str):
        return made
    found, held = made
    own = _float(found)

    def measure(rows: pa.RecordBatch) -> tuple[int, float]:
        values, count = numbers(rows.column(found.name))
        with np.errstate(all="ignore"):
            return count, float(values.sum(dtype=values.dtype if values.dtype.kind == "f" else np.float64))

    def say(state: tuple[int, float]) -> Verdict:
        count, total = state
        with np.errstate(all="ignore"):
            return verdict(held, own(total) / own(count) if count else None, found)

    fold = Fold(measure, lambda a, b: (a[0] + b[0], a[1] + b[1]), say)
    return Aggregate(fold.judge, f"the mean of {quoted(found.name)} is {{}}, not {shown(e, held)}", fold)


def stdev(e: Expectation, schema: pa.Schema) -> Aggregate | str:
    made = _prepared(e, schema, "standard deviation")
    if isinstance(made, str):
        return made
    found, held = made
    own = _float(found)

    def say(state: Deviation) -> Verdict:
        count, total, squares = state
        if not math.isfinite(total):
            squares += abs(total)  # where the mean is no number, the spread is none either, or infinite
        with np.errstate(all="ignore"):
            value = np.sqrt(own(np.float64(squares) / (own(count) - own(1)))) if count > 1 else None
        return verdict(held, value, found)

    fold = Fold(lambda rows: _deviation(rows.column(found.name), own), _chan, say)
    return Aggregate(fold.judge, f"the standard deviation of {quoted(found.name)} is {{}}, not {shown(e, held)}", fold)


def sum_(e: Expectation, schema: pa.Schema) -> Aggregate | str:
    made = _prepared(e, schema, "sum")
    if isinstance(made, str):
        return made
    found, held = made
    whole = np.uint64 if pa.types.is_unsigned_integer(found.type) else np.int64

    def measure(rows: pa.RecordBatch) -> Sum:
        values, _ = numbers(rows.column(found.name))
        with np.errstate(all="ignore"):
            if values.dtype.kind == "f":
                return True, 0, float(values.sum(dtype=values.dtype))
            return False, int(values.sum()), float(values.astype(np.float64).sum())

    def say(state: Sum) -> Verdict:
        floats, exact, total = state
        if found.kind == "bool":
            return verdict(held, np.int64(total), found)
        with np.errstate(all="ignore"):
            return verdict(held, _float(found)(total) if floats or found.kind == "float" else whole(exact), found)

    fold = Fold(measure, lambda a, b: (a[0] or b[0], _wrapped(a[1] + b[1], found), a[2] + b[2]), say)
    return Aggregate(fold.judge, f"the sum of {quoted(found.name)} is {{}}, not {shown(e, held)}", fold)


def _deviation(array: pa.Array, own: Any) -> Deviation:
    values, count = numbers(array)
    if not count:
        return 0, 0.0, 0.0
    with np.errstate(all="ignore"):
        if values.dtype.kind != "f":
            values = values.astype(np.float64)
        total = values.sum(dtype=np.float64)
        squares = (total / own(count) - values) ** 2
        if count < len(array):
            squares[pc.is_null(array, nan_is_null=True).to_numpy(zero_copy_only=False)] = 0
        return count, float(total), float(squares.sum(dtype=np.float64))


def _chan(a: Deviation, b: Deviation) -> Deviation:
    if not a[0] or not b[0]:
        return a if a[0] else b
    count = a[0] + b[0]
    with np.errstate(all="ignore"):
        apart = np.float64(b[1]) / b[0] - np.float64(a[1]) / a[0]
        return count, a[1] + b[1], float(a[2] + b[2] + apart * apart * (a[0] / count * b[0]))


def _wrapped(value: int, found: Column) -> int:
    """A sum of whole numbers as 64 bits hold it: it runs over, as in pandas."""
    low = 0 if pa.types.is_unsigned_integer(found.type) else -(2**63)
    return (value - low) % 2**64 + low


def _float(found: Column) -> Any:
    """The float a metric of the column is: of 32 bits for a column of 32-bit floats."""
    return np.float32 if pa.types.is_float32(found.type) else np.float64


def _prepared(e: Expectation, schema: pa.Schema, what: str) -> tuple[Column, Bounds] | str:
    """The column and the bounds, or why Great Expectations must judge. Raises SuiteError where a column can have no
    such metric."""
    found = column(e, schema)
    if isinstance(found, str):
        return found
    if found.kind == "text" and what == "sum":
        return "the sum of text: pandas strings it together"
    if found.kind == "time" and what == "standard deviation":
        return "the standard deviation of timestamps: pandas gives a span of time"
    if found.kind in ("text", "date") or (found.kind == "time" and what == "sum"):
        e.wrong(f"the column is {found.type}, which has no {what}", "choose a column of numbers")
    held = bounds(e, number if what == "standard deviation" else reader(found))
    return held if isinstance(held, str) else (found, held)
