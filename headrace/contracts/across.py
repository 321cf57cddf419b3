"""Expectations whose verdict on a row depends on the whole batch: duplicates, order, distance from the mean or the
quartiles. As Arrow and numpy kernels, each with the verdict of Great Expectations' pandas engine.

Where these kernels run on part of a batch, the part must be made with `conditions.keep`, not with `filter`: what pandas
makes of whole numbers depends on whether there was a null anywhere in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.kernels import Bad, Column, Kernel, is_float, is_number, is_text, present, some, values_judged
from headrace.contracts.pairs import named, row_kernel, scoped
from headrace.contracts.suite import Expectation

Codes = np.ndarray[Any, np.dtype[np.int64]]
Numbers = np.ndarray[Any, Any]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def unique(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """No value twice; of one that is there twice, every occurrence is bad. A null is no value."""
    name = e.columns[0]
    if not _told_apart(schema.field(name).type):
        return f"telling values of {schema.field(name).type} apart"

    def bad(rows: pa.RecordBatch) -> pa.BooleanArray | None:
        array = rows.column(name)
        valid = present(array)
        codes, distinct = _codes(array)
        if distinct == (len(array) if valid is None else valid.true_count + 1):
            return None
        twice = pa.array(_twice(codes))
        return some(twice if valid is None else pc.and_(twice, valid))
    return Kernel(bad, (f"{name} is ", Column(name), ", which is there more than once"), values_judged(name))


def compound_unique(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """No combination of values twice; in a combination, nulls are equal to each other."""
    listed, scope = e.kwargs.get("column_list"), scoped(e, "all_values_are_missing")
    if not isinstance(listed, list) or len(listed) < 2 or not all(isinstance(c, str) for c in listed):
        e.wrong(f"column_list is {listed!r}", "column_list names two columns or more")
    strange = [schema.field(c).type for c in listed if not _told_apart(schema.field(c).type)]
    if strange or scope is None:
        return f"telling values of {strange[0]} apart" if strange else "an unusual ignore_row_if"

    def good(arrays: list[pa.Array]) -> pa.BooleanArray:
        codes, _ = _codes(arrays[0])
        for array in arrays[1:]:
            more, distinct = _codes(array)
            codes, _ = _codes(pa.array(codes * distinct + more))
        return pa.array(~_twice(codes))
    return row_kernel(e, scope, good, named(e, "are there together more than once"))


def _told_apart(type_: pa.DataType) -> bool:
    """Types of which equal values in Arrow are equal in pandas, but for what `_codes` sees to."""
    t = pa.types
    return bool(is_text(type_) or is_float(type_) or t.is_integer(type_) or t.is_boolean(type_) or t.is_date32(type_)
                or t.is_timestamp(type_) or t.is_decimal128(type_) or t.is_binary(type_))


def _held(array: pa.Array) -> pa.Array:
    """Whole numbers with a null among them are 64-bit floats in pandas, and may become equal by that."""
    if pa.types.is_integer(array.type) and array.null_count:
        return pc.cast(array, pa.float64(), safe=False)
    return array


def _codes(array: pa.Array) -> tuple[Codes, int]:
    """A number per row, from 0 on, the same for values that pandas finds equal, nulls being one value; and how many
    there are. Zero and minus zero are equal, and NaN is null: Arrow's dictionaries see both otherwise."""
    array = _held(array)
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), pc.add(array, pa.scalar(0.0, array.type)))
    encoded = array.dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), len(encoded.dictionary)


def _twice(codes: Codes) -> Mask:
    repeated: Mask = np.bincount(codes)[codes] > 1
    return repeated


