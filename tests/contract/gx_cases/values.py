"""Expectations about each value of a column: kwargs of every type, with odd arguments among the usual ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.contract.gx_cases.batches import BIG, BOOLS, DECIMALS, EDGES, MOMENTS, NUMBERS, TEXT, TEXTS

Kwargs = dict[str, Any]
Draw = Callable[[random.Random, Sequence[str]], Kwargs]
"""(chance, the batch's columns) → the arguments of an expectation."""
LIMITS = [-1, 0, 1, 2.5, 5, 0.1, -0.0, 127, 128, -129, 2**31, 2**32, BIG - 1, BIG, BIG + 1, -BIG - 1, 2**63, 1e300]
REGEXES = [r"^N\d", r"^[A-Z]", r"\d+$", r"^1$", r"\w\w", r"a|b", r"(?i)^n1", r"\s", r"^$", r".", r"\bN", r"[^a-z]",
           r"^N\d{1,5}[A-Z]{0,2}$", r"(?=a)", r"(a)\1?", "\u212a", r"(?i)k", r"(?i)s", r"\Aa\Z", r"[[:alpha:]]",
           r"\u00c4", r"a$", r"(?m)x$", r"\D", r"^\W", r"(?s)x.y", r"x.y", r"[\d]", r"\Ba", "b", "N", "0"]
SPOKEN = ["^1", r"\.0$", r"\d", "True", "None|NaT|nan", r"^2013-02-08$", "^$"]
TYPES = ["int64", "int32", "int8", "float64", "float32", "bool", "object", "str", "datetime64[us]", "datetime64[ms]",
         "datetime64", "int64", "float64", "str", "object", "uint8", "int", "float", "bool_", "O", "<i4", "int_",
         "long", "unicode", "none", "complex", "bytes", "list", "dict", "date", "Decimal", "timedelta64",
         "datetime64[ns]"]
PANDAS = ["Int64", "Timestamp", "datetime.date", "Int64Dtype", "StringDtype", "DatetimeTZDtype", "datetime64[us, UTC]",
          "CategoricalDtype", "category", "string", "noon"]
"""Names that pandas alone may know."""


def of(rng: random.Random, names: Sequence[str], family: Sequence[str], odd: float = 0.1) -> str:
    """One of the batch's columns, mostly of a family."""
    fit = [name for name in names if name in family]
    return rng.choice(fit if fit and rng.random() >= odd else list(names))


def limits(rng: random.Random, column: str) -> Kwargs:
    """min_value and max_value fit for a column, and whether they are strict."""
    low: Sequence[Any]
    high: Sequence[Any]
    if column in MOMENTS:
        z = rng.choice(["Z", "Z", "Z", ""] if column in ("tz", "uz", "bz") else ["", "", "", "Z"])
        low = [f"2013-02-08T00:00:00{z}", f"1969-12-31T23:59:59.999999{z}", "2013-02-08", f"1900-01-01T00:00:00{z}"]
        high = [f"2013-02-08T00:00:00.000001{z}", f"2100-01-01T00:00:00{z}", f"2013-02-09T00:00:00{z}", "2013-02-08"]
    elif column == "d":
        low, high = ["2013-02-08", "1900-01-01"], ["2013-02-09", "2013-02-08", "2013-02-08T00:00:00"]
    elif column in ("i64", "j64", "u64") and rng.random() < 0.5:
        low, high = [0, *EDGES[:2]], EDGES
    else:
        low = high = [*LIMITS, *LIMITS, "5", "a"] if rng.random() < 0.15 else LIMITS
    given = {"min_value": rng.choice(low), "max_value": rng.choice(high)}
    if rng.random() < 0.5:
        del given[rng.choice(["min_value", "max_value"])]
    numbers = [v for v in given.values() if not isinstance(v, str)]
    if len(numbers) == 2 and numbers[0] > numbers[1] and rng.random() < 0.9:
        given = {"min_value": numbers[1], "max_value": numbers[0]}
    return given | {k: True for k in ("strict_min", "strict_max") if rng.random() < 0.3}


def between(rng: random.Random, names: Sequence[str]) -> Kwargs:
    column = of(rng, names, [*NUMBERS, *NUMBERS, *MOMENTS, "d", "b", "dec"], 0.05)
    return {"column": column, **limits(rng, column)}


def members(rng: random.Random, column: str) -> list[Any]:
    """A set, mostly of the column's kind."""
    if column in MOMENTS or column == "d" or rng.random() < 0.05:
        return rng.choice([["2013-02-08"], ["2013-02-08T00:00:00"], ["2013-02-08T00:00:00Z"], ["noon"], [5], []])
    if column in (*TEXT, "e", "bin", "list"):
        return rng.sample(TEXTS, 6) + rng.choice([[], [], ["a", "b"], [1], [None]])
    if column in BOOLS:
        return rng.choice([[True], [False], [True], [False], [True, False], [1], ["True"], []])
    if column in ("f64", "g64", "f32", "g32"):
        return rng.choice([[0.0, 1.0], [0, 1], [0.1], [-0.0], [5, 0.1, 1e300], [BIG + 1], [1, "a"], [None, 1.0], []])
    return rng.choice([[1, 5], [0], [0, 1], [1, 2, 3, 5], [-1, 127, 300], [1.0, 5.0], [1.5], [BIG + 1], [BIG, 0],
                       [BIG - 1], [2**63], ["1", 5], [True], [None, 1], [float(DECIMALS[2]), 5], []])


def in_set(rng: random.Random, names: Sequence[str]) -> Kwargs:
    column = of(rng, names, [*NUMBERS, *TEXT, *TEXT, *BOOLS, *MOMENTS, "e", "d", "dec"])
    return {"column": column, "value_set": members(rng, column)}


def regex(rng: random.Random, names: Sequence[str]) -> Kwargs:
    column = of(rng, names, TEXT, 0.15)
    return {"column": column, "regex": rng.choice(REGEXES if column in TEXT else SPOKEN)}


def regexes(rng: random.Random, names: Sequence[str]) -> Kwargs:
    column = of(rng, names, TEXT, 0.15)
    return {"column": column, "regex_list": rng.sample(REGEXES if column in TEXT else SPOKEN, rng.choice([1, 2, 3]))}


def any_regexes(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return regexes(rng, names) | rng.choice([{}, {"match_on": "any"}, {"match_on": "all"}])


def length(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"column": of(rng, names, TEXT), "value": rng.choice([0, 1, 1, 2, 6, 1.5])}


def lengths(rng: random.Random, names: Sequence[str]) -> Kwargs:
    low, high = sorted(rng.sample([0, 1, 2, 3, 4, 6, 1.5], 2))
    given = rng.choice([{"min_value": low}, {"max_value": high}, {"min_value": low, "max_value": high}])
    return {"column": of(rng, names, TEXT), **given, **{k: True for k in ("strict_min", "strict_max")
                                                        if rng.random() < 0.3}}


def plain(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"column": rng.choice(names)}


def text(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"column": of(rng, names, TEXT)}


def strftime(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"column": of(rng, names, TEXT), "strftime_format": rng.choice(["%Y-%m-%d"] * 6 + ["%H", "%d %q"])}


def json_schema(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"column": of(rng, names, TEXT), "json_schema": rng.choice([
        {"type": "integer"}, {"type": "number"}, {"type": "object", "required": ["a"]}, {}, {}, {"type": "nonsense"}])}


def type_(rng: random.Random, names: Sequence[str]) -> Kwargs:
    return {"column": rng.choice(names), "type_": rng.choice(TYPES if rng.random() < 0.8 else PANDAS)}


def types(rng: random.Random, names: Sequence[str]) -> Kwargs:
    pool = TYPES if rng.random() < 0.7 else [*TYPES, *PANDAS]
    return {"column": rng.choice(names), "type_list": rng.sample(pool, rng.choice([1, 2, 4, 9]))}


VALUES: Mapping[str, Draw] = {
    "expect_column_values_to_be_null": plain, "expect_column_values_to_not_be_null": plain,
    "expect_column_values_to_be_in_set": in_set, "expect_column_values_to_not_be_in_set": in_set,
    "expect_column_values_to_be_between": between, "expect_column_values_to_match_regex": regex,
    "expect_column_values_to_not_match_regex": regex, "expect_column_values_to_match_regex_list": any_regexes,
    "expect_column_values_to_not_match_regex_list": regexes, "expect_column_value_lengths_to_equal": length,
    "expect_column_value_lengths_to_be_between": lengths, "expect_column_values_to_match_strftime_format": strftime,
    "expect_column_values_to_be_json_parseable": text, "expect_column_values_to_be_dateutil_parseable": text,
    "expect_column_values_to_match_json_schema": json_schema, "expect_column_values_to_be_of_type": type_,
    "expect_column_values_to_be_in_type_list": types}
