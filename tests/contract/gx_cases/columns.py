"""Expectations about the values of several columns in a row, and about the rows of a batch beside each other."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from tests.contract.gx_cases.batches import BIG, BOOLS, FLOATS, MOMENTS, NUMBERS, SMALL, TEXT, WHOLE
from tests.contract.gx_cases.values import Draw, Kwargs, of

FAMILIES = [SMALL, SMALL, WHOLE, FLOATS, NUMBERS, TEXT, TEXT, ["ts", "tt", "tz", "uz"], MOMENTS, BOOLS,
            ["d", "ts", "dec", "b"]]
PAIR_IGNORES = ["neither", "either_value_is_missing", "both_values_are_missing"]
IGNORES = ["never", "any_value_is_missing", "all_values_are_missing"]


def _ignored(rng: random.Random, ways: Sequence[str]) -> Kwargs:
    return {} if rng.random() < 0.4 else {"ignore_row_if": rng.choice(ways)}


def _together(rng: random.Random, names: Sequence[str], families: Sequence[Sequence[str]]) -> list[str]:
    """Columns of the batch of one family, two at least; now and then any two."""
    family = rng.choice(families)
    fit = [n for n in names if n in family]
    return fit if len(fit) > 1 and rng.random() > 0.05 else list(names)


def _some(rng: random.Random, family: Sequence[str]) -> list[str]:
    """Some of the columns; now and then one of them twice."""
    out = rng.sample(list(family), min(len(family), rng.choice([2, 2, 3, 5])))
    return [*out, out[0]] if rng.random() < 0.03 else out


def pair(rng: random.Random, names: Sequence[str]) -> Kwargs:
    family = _together(rng, names, FAMILIES)
    a, b = rng.sample(list(family), 2) if rng.random() < 0.96 else [family[0]] * 2
    return {"column_A": a, "column_B": b, **_ignored(rng, PAIR_IGNORES)}


def greater(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return pair(rng, names) | rng.choice([{}, {"or_equal": True}, {"or_equal": False}])


def pairs_in_set(rng: random.Random, names: Sequence[str]) -> Kwargs:
    pool: list[Any] = [0, 1, 5, 1.0, 0.1, -1, None, "a", "b", "", True, BIG + 1, "2013-02-08", 2]
    return pair(rng, names) | {"value_pairs_set": [rng.choices(pool, k=2) for _ in range(rng.choice([0, 3, 9, 40]))]}


def listed(rng: random.Random, names: Sequence[str]) -> Kwargs:
    family = _together(rng, names, FAMILIES)
    return {"column_list": _some(rng, family), **_ignored(rng, IGNORES)}


def sums(rng: random.Random, names: Sequence[str]) -> Kwargs:
    family = _together(rng, names, [SMALL, SMALL, WHOLE, FLOATS, NUMBERS, BOOLS])
    return {"column_list": _some(rng, family),
            "sum_total": rng.choice([0, 1, 2, 6, 2.0, 0.2, BIG + 1, -1]), **_ignored(rng, IGNORES)}


def compound(rng: random.Random, names: Sequence[str]) -> Kwargs:
    family = names if rng.random() < 0.5 else _together(rng, names, FAMILIES)
    return {"column_list": _some(rng, family), **_ignored(rng, IGNORES)}


def unique(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"column": rng.choice(names)}


def order(rng: random.Random, names: Sequence[str]) -> Kwargs:
    column = of(rng, names, [*NUMBERS, *MOMENTS], 0.05)
    return {"column": column} | rng.choice([{}, {"strictly": True}, {"strictly": False}])


def z_scores(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"column": of(rng, names, NUMBERS, 0.05), "threshold": rng.choice([0, 0.5, 1, 1.5, 2, 3, -1]),
            "double_sided": rng.random() < 0.5}


def outliers(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"column": of(rng, names, NUMBERS, 0.05)} | rng.choice([
        {}, {"method": "iqr"}, {"method": "std"}, {"method": "std", "multiplier": 1}, {"multiplier": 0},
        {"method": "std", "multiplier": 0}, {"multiplier": 0.25}])


COLUMNS_: Mapping[str, Draw] = {
    "expect_column_pair_values_to_be_equal": pair, "expect_column_pair_values_a_to_be_greater_than_b": greater,
    "expect_column_pair_values_to_be_in_set": pairs_in_set, "expect_multicolumn_values_to_be_equal": listed,
    "expect_select_column_values_to_be_unique_within_record": listed, "expect_multicolumn_sum_to_equal": sums}
ACROSS: Mapping[str, Draw] = {
    "expect_column_values_to_be_unique": unique, "expect_compound_columns_to_be_unique": compound,
    "expect_column_values_to_be_increasing": order, "expect_column_values_to_be_decreasing": order,
    "expect_column_value_z_scores_to_be_less_than": z_scores, "expect_column_values_to_not_be_outliers": outliers}
