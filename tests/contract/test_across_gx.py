"""Kernels over a whole batch (duplicates, order, z-scores, outliers): many rows, values on a bound, parts of a batch,
and what they leave. All else: test_contracts_differential.py."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headrace.contracts import parse
from headrace.contracts.across import compound_unique, order, outliers, unique, z_scores
from headrace.contracts.kernels import Kernel
from headrace.contracts.suite import Expectation
from headrace.errors import SuiteError
from tests.contract.gx_cases.batches import COLUMNS
from tests.contract.gx_compare import agree
from tests.contract.gx_oracle import Oracle, quiet

pytestmark = pytest.mark.contract

COMPILERS: dict[str, Callable[[Expectation, pa.Schema], Kernel | str]] = {
    "expect_column_values_to_be_unique": unique, "expect_compound_columns_to_be_unique": compound_unique,
    "expect_column_values_to_be_increasing": order, "expect_column_values_to_be_decreasing": order,
    "expect_column_value_z_scores_to_be_less_than": z_scores, "expect_column_values_to_not_be_outliers": outliers}


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with quiet() as made:
        yield made


def compiled(written: dict[str, Any], schema: pa.Schema) -> tuple[Expectation, Kernel | str]:
    e = parse({"expectations": [written]}, "suite").expectations[0]
    return e, COMPILERS[e.type](e, schema)


def test_numbers_added_up_as_pandas_adds_them(oracle: Oracle) -> None:
    """Enough rows for sums to be made in portions, and bounds that are the very distance of some value: a mean or a
    deviation off by its last bit puts that value on the other side."""
    rng = random.Random(5)
    numbers, n = np.random.default_rng(5), 20_000
    draws = (numbers.integers(10**17, 10**17 + 10**6, n) for _ in range(100))
    whole = next(v for v in draws if v.sum(dtype=np.float64) != v.astype(np.float64).sum())  # its portions matter
    rows = pa.record_batch({
        "f64": pa.array(numbers.normal(size=n)), "f32": pa.array(numbers.normal(size=n).astype(np.float32)),
        "i64": pa.array(whole), "u8": pa.array(numbers.integers(0, 7, n), pa.uint8()),
        "nulls": pa.array([None if at % 5 == 0 else at * at for at in range(n)], pa.int32())})
    frame, written = rows.to_pandas(), []
    for name in rows.schema.names:
        column = frame[name]
        far = ((column - column.mean()) / column.std()).dropna().abs()
        for bound in rng.sample(far.tolist(), 12):
            written += [{"type": "expect_column_value_z_scores_to_be_less_than",
                         "kwargs": {"column": name, "threshold": bound, "double_sided": True}},
                        {"type": "expect_column_values_to_not_be_outliers",
                         "kwargs": {"column": name, "method": "std", "multiplier": bound}}]
        written += [{"type": "expect_column_values_to_not_be_outliers", "kwargs": {"column": name, "multiplier": bound}}
                    for bound in (0, 0.1, 0.5)]
    agree(oracle, rows, written, {"compiled"})


def test_a_value_on_the_bound(oracle: Oracle) -> None:
    """The deviation of -3, 0, 3 is 3, of a sample."""
    rows = pa.record_batch({name: pa.array([-3, 0, 3, None], kind) for name, kind in (
        ("i", pa.int64()), ("f", pa.float64()), ("g", pa.float32()))})
    written = [{"type": type_, "kwargs": {"column": name, **kwargs}} for name in "ifg" for type_, kwargs in (
        ("expect_column_values_to_not_be_outliers", {"method": "std", "multiplier": 1}),
        ("expect_column_values_to_not_be_outliers", {"method": "iqr", "multiplier": 0.5}),
        ("expect_column_value_z_scores_to_be_less_than", {"threshold": 1, "double_sided": True}),
        ("expect_column_value_z_scores_to_be_less_than", {"threshold": 1, "double_sided": False}))]
    agree(oracle, rows, written, {"compiled"})


def test_a_part_of_a_batch_is_judged_as_a_batch() -> None:
    """Masks have the rows of the batch they are asked of, whatever lies around it in memory."""
    rows = pa.record_batch({"i": pa.array([9, 1, 2, None, 2, 0, 7], pa.int32())}).slice(1, 5)
    assert rows.num_rows == 5
    for type_, wanted in (("expect_column_values_to_be_unique", [1, 3]),
                          ("expect_column_values_to_be_increasing", [4])):
        _, kernel = compiled({"type": type_, "kwargs": {"column": "i"}}, rows.schema)
        assert isinstance(kernel, Kernel)
        hit = kernel.bad(rows)
        assert hit is not None
        assert pc.indices_nonzero(hit).to_pylist() == wanted


@pytest.mark.parametrize(("type_", "kwargs", "why"), [
    ("expect_column_values_to_be_increasing", {"column": "d"}, "date32"),
    ("expect_column_values_to_be_increasing", {"column": "i8", "strictly": "yes"}, "strictly"),
    ("expect_column_values_to_be_unique", {"column": "tm"}, "time32"),
    ("expect_compound_columns_to_be_unique", {"column_list": ["i8", "tm"]}, "time32"),
    ("expect_compound_columns_to_be_unique", {"column_list": ["i8", "b"], "ignore_row_if": "x"}, "ignore_row_if"),
    ("expect_column_value_z_scores_to_be_less_than", {"column": "i8", "threshold": 1}, "double_sided"),
    ("expect_column_values_to_not_be_outliers", {"column": "ts"}, "outliers among"),
    ("expect_column_values_to_not_be_outliers", {"column": "i8", "multiplier": "1"}, "multiplier")])
def test_what_is_left_to_great_expectations(type_: str, kwargs: dict[str, Any], why: str) -> None:
    schema = pa.schema([(name, kind) for name, (kind, _) in COLUMNS.items()])
    _, told = compiled({"type": type_, "kwargs": kwargs}, schema)
    assert isinstance(told, str)
    assert why in told


@pytest.mark.parametrize(("type_", "kwargs", "why"), [
    ("expect_compound_columns_to_be_unique", {"column_list": ["i8"]}, "two columns or more"),
    ("expect_column_values_to_not_be_outliers", {"column": "i8", "method": "mad"}, "method is iqr or std")])
def test_what_is_wrong_is_said(oracle: Oracle, type_: str, kwargs: dict[str, Any], why: str) -> None:
    schema = pa.schema([(name, kind) for name, (kind, _) in COLUMNS.items()])
    written = {"type": type_, "kwargs": kwargs}
    assert not oracle.takes(written)
    with pytest.raises(SuiteError, match=why):
        compiled(written, schema)
