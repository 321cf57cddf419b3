"""What is borrowed of Great Expectations, and what is not. Its verdicts: test_contracts_differential.py."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from headrace.contracts import parse
from headrace.contracts.borrowed import borrow
from headrace.errors import SuiteError

pytestmark = pytest.mark.contract


@pytest.mark.parametrize(("type_", "kwargs", "why"), [
    ("expect_column_mean_to_be_between", {"column": "i", "min_value": 1}, "no metric function"),
    ("expect_column_values_to_be_of_type", {"column": "i", "type_": "int64"}, "no metric function"),
    ("expect_column_values_to_match_like_pattern", {"column": "i", "like_pattern": "a%"}, "on pandas"),
    ("expect_column_values_to_be_unique", {"column": "i", "row_condition": {
        "type": "comparison", "column": {"name": "i"}, "operator": "<", "parameter": "a"}}, "row_condition on i"),
    ("expect_column_pair_values_to_be_equal", {"column_A": "i", "column_B": "i"}, "beside itself"),
    ("expect_column_pair_values_to_be_in_set", {"column_A": "i", "column_B": "j", "value_pairs_set": [[1, 1]],
                                                "row_condition": {"type": "nullity", "column": {"name": "i"},
                                                                  "is_null": False}}, "outside its row_condition")])
def test_what_is_left_to_a_whole_validation(type_: str, kwargs: dict[str, Any], why: str) -> None:
    e = parse({"expectations": [{"type": type_, "kwargs": kwargs}]}, "suite").expectations[0]
    told = borrow(e, pa.schema([("i", pa.int64()), ("j", pa.int64())]))
    assert isinstance(told, str)
    assert why in told


def test_what_great_expectations_has_against_it() -> None:
    e = parse({"expectations": [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "i"}}]}, "suite")
    with pytest.raises(SuiteError, match="min_value and max_value cannot both be None"):
        borrow(e.expectations[0], pa.schema([("i", pa.int64())]))
