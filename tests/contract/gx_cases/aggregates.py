"""Expectations about many rows together, and about the table and its columns."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from tests.contract.gx_cases.batches import BIG, BOOLS, COLUMNS, MOMENTS, NUMBERS
from tests.contract.gx_cases.values import LIMITS, PANDAS, TYPES, Draw, Kwargs, of

MIDDLES = [*LIMITS, 0.2, 1 / 3, 127.5, 0.5]
METHODS = ["linear", "lower", "higher", "midpoint", "nearest"]


def _given(rng: random.Random, some: Sequence[Any]) -> Kwargs:
    low, high = (rng.choice([None, *some]) for _ in range(2))
    if not isinstance(low, str | None) and not isinstance(high, str | None) and low > high and rng.random() < 0.8:
        low, high = high, low
    given = {k: v for k, v in (("min_value", low), ("max_value", high)) if v is not None}
    return given | {k: True for k in ("strict_min", "strict_max") if rng.random() < 0.25}


def of_values(rng: random.Random, names: Sequence[str]) -> Kwargs:
    """Bounds of a value of the column: its largest, mean, …"""
    column = of(rng, names, [*NUMBERS, *NUMBERS, *BOOLS, *MOMENTS, "d"], 0.05)
    if column in MOMENTS or column == "d":
        z = "Z" if column in ("tz", "uz", "bz") else ""
        some: list[Any] = ["2013-02-08", "1900-01-01"] if column == "d" else [
            f"2013-02-08T00:00:00{z}", f"1969-12-31 23:59:59.999{z}", f"2013-02-08T00:00{z}", f"2100-01-01T00:00:00{z}"]
        some += rng.choice([[], [], [], ["2013-02-08", 5, "2013-02-08T00:00:00"]])
    else:
        some = [*MIDDLES, *rng.choice([[], [], [], ["5"], ["2013-02-08"]])]
    return {"column": column, **_given(rng, some)}


def of_numbers(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"column": of(rng, names, [*NUMBERS, *BOOLS]), **_given(rng, MIDDLES)}


def of_counts(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"column": rng.choice(names), **_given(rng, [0, 1, 2, 3, 4, 7, 20, 20.9, 50, 300])}


def of_shares(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"column": rng.choice(names), **_given(rng, [0, 0.5, 1, 1 / 3, 0.8, -1])}


def rows(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return _given(rng, [0, 1, 2, 7, 20, 20.9, 50, 300])


def row_count(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"value": rng.choice([0, 1, 2, 7, 20, 20.5, 50, 300])}


def quantiles(rng: random.Random, names: Sequence[str]) -> Kwargs:
    points = sorted(rng.sample([0, 0.1, 0.25, 0.333, 0.5, 0.75, 0.9, 1], rng.choice([1, 3, 5])))
    pairs = [sorted(rng.sample([-1, 0, 1, 5, 0.1, BIG, 127], 2)) for _ in points]
    ranges = [[rng.choice([None, a]), rng.choice([None, b])] for a, b in pairs]
    way = rng.choice([{}, {}, {"allow_relative_error": rng.choice(METHODS)}])
    return {"column": of(rng, names, [*NUMBERS, *BOOLS]),
            "quantile_ranges": {"quantiles": points, "value_ranges": ranges}, **way}


def members(rng: random.Random, column: str) -> list[Any]:
    pool = COLUMNS[column][1] if column in COLUMNS else [0]
    if column in MOMENTS or column == "d":
        texts = [str(v) for v in rng.sample(pool, min(3, len(pool)))]
        return texts + rng.choice([[], [], ["2013-02-08"], ["2013-02-08T00:00:00Z"], ["noon"]])
    own = [v for v in rng.sample(pool, min(len(pool), rng.choice([1, 2, 6, len(pool)])))
           if not (isinstance(v, float) and not math.isfinite(v))
           and not isinstance(v, decimal.Decimal | dt.time | dt.timedelta | bytes)]
    return own + rng.choice([[], [], [], [1.0], [True], [None], ["a", 2], list(range(1000, 1030)), [BIG + 1]])


def value_set(rng: random.Random, names: Sequence[str]) -> Kwargs:
    column = rng.choice(names)
    return {"column": column, "value_set": members(rng, column)}


def most_common(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return value_set(rng, names) | rng.choice([{}, {"ties_okay": True}, {"ties_okay": False}])


def divergence(rng: random.Random, names: Sequence[str]) -> Kwargs:
    column = of(rng, names, [*NUMBERS, "t", "b"])
    if column in NUMBERS and rng.random() < 0.6:
        told: Kwargs = {"bins": [-1, 0, 1, 5, 1000], "weights": [0.25, 0.25, 0.3, 0.2]}
    else:
        told = {"values": rng.choice([[0, 1, 5], ["a", "b"], [True, False]])}
        told["weights"] = [0.5, 0.25, 0.25] if len(told["values"]) == 3 else [0.5, 0.5]
    more: Kwargs = rng.choice([{}, {"tail_weight_holdout": 0.01}, {"internal_weight_holdout": 0.01}])
    return {"column": column, "partition_object": told, "threshold": rng.choice([0.1, 1, 5]), **more}


def column(rng: random.Random, names: Sequence[str]) -> Kwargs:
    where = {} if rng.random() < 0.5 else {"column_index": rng.choice([0, 1, len(names) - 1, 40, -1])}
    return {"column": rng.choice([*names[:3], names[-1], "none", "I8"]), **where}


def column_type(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"column": rng.choice(names), "type_": rng.choice(TYPES[:15] if rng.random() < 0.6 else [*TYPES, *PANDAS])}


def width(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"value": rng.choice([len(names), len(names), 0, 3])}


def widths(rng: random.Random, names: Sequence[str]) -> Kwargs:
    given = _given(rng, [0, len(names), len(names), len(names) + 1, 3])
    return given if rng.random() < 0.1 else {k: v for k, v in given.items() if not k.startswith("strict")}


def _odd(rng: random.Random, names: Sequence[str]) -> list[str]:
    """The columns, or nearly."""
    out = list(names)
    match rng.choice(["same", "same", "less", "more", "order", "none"]):
        case "less":
            del out[rng.randrange(len(out))]
        case "more":
            out.append("none")
        case "order":
            rng.shuffle(out)
        case "none":
            out = []
    return out


def ordered(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"column_list": _odd(rng, names)}


def column_set(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"column_set": _odd(rng, names)} | rng.choice([{}, {"exact_match": True}, {"exact_match": False}])


AGGREGATES_: Mapping[str, Draw] = {
    "expect_column_max_to_be_between": of_values, "expect_column_min_to_be_between": of_values,
    "expect_column_mean_to_be_between": of_values, "expect_column_median_to_be_between": of_values,
    "expect_column_stdev_to_be_between": of_numbers, "expect_column_sum_to_be_between": of_numbers,
    "expect_column_quantile_values_to_be_between": quantiles,
    "expect_column_unique_value_count_to_be_between": of_counts,
    "expect_column_proportion_of_unique_values_to_be_between": of_shares,
    "expect_column_proportion_of_non_null_values_to_be_between": of_shares,
    "expect_column_most_common_value_to_be_in_set": most_common,
    "expect_column_distinct_values_to_be_in_set": value_set,
    "expect_column_distinct_values_to_contain_set": value_set,
    "expect_column_distinct_values_to_equal_set": value_set,
    "expect_column_kl_divergence_to_be_less_than": divergence,
    "expect_table_row_count_to_be_between": rows, "expect_table_row_count_to_equal": row_count}
TABLES_: Mapping[str, Draw] = {
    "expect_column_to_exist": column, "expect_column_type_to_be": column_type,
    "expect_table_column_count_to_equal": width, "expect_table_column_count_to_be_between": widths,
    "expect_table_columns_to_match_ordered_list": ordered, "expect_table_columns_to_match_set": column_set}
