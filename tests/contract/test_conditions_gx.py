"""What is wrong with a row condition is said. What they keep: test_contracts_differential.py."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from headrace.contracts import parse
from headrace.contracts.conditions import compile_condition
from headrace.contracts.suite import Expectation
from headrace.errors import SuiteError
from tests.contract.gx_cases.batches import COLUMNS

pytestmark = pytest.mark.contract


def one(type_: str, kwargs: dict[str, Any]) -> Expectation:
    return parse({"expectations": [{"type": type_, "kwargs": kwargs}]}, "suite").expectations[0]


def comparison(operator: str, parameter: Any) -> dict[str, Any]:
    return {"type": "comparison", "column": {"name": "s"}, "operator": operator, "parameter": parameter}


CODE = {"type": "pass_through", "pass_through_filter": "i64 > 5"}
NULL = {"type": "nullity", "column": {"name": "s"}, "is_null": True}


@pytest.mark.parametrize(("written", "why"), [
    ("i64 > 5", "would run as code"), (CODE, "code"), ({**CODE, "conditions": []}, "code"),
    ({"type": "or", "conditions": [CODE]}, "code"), ({**NULL, "column": {"name": "none"}}, "not there\n.*there are i8"),
    (comparison("=", 1), "operator"), (comparison("==", None), "nullity"), (comparison("IN", "a"), "is a list"),
    (comparison("IN", ["a", 1]), "only"), ({"type": "or", "conditions": [NULL] * 101}, "more than 100"),
    ({"type": "or", "conditions": [{"type": "or", "conditions": [NULL]}]}, "or inside an or"),
    ({"type": "and", "conditions": [{"type": "or", "conditions": [NULL]}]}, "or inside an and"),
    ({"column": {"name": "s"}}, "write it as")])
def test_what_is_wrong_is_said(written: Any, why: str) -> None:
    schema = pa.schema([(name, type_) for name, (type_, _) in COLUMNS.items()])
    with pytest.raises(SuiteError, match=why) as told:
        compile_condition(one("expect_column_values_to_be_null", {"column": "s", "row_condition": written}), schema)
    assert str(told.value).startswith("suite: column_values_to_be_null__s")
