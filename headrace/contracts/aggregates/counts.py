"""How many rows there are, and what share of a column's values is there."""

from __future__ import annotations

from typing import NoReturn

import pyarrow as pa

from headrace.contracts.aggregates.aggregate import Aggregate
from headrace.contracts.aggregates.bounds import Bounds, bounds, count, number, quoted, shown
from headrace.contracts.aggregates.columns import column, missing
from headrace.contracts.aggregates.fold import Fold
from headrace.contracts.kernels import is_number
from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict

_PLAINLY_NULL = (pa.types.is_decimal, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary,
                 pa.types.is_time, pa.types.is_duration)
"""Types beyond those of `column` whose nulls are pandas' too."""


def row_count(e: Expectation, schema: pa.Schema) -> Aggregate | str:
    """Between bounds, or equal to a value; fractions are cut off what the file says."""
    if e.type == "expect_table_row_count_to_equal":
        value = e.kwargs.get("value")
        if value is None:
            e.wrong("value is missing", "e.g. \"value\": 1000")
        if not is_number(value):
            return f"value is {value!r}, not a plain number"
        held: Bounds | str = Bounds(int(value), int(value))
        told = str(value)
    else:
        held = bounds(e, count)
        told = "" if isinstance(held, str) else shown(e, held)
    if isinstance(held, str):
        return held
    if held.low is not None and held.high is not None and held.low > held.high:
        _swapped(e)

    def say(state: int) -> Verdict:
        return Verdict(held.hold(state), {"observed_value": state})

    fold = Fold(lambda rows: int(rows.num_rows), lambda a, b: a + b, say)
    return Aggregate(fold.judge, f"there are {{}} rows, not {told}", fold)


def _swapped(e: Expectation) -> NoReturn:
    e.wrong(f"min_value {e.kwargs['min_value']} is greater than max_value {e.kwargs['max_value']}", "swap them")


def non_null_proportion(e: Expectation, schema: pa.Schema) -> Aggregate | str:
    name, type_ = e.columns[0], schema.field(e.columns[0]).type
    found, held = column(e, schema), bounds(e, number)
    if isinstance(held, str):
        return held
    if isinstance(found, str) and not any(test(type_) for test in _PLAINLY_NULL):
        return found

    def measure(rows: pa.RecordBatch) -> tuple[int, int]:
        return int(rows.num_rows), missing(rows.column(name))

    def say(state: tuple[int, int]) -> Verdict:
        rows, nulls = state
        share = (rows - nulls) / rows if rows else 0
        return Verdict(held.hold(share), {"observed_value": share})

    fold = Fold(measure, lambda a, b: (a[0] + b[0], a[1] + b[1]), say)
    return Aggregate(fold.judge, f"the share of rows with a {quoted(name)} is {{}}, not {shown(e, held)}", fold)
