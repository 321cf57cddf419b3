"""The largest and the smallest value of a column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.aggregates.aggregate import Aggregate
from headrace.contracts.aggregates.bounds import bounds, quoted, reader, shown, verdict
from headrace.contracts.aggregates.columns import Column, column, present
from headrace.contracts.aggregates.fold import Fold
from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict

Extreme = tuple[bool, Any]
"""Whether pandas holds the whole numbers as floats, and the value: a number, a text, or units since 1970."""


def extreme(e: Expectation, schema: pa.Schema) -> Aggregate | str:
    found = column(e, schema)
    if isinstance(found, str):
        return found
    held = bounds(e, reader(found))
    if isinstance(held, str):
        return held
    which = "max" if e.type == "expect_column_max_to_be_between" else "min"
    pick = max if which == "max" else min

    def measure(rows: pa.RecordBatch) -> Extreme:
        array, floats = found.take(rows)
        value = pc.min_max(present(array))[which]
        return floats, value.value if found.kind in ("time", "date") else value.as_py()

    def join(a: Extreme, b: Extreme) -> Extreme:
        values = [v for v in (a[1], b[1]) if v is not None]
        return a[0] or b[0], pick(values) if values else None

    def say(state: Extreme) -> Verdict:
        return verdict(held, _metric(found, *state), found)

    fold = Fold(measure, join, say)
    name = "largest" if which == "max" else "smallest"
    return Aggregate(fold.judge, f"the {name} {quoted(found.name)} is {{}}, not {shown(e, held)}", fold)


def _metric(found: Column, floats: bool, value: Any) -> Any:
    """The value in the type that pandas has it in, which its comparisons depend on."""
    if value is None or found.kind in ("text", "time", "bool"):
        return value
    if found.kind == "date":
        return pa.scalar(value, pa.date32()).as_py()
    return np.float64(value) if floats and found.kind == "whole" else found.type.to_pandas_dtype()(value)
