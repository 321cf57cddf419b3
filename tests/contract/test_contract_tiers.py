"""docs/contracts-tiers.md has the tier of every expectation on every type of column, and why, as the code has them.

    python -m tests.contract.test_contract_tiers        writes the table anew
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.contracts import compile_suite, parse
from headrace.errors import SuiteError
from tests.contract.gx_cases import KINDS

pytestmark = pytest.mark.contract

PAGE = Path(__file__).resolve().parents[2] / "docs" / "contracts-tiers.md"
PLACE = re.compile(r"^<!-- tiers -->\n(?:\|.*\n)*", re.MULTILINE)
MOMENT = "2013-02-08T00:00:00"
TYPES: Mapping[str, tuple[Sequence[pa.DataType], Any, Any]] = {
    "whole numbers": ([pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()], 1, 1),
    "uint64": ([pa.uint64()], 1, 1), "floats": ([pa.float32(), pa.float64()], 1.5, 1.5),
    "text": ([pa.string(), pa.large_string()], "a", None), "bool": ([pa.bool_()], True, 1),
    "dates": ([pa.date32()], "2013-02-08", "2013-02-08"),
    "timestamps": ([pa.timestamp(unit) for unit in ("s", "ms", "us")], MOMENT, MOMENT),
    "timestamps in UTC": ([pa.timestamp("us", "UTC")], f"{MOMENT}Z", f"{MOMENT}Z"),
    "timestamps elsewhere": ([pa.timestamp("us", "Europe/Berlin")], f"{MOMENT}Z", f"{MOMENT}Z"),
    "nanoseconds": ([pa.timestamp("ns")], MOMENT, MOMENT),
    "decimals": ([pa.decimal128(9, 2)], 1, 1), "binary": ([pa.binary()], "a", 1), "times": ([pa.time64("us")], "a", 1),
    "durations": ([pa.duration("us")], 1, 1), "dictionaries": ([pa.dictionary(pa.int8(), pa.string())], "a", 1),
    "lists": ([pa.list_(pa.int32())], 1, 1), "structs": ([pa.struct([("x", pa.int32())])], 1, 1)}
"""What the page calls them → the types, a value of a set, and a bound."""


OTHERS = 7
"""So many types are “all others”."""


def usual(type_: str, value: Any, bound: Any) -> dict[str, Any]:
    """The arguments that most would give, besides columns."""
    between = {"max_value": bound}
    table: list[tuple[str, dict[str, Any]]] = [
        ("distinct_values", {"value_set": [value]}), ("most_common", {"value_set": [value]}),
        ("pair_values_to_be_in_set", {"value_pairs_set": [[value, value]]}), ("be_in_set", {"value_set": [value]}),
        ("regex_list", {"regex_list": ["a"]}), ("regex", {"regex": "a"}),
        ("lengths_to_equal", {"value": 1}), ("lengths_to_be", {"max_value": 1}),
        ("strftime", {"strftime_format": "%Y-%m-%d"}), ("json_schema", {"json_schema": {"type": "integer"}}),
        ("of_type", {"type_": "int64"}), ("type_list", {"type_list": ["int64", "str"]}),
        ("type_to_be", {"type_": "str"}),
        ("sum_to_equal", {"sum_total": 1}), ("z_scores", {"threshold": 3, "double_sided": True}),
        ("quantile", {"quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, 1]]}}),
        ("divergence", {"partition_object": {"values": [1], "weights": [1.0]}, "threshold": 1}),
        ("unique_value", {"max_value": 1}), ("proportion", {"max_value": 1}), ("stdev", {"max_value": 1}),
        ("column_sum", {"max_value": 1}), ("count_to_be", {"max_value": 1}), ("count_to_equal", {"value": 1}),
        ("ordered_list", {"column_list": ["a", "b"]}), ("match_set", {"column_set": ["a", "b"]}),
        ("to_be_between", between if bound is not None else {"max_value": 1})]
    return next((kwargs for part, kwargs in table if part in type_), {})


def columns(type_: str) -> dict[str, Any]:
    if "_table_" in type_:
        return {}
    if "_pair_" in type_:
        return {"column_A": "a", "column_B": "b"}
    listed = ("multicolumn", "compound", "within_record")
    return {"column_list": ["a", "b"]} if any(part in type_ for part in listed) else {"column": "a"}


def tier(type_: str, of: pa.DataType, value: Any, bound: Any) -> tuple[str, str, str]:
    """kind, tier and why."""
    kwargs = {**columns(type_), **usual(type_, value, bound)}
    try:
        made = compile_suite(parse({"expectations": [{"type": type_, "kwargs": kwargs}]}, "suite"),
                             pa.schema([("a", of), ("b", of)]))
    except SuiteError as error:
        return "", "refused", _said(str(error).splitlines()[0].rpartition("): ")[2], of)
    check = made.checks[0]
    return check.kind, check.tier, _said(check.why, of)


def _said(why: str, of: pa.DataType) -> str:
    return re.sub(rf"(?<!\w){re.escape(str(of))}(?!\w)", "it", why).replace("|", "/")


def rows() -> Iterator[str]:
    """The table, line by line."""
    yield "| expectation | kind | compiled on | else |\n"
    yield "|---|---|---|---|\n"
    for type_ in sorted(KINDS):
        found: dict[tuple[str, str], list[str]] = {}
        kinds = set()
        for name, (types, value, bound) in TYPES.items():
            kind, *told = zip(*(tier(type_, of, value, bound) for of in types), strict=True)
            kinds |= set(kind)
            assert len(set(told[0])) == 1, f"{type_} on {types}: {told}"
            found.setdefault((told[0][0], told[1][0]), []).append(name)
        compiled = [n for (made, _), names in found.items() if made == "compiled" for n in names]
        others = "; ".join(f"{made} on {', '.join(names) if len(names) < OTHERS else 'all others'}: {why}"
                           for (made, why), names in sorted(found.items(), key=lambda item: len(item[1]))
                           if made != "compiled")
        on = "all" if len(compiled) == len(TYPES) else ", ".join(compiled) or "–"
        yield f"| `{type_.removeprefix('expect_')}` | {(kinds - {''}).pop()} | {on} | {others or '–'} |\n"


def written(page: str) -> str:
    """The page with its table as it ought to be."""
    return PLACE.sub(lambda _: f"<!-- tiers -->\n{''.join(rows())}", page)


def test_the_table_is_that_of_the_code() -> None:
    page = PAGE.read_text()
    assert page == written(page), "run: python -m tests.contract.test_contract_tiers"


@pytest.mark.parametrize("type_", sorted(set(KINDS) - {
    "expect_column_kl_divergence_to_be_less_than", "expect_column_values_to_be_dateutil_parseable"}))
def test_what_has_to_be_compiled_is(type_: str) -> None:
    """On the columns it is meant for."""
    text = any(part in type_ for part in ("regex", "lengths", "parseable", "json_schema", "strftime"))
    types, value, bound = TYPES["text" if text else "whole numbers"]
    assert {tier(type_, of, value, bound)[1] for of in types} == {"compiled"}


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
