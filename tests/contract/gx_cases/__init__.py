"""Generated suites on generated batches, for the differential tests against Great Expectations: one generator for every
expectation that Great Expectations has for data frames.

A case is a function of its seed and its size alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tests.contract.gx_cases.aggregates import AGGREGATES_, TABLES_
from tests.contract.gx_cases.batches import batch, few
from tests.contract.gx_cases.columns import ACROSS, COLUMNS_
from tests.contract.gx_cases.conditions import OPERATORS, condition
from tests.contract.gx_cases.values import VALUES, Draw, Kwargs

KINDS: Mapping[str, Draw] = {**VALUES, **COLUMNS_, **ACROSS, **AGGREGATES_, **TABLES_}
"""Type → its arguments."""
_DRAWN = (*KINDS, *(type_ for type_ in AGGREGATES_ if "divergence" not in type_), "expect_column_values_to_be_between",
          "expect_column_values_to_be_null")
"""Aggregates twice as often, since they take Great Expectations a third of the time; conditions come with nulls."""
ROW = "row"
"""A column with the number of each row: what breaks an expectation of no nulls in it is what a condition keeps."""
_MOSTLY = {**VALUES, **COLUMNS_, **ACROSS}
_CONDITIONED = _MOSTLY.keys() | AGGREGATES_.keys()
_ASKED = ("min_value", "max_value", "value", "regex", "threshold", "value_set", "sum_total", "mostly", "type_")
"""Arguments that may be suite parameters."""


@dataclass(frozen=True, slots=True)
class Case:
    """A batch, and expectations about it with the values of their parameters."""

    seed: int
    rows: pa.RecordBatch
    written: Sequence[Mapping[str, Any]]
    values: Mapping[str, Any]


def case(seed: int, each: int, kinds: Sequence[str] = _DRAWN) -> Case:
    """`each` expectations, of these kinds."""
    rng = random.Random(seed)
    rows = batch(rng, few(rng))
    rows = rows.append_column(ROW, pa.array(range(rows.num_rows), pa.int64()))
    names, written, values = [n for n in rows.schema.names if n != ROW], list[dict[str, Any]](), dict[str, Any]()
    ranked = set[tuple[str, Any]]()
    while len(written) < each:
        one = _expectation(rng, names, kinds)
        kwargs = one["kwargs"]
        if "quantile_ranges" in kwargs:  # of one column, Great Expectations takes the one's quantiles for the other's
            rank = (kwargs["column"], kwargs.get("allow_relative_error"))
            if rank in ranked:
                continue
            ranked.add(rank)
        asked = [k for k in _ASKED if k in kwargs]
        if asked and rng.random() < 0.05:
            key, name = rng.choice(asked), f"p{len(values)}"
            values[name], kwargs[key] = kwargs[key], {"$PARAMETER": name}
        written.append(one)
    return Case(seed, rows, written, values)


def _expectation(rng: random.Random, names: Sequence[str], kinds: Sequence[str]) -> dict[str, Any]:
    type_ = rng.choice(kinds)
    kwargs: Kwargs = KINDS[type_](rng, names)
    if type_ == "expect_column_values_to_be_null" and rng.random() < 0.7:
        kwargs = {"column": ROW, **condition(rng, names)}
    elif type_ in _CONDITIONED and rng.random() < 0.12:
        kwargs |= _usual(rng, names, kwargs)
    if type_ in _MOSTLY and rng.random() < 0.2:
        kwargs["mostly"] = rng.choice([0, 0.3, 0.5, 0.9, 0.95, 1])
    return {"type": type_, "kwargs": kwargs, "severity": rng.choice(["critical", "critical", "warning", "info"])}


def _usual(rng: random.Random, names: Sequence[str], kwargs: Kwargs) -> Kwargs:
    """A condition that keeps some rows: those with a value in the column asked about, some rows by number, or any."""
    own: dict[str, Any] = {"type": "nullity", "column": {"name": kwargs.get("column", "j64")}, "is_null": False}
    some: dict[str, Any] = {"type": "comparison", "column": {"name": rng.choice([ROW, "j64", "b"])},
                            "operator": rng.choice(OPERATORS), "parameter": rng.choice([0, 1, 3, 20])}
    drawn: list[Callable[[], Kwargs]] = [
        lambda: {"row_condition": own}, lambda: {"row_condition": some}, lambda: {"row_condition": some},
        lambda: {"row_condition": {"type": "and", "conditions": [own, some]}}, lambda: condition(rng, names)]
    return rng.choice(drawn)()