def order(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """Each value at least (strictly: above) the one before it, or at most (below). Rows without a value are skipped."""
    name, type_ = e.columns[0], schema.field(e.columns[0]).type
    strictly = e.kwargs.get("strictly") or False
    if not isinstance(strictly, bool):
        return "strictly is not true or false"
    if not (pa.types.is_integer(type_) or is_float(type_) or pa.types.is_timestamp(type_)):
        return f"the order of {type_}, which pandas takes from differences"
    up = e.type == "expect_column_values_to_be_increasing"
    wrong = {(True, False): pc.less, (True, True): pc.less_equal, (False, False): pc.greater,
             (False, True): pc.greater_equal}[up, strictly]

    def judge(values: pa.Array) -> Mask:
        steps = _steps(values)
        out = np.zeros(len(values), dtype=bool)
        out[1:] = wrong(steps, pa.scalar(0, steps.type)).to_numpy(zero_copy_only=False)
        return out
    told = f"not {'above' if up else 'below'}" if strictly else "below" if up else "above"
    return Kernel(_among_present(name, judge), (f"{name} is ", Column(name), f", {told} the value before it"),
                  values_judged(name))


def _steps(values: pa.Array) -> pa.Array:
    """The difference of each value but the first to the one before it, as pandas has it: in the column's own width
    (a step from the least to the greatest 32-bit number is -1; of numbers without a sign none is negative), save for 8
    and 16 bits; from infinity to infinity it is NaN, which is in order. The steps of zoned timestamps that 64 bits do
    not hold (292,000 years in microseconds) make pandas raise, and wrap here."""
    if pa.types.is_timestamp(values.type):
        values = values.view(pa.int64())
    elif pa.types.is_int8(values.type) or pa.types.is_int16(values.type):
        values = values.cast(pa.int32())
    return pc.subtract(values[1:], values[:-1])


def z_scores(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """Each value less than `threshold` standard deviations (of a sample) above the mean, or double-sided from it."""
    name, type_ = e.columns[0], schema.field(e.columns[0]).type
    threshold, both = e.kwargs.get("threshold"), e.kwargs.get("double_sided")
    if not is_number(threshold) or not isinstance(both, bool):
        return "threshold is not a plain number, or double_sided not true or false"
    if not (pa.types.is_integer(type_) or is_float(type_)):
        return f"standard deviations of {type_}"
    limit = float(threshold)  # type: ignore[arg-type]

    def judge(array: pa.Array) -> Mask:
        values = array.to_numpy(zero_copy_only=False)
        deviation = _deviation(values)
        if deviation == 0 or math.isnan(deviation):
            return np.zeros(len(values), dtype=bool)
        scores = (values - _mean(values)) / deviation
        far: Mask = np.abs(scores) >= abs(limit) if both else scores >= limit
        return far
    says = (f"{name} is ", Column(name), f", {abs(limit) if both else limit:g} standard deviations or more "
            f"{'from' if both else 'above'} the mean")
    return Kernel(_among_present(name, judge), says, values_judged(name))


def outliers(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """Each value within `multiplier` times the interquartile range of the quartiles (iqr, the bounds included), or
    less than `multiplier` standard deviations from the mean (std)."""
    name, type_ = e.columns[0], schema.field(e.columns[0]).type
    method, multiplier = e.kwargs.get("method") or "iqr", e.kwargs.get("multiplier", 1.5)
    if method not in ("iqr", "std"):
        e.wrong(f"method is {method!r}", "method is iqr or std")
    if not is_number(multiplier):
        return "multiplier is not a plain number"
    if not (pa.types.is_integer(type_) or is_float(type_)):
        return f"outliers among {type_}"
    window = _fences if method == "iqr" else _around_mean

    def judge(array: pa.Array) -> Mask:
        return window(array.to_numpy(zero_copy_only=False), float(multiplier))
    told = f"{multiplier} interquartile ranges outside the quartiles" if method == "iqr" else \
        f"{multiplier} standard deviations or more from the mean"
    return Kernel(_among_present(name, judge), (f"{name} is ", Column(name), f", an outlier: {told}"),
                  values_judged(name))


def _fences(values: Numbers, multiplier: float) -> Mask:
    first, third = (float(np.quantile(values, np.array([q]), method="linear")[0]) if len(values) else math.nan
                    for q in (0.25, 0.75))
    if not (math.isfinite(first) and math.isfinite(third)):
        return np.zeros(len(values), dtype=bool)
    reach = multiplier * (third - first)
    inside: Mask = (values >= first - reach) & (values <= third + reach)
    return ~inside


def _around_mean(values: Numbers, multiplier: float) -> Mask:
    middle, deviation = (float(of(values)) if len(values) else math.nan for of in (_mean, _deviation))
    if not (math.isfinite(middle) and math.isfinite(deviation)):
        return np.zeros(len(values), dtype=bool)
    reach = multiplier * deviation
    inside: Mask = values == middle if reach <= 0 else np.abs(values - middle) < reach
    return ~inside


def _mean(values: Numbers) -> Any:
    """As pandas adds: whole numbers into 64-bit floats (numpy then adds them in other portions than floats), 32-bit
    floats into 32 bits."""
    kind = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
    return values.sum(dtype=kind) / kind.type(len(values))


def _deviation(values: Numbers) -> Any:
    """The standard deviation of a sample, in two passes of 64 bits; NaN for fewer than two values."""
    kind = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
    if len(values) < 2:
        return kind.type(math.nan)
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    count = kind.type(len(values))
    squares = (values.sum(dtype=np.float64) / count - values) ** 2
    return np.sqrt((squares.sum(dtype=np.float64) / (count - kind.type(1))).astype(kind))


def _among_present(name: str, judge: Callable[[pa.Array], Mask]) -> Bad:
    """Rows without a value are left out before the others are judged, and are never bad. NaN and infinity may appear
    in what is computed on the way, without a warning."""
    def bad(rows: pa.RecordBatch) -> pa.BooleanArray | None:
        array = _held(rows.column(name))
        valid = present(array)
        with np.errstate(all="ignore"):
            wrong = judge(array if valid is None else array.filter(valid))
        if valid is None or not wrong.any():
            return some(pa.array(wrong))
        out = np.zeros(len(array), dtype=bool)
        out[valid.to_numpy(zero_copy_only=False)] = wrong
        return pa.array(out)
    return bad
