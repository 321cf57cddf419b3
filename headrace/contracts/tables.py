"""Expectations about a table's columns: settled by the schema, whatever rows there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any

import pyarrow as pa

from headrace.contracts.aggregates.aggregate import Aggregate
from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict

Judge = Callable[[Mapping[str, Any], list[str]], Verdict]
"""(kwargs, names of the columns) → the verdict."""


def compile_table(e: Expectation, schema: pa.Schema) -> Aggregate:
    """For the types of `TABLES`. Raises SuiteError for arguments that cannot be."""
    judge, asked, shape = TABLES[e.type]
    for key, kind in shape.items():
        value = e.kwargs.get(key)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)):
            e.wrong(f"{key} is {value!r}", f"{key} is {_KINDS[kind]}")
    if asked and all(e.kwargs.get(key) is None for key in asked):
        e.wrong(f"{' and '.join(asked)} {'is' if len(asked) == 1 else 'are'} missing", "say what is expected")
    return Aggregate(lambda rows: judge(e.kwargs, rows.schema.names), "the columns are {}")


def _to_exist(kwargs: Mapping[str, Any], names: list[str]) -> Verdict:
    at, name = kwargs.get("column_index"), kwargs["column"]
    if not at:  # 0 is no index for Great Expectations either
        return Verdict(name in names, {})
    return Verdict(-len(names) <= at < len(names) and names[at] == name, {})


def _count_equal(kwargs: Mapping[str, Any], names: list[str]) -> Verdict:
    return Verdict(len(names) == kwargs["value"], {"observed_value": len(names)})


def _count_between(kwargs: Mapping[str, Any], names: list[str]) -> Verdict:
    n, low, high = len(names), kwargs.get("min_value"), kwargs.get("max_value")
    return Verdict((low is None or n >= low) and (high is None or n <= high), {"observed_value": n})


def _ordered(kwargs: Mapping[str, Any], names: list[str]) -> Verdict:
    wanted = kwargs.get("column_list")
    if wanted is None or names == wanted:
        return Verdict(True, {"observed_value": names})
    mismatched = [{"Expected Column Position": at, "Expected": one, "Found": other}
                  for at, (one, other) in enumerate(zip_longest(wanted, names)) if one != other]
    return Verdict(False, {"observed_value": names, "details": {"mismatched": mismatched}})


def _set(kwargs: Mapping[str, Any], names: list[str]) -> Verdict:
    wanted, there = set(kwargs.get("column_set") or ()), set(names)
    told = {"unexpected": sorted(there - wanted), "missing": sorted(wanted - there)}
    mismatched = {what: some for what, some in told.items() if some}
    if not mismatched:
        return Verdict(True, {"observed_value": sorted(there)})
    exact = kwargs.get("exact_match", True)
    return Verdict(not exact and not told["missing"],
                   {"observed_value": sorted(there), "details": {"mismatched": mismatched}})


_KINDS = {list: "a list of column names", int: "a whole number", bool: "true or false"}
_BOUNDS = {"min_value": int, "max_value": int}
TABLES: Mapping[str, tuple[Judge, tuple[str, ...], Mapping[str, type]]] = {
    "expect_column_to_exist": (_to_exist, ("column",), {"column_index": int}),
    "expect_table_column_count_to_equal": (_count_equal, ("value",), {"value": int}),
    "expect_table_column_count_to_be_between": (_count_between, (), _BOUNDS),
    "expect_table_columns_to_match_ordered_list": (_ordered, (), {"column_list": list}),
    "expect_table_columns_to_match_set": (_set, (), {"column_set": list, "exact_match": bool})}
"""Type → how it is judged, of which arguments one must be there, and what they are."""
