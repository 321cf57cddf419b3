"""The median, and quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.contracts.aggregates import ranks
from headrace.contracts.aggregates.aggregate import Aggregate
from headrace.contracts.aggregates.bounds import bounds, quoted, reader, shown, verdict
from headrace.contracts.aggregates.columns import Column, Numbers, column, present
from headrace.contracts.aggregates.fold import Fold
from headrace.contracts.aggregates.ranks import Ranks
from headrace.contracts.kernels import is_number
from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict

METHODS = ("nearest", "linear", "lower", "higher", "midpoint")
_ROUND: dict[str, Any] = {"nearest": np.around, "lower": np.floor, "higher": np.ceil}
_EXAMPLE = "e.g. {\"quantiles\": [0.5], \"value_ranges\": [[10, 20]]}"


def median(e: Expectation, schema: pa.Schema) -> Aggregate | str:
    found = _column(e, schema, "median", ("text", "date"))
    if isinstance(found, str):
        return found
    held = bounds(e, reader(found))
    if isinstance(held, str):
        return held

    def say(state: Ranks) -> Verdict:
        if not state.count:
            return verdict(held, None, found)
        return verdict(held, _median(state, found), found)

    return _aggregate(found, say, f"the median of {quoted(found.name)} is {{}}, not {shown(e, held)}")


def _median(state: Ranks, found: Column) -> Any:
    if state.lossy:
        middle = (state.count - 1) / 2
        values = ranks.at_ranks(state, np.array([math.floor(middle), math.ceil(middle)]))
    else:
        values = state.levels[0]
    with np.errstate(all="ignore"):
        return np.median(values if found.kind == "float" else values.astype(np.float64))


def quantiles(e: Expectation, schema: pa.Schema) -> Aggregate | str:
    found = _column(e, schema, "quantiles", ("text", "date", "time"))
    if isinstance(found, str):
        return found
    method = e.kwargs.get("allow_relative_error") or "nearest"
    if method is True or (isinstance(method, str) and method not in (*METHODS, "true", "false")):
        e.wrong(f"allow_relative_error is {method!r}", f"on a data frame it is false or one of {', '.join(METHODS)}")
    if method not in METHODS:
        return f"allow_relative_error is {method!r}"
    if found.kind == "bool" and method in ("linear", "midpoint"):
        return f"{method} quantiles of true and false"
    asked = _asked(e)
    if isinstance(asked, str):
        return asked
    points, ranges = asked

    def say(state: Ranks) -> Verdict:
        values = _values(state, found, points, method)
        details = [_inside(v, low, high) for v, (low, high) in zip(values, ranges, strict=True)]
        return Verdict(all(details), {"observed_value": {"quantiles": points, "values": values},
                                      "details": {"success_details": details}})

    told = ", ".join(f"{p}: {low} … {high}" for p, (low, high) in zip(points, ranges, strict=True))
    return _aggregate(found, say, f"the quantiles of {quoted(found.name)} are {{}}, not within {told}")


def _asked(e: Expectation) -> tuple[list[float], list[tuple[Any, Any]]] | str:
    """The quantiles and the range of each, or why Great Expectations must judge."""
    asked = e.kwargs.get("quantile_ranges")
    if not isinstance(asked, dict) or not all(isinstance(asked.get(k), list) for k in ("quantiles", "value_ranges")):
        e.wrong(f"quantile_ranges is {asked!r}", _EXAMPLE)
    points, ranges = asked["quantiles"], asked["value_ranges"]
    if any(not isinstance(r, list) or len(r) != 2 for r in ranges) or len(ranges) > len(points):
        e.wrong(f"value_ranges is {ranges!r}", f"a range of two bounds for each quantile, {_EXAMPLE}")
    if not all(map(is_number, points)) or len(ranges) < len(points):
        return "quantiles are not plain numbers, or lack a range"
    if not all(b is None or is_number(b) for r in ranges for b in r):
        return "a bound of a quantile is not a plain number"
    if any(not 0 <= p <= 1 for p in points):
        e.wrong(f"quantiles is {points!r}", "quantiles lie between 0 and 1")
    return points, [(low, high) for low, high in ranges]


def _values(state: Ranks, found: Column, points: Sequence[float], method: str) -> list[Any]:
    """The quantiles, in the type pandas gives them in."""
    if not state.count:
        return [math.nan] * len(points)
    with np.errstate(all="ignore"):
        if not state.lossy:
            values = _held(state.levels[0], state, found)
            made = np.quantile(values, np.array(points, dtype=np.float64), method=method)  # type: ignore[call-overload]
            return list((made.astype(values.dtype) if state.floats and found.kind == "float" else made).tolist())
        exact = np.array(points, dtype=np.float64) * (state.count - 1)
        if method in _ROUND:
            return list(_held(ranks.at_ranks(state, _ROUND[method](exact)), state, found).tolist())
        low, high = (_held(ranks.at_ranks(state, f(exact)), state, found) for f in (np.floor, np.ceil))
        share = 0.5 if method == "midpoint" else exact - np.floor(exact)
        return list((low + (high - low) * share).tolist())


def _held(values: Numbers, state: Ranks, found: Column) -> Numbers:
    if found.kind == "bool":
        return values.astype(np.bool_)
    return values.astype(np.float64) if state.floats and found.kind == "whole" else values


def _inside(value: Any, low: Any, high: Any) -> bool:
    """Near a bound, by a tenth of a thousandth of it, is on it."""
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    return _near(value, low) or _near(value, high) or bool(low <= value <= high)


def _near(value: Any, bound: Any) -> bool:
    a, b = float(value), float(bound)
    return a == b or (math.isfinite(b) and abs(a - b) <= 1e-8 + 1e-4 * abs(b))


def _column(e: Expectation, schema: pa.Schema, what: str, without: tuple[str, ...]) -> Column | str:
    found = column(e, schema)
    if not isinstance(found, str) and found.kind in without:
        e.wrong(f"the column is {found.type}, which has no {what}", "choose a column of numbers")
    return found


def _aggregate(found: Column, say: Any, says: str) -> Aggregate:
    def measured(rows: pa.RecordBatch) -> tuple[Numbers, bool]:
        array, floats = found.take(rows)
        there = present(array)
        if found.kind == "time":
            there = there.view(pa.int64())
        elif found.kind == "bool":
            there = there.cast(pa.uint8())
        return there.to_numpy(zero_copy_only=False), floats or len(there) < len(array)

    def judge(rows: pa.RecordBatch) -> Verdict:
        values, floats = measured(rows)
        return say(Ranks(floats, (values,), (0,)))  # type: ignore[no-any-return]

    fold = Fold(lambda rows: ranks.ranks(*measured(rows)), ranks.join, say, ranks.dump, ranks.load, estimate=True,
                rough=lambda state: state.lossy)
    return Aggregate(judge, says, fold)
