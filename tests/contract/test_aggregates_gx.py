"""Aggregates: their partials against their verdicts, on generated batches at once and in parts; and where a careless
reading of Great Expectations goes wrong. All else about their verdicts: test_contracts_differential.py.
"""

from __future__ import annotations

import datetime as dt
import math
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.contracts import parse
from headrace.contracts.aggregates import AGGREGATES, Aggregate
from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict
from headrace.errors import SuiteError
from tests.contract.gx_cases import Case, case
from tests.contract.gx_cases.aggregates import AGGREGATES_
from tests.contract.gx_cases.batches import BIG, INF, NUMBERS
from tests.contract.gx_compare import agree, ours
from tests.contract.gx_oracle import Oracle, quiet

pytestmark = pytest.mark.contract

SEEDS, EACH = 60, 36
COUNTED: Counter[str] = Counter()


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with quiet() as made:
        yield made


def same(left: Any, right: Any, near: float = 0.0, by: float = 0.0) -> bool:
    """Equal, of one type; NaN equals NaN; floats within `near`, relatively, or within `by`."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k], near, by) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same(a, b, near, by) for a, b in zip(left, right, strict=True))
    if type(left) is not type(right):
        return False
    if isinstance(left, dt.datetime) and near:  # a mean, in floats
        return bool(abs(left - right) <= dt.timedelta(milliseconds=1))
    if isinstance(left, float):
        return left == right or (math.isnan(left) and math.isnan(right)) or bool(
            near and math.isclose(left, right, rel_tol=near, abs_tol=by))
    return bool(left == right)


def rounding(e: Expectation, rows: pa.RecordBatch) -> float:
    """By how much a sum of these numbers depends on the order they are added in."""
    column = e.kwargs.get("column")
    if column not in (*NUMBERS, "b") or not any(f"_{w}_" in e.type for w in ("mean", "stdev", "sum")):
        return 0.0
    sizes = [abs(float(v)) for v in rows.column(column).to_pylist() if v is not None and math.isfinite(v)]
    return 2.0**-50 * sum(sizes) * (2.0**29 if column in ("f32", "g32") else 1)


def partials(made: Aggregate, verdict: Verdict, rows: pa.RecordBatch, rng: random.Random, told: str,
             by: float) -> None:
    partial = made.partial
    assert partial is not None, told
    state = partial.of(rows)
    assert same([partial.verdict(state).success, dict(partial.verdict(state).result)],
                [verdict.success, dict(verdict.result)]), f"{told}: {partial.verdict(state)} and {verdict}"
    cuts = sorted(rng.randint(0, rows.num_rows) for _ in range(3))
    state = partial.of(rows.slice(0, cuts[0]))
    for start, stop in zip(cuts, [*cuts[1:], rows.num_rows], strict=True):
        state = partial.merge(state, partial.of(rows.slice(start, stop - start)))
    ours = partial.verdict(state)
    assert same(dict(ours.result), dict(verdict.result), 1e-9, by), f"{told} at {cuts}: {ours} and {verdict}"
    if same(dict(ours.result), dict(verdict.result)):
        assert ours.success == verdict.success, told


@pytest.mark.parametrize("seed", range(SEEDS))
def test_partials_have_the_verdicts_of_aggregates(seed: int) -> None:
    rng, asked = random.Random(seed), case(seed, EACH, [t for t in AGGREGATES_ if t in AGGREGATES])
    for e in parse({"expectations": [e for e in asked.written if "$" not in str(e)]}, "suite").expectations:
        told = f"seed {seed}: {e} on {asked.rows.num_rows} rows"
        try:
            made = AGGREGATES[e.type](e, asked.rows.schema)
        except SuiteError:
            continue
        if not isinstance(made, str):
            COUNTED[e.type] += 1
            verdict = made.judge(asked.rows)
            partials(made, verdict, asked.rows, rng, told, rounding(e, asked.rows))
            assert isinstance(made.says.format(verdict.result.get("observed_value")), str)


def test_enough_was_asked() -> None:
    """Run with the test above."""
    if COUNTED.total() < SEEDS:
        pytest.skip("needs the whole module")
    assert set(COUNTED) == set(AGGREGATES)
    assert min(COUNTED.values()) >= 30, COUNTED


def test_traps(oracle: Oracle) -> None:
    """Where a careless reading goes wrong: each verdict, written out and compared."""
    rows = pa.record_batch({
        "h": pa.array([0.1, 0.1, None], pa.float32()), "i": pa.array([BIG + 1, BIG + 1, 1]),
        "n": pa.array([BIG + 1, BIG, None]), "t": pa.array([None, None, None], pa.timestamp("us")),
        "f": pa.array([INF, 1.0, None]), "z": pa.array([-0.0, 0.0, 1.0])})
    cases: list[tuple[bool, str, dict[str, Any]]] = [
        (True, "column_max_to_be_between", {"column": "h", "max_value": 0.1}),
        (True, "column_mean_to_be_between", {"column": "h", "max_value": 0.1}),
        (False, "column_distinct_values_to_be_in_set", {"column": "h", "value_set": [0.1]}),
        (True, "column_max_to_be_between", {"column": "i", "max_value": BIG}),
        (False, "column_distinct_values_to_contain_set", {"column": "i", "value_set": [BIG]}),
        (True, "column_unique_value_count_to_be_between", {"column": "n", "max_value": 1}),
        (True, "column_max_to_be_between", {"column": "t"}),
        (False, "column_max_to_be_between", {"column": "t", "max_value": "2100-01-01T00:00:00"}),
        (True, "column_mean_to_be_between", {"column": "f", "min_value": 5}),
        (False, "column_stdev_to_be_between", {"column": "f", "min_value": 0}),
        (True, "column_most_common_value_to_be_in_set", {"column": "z", "value_set": [0]}),
        (False, "column_distinct_values_to_equal_set", {"column": "t", "value_set": ["2013-02-08"]}),
        (True, "column_unique_value_count_to_be_between", {"column": "i", "max_value": 2.9, "min_value": 2.1})]
    written = [{"type": f"expect_{what}", "kwargs": kwargs} for _, what, kwargs in cases]
    agree(oracle, rows, written, {"compiled"})
    verdicts = [each.verdict for _, each in sorted(ours(Case(0, rows, written, {})).items())]
    assert [v and v.success for v in verdicts] == [success for success, _, _ in cases]


def test_large_batches_are_the_same_to_the_last_bit(oracle: Oracle) -> None:
    """Where numpy adds up in blocks, the order matters."""
    rng, n = np.random.default_rng(7), 30_000
    mask = rng.random(n) < 0.1
    ints = rng.integers(-(2**60), 2**60, n)
    rows = pa.record_batch({
        "f": pa.array(rng.normal(1e6, 3, n)), "fn": pa.array(rng.normal(0, 1, n), mask=mask),
        "h": pa.array(rng.normal(5, 2, n).astype(np.float32)),
        "hn": pa.array(rng.normal(5, 2, n).astype(np.float32), mask=mask),
        "i": pa.array(ints), "in": pa.array(ints, mask=mask), "b": pa.array(rng.random(n) < 0.3, mask=mask),
        "t": pa.array(ints // 2**10, pa.timestamp("us"), mask=mask),
        "s": pa.array([f"k{v % 25_000}" for v in ints], mask=mask)})
    written: list[dict[str, Any]] = [
        {"type": f"expect_column_{what}_to_be_between", "kwargs": {"column": c, "min_value": 0}}
        for what in ("mean", "stdev", "sum", "median", "max", "unique_value_count", "proportion_of_unique_values")
        for c in ("f", "fn", "h", "hn", "i", "in", "b")]
    written += [{"type": f"expect_column_{what}_to_be_between", "kwargs": {"column": c}} for c, what in (
        ("t", "mean"), ("t", "median"), ("t", "min"), ("t", "unique_value_count"), ("s", "unique_value_count"))]
    written += [{"type": "expect_column_quantile_values_to_be_between", "kwargs": {"column": c, "quantile_ranges": {
        "quantiles": [0.001, 0.4999, 0.99], "value_ranges": [[None, 3], [0, None], [1, 2]]}, **method}}
        for c in ("f", "fn", "h", "hn", "i", "in") for method in ({}, {"allow_relative_error": "linear"})]
    written += [{"type": f"expect_column_{what}_set", "kwargs": {"column": "s", "value_set": ["k1", "k2", "no"]}}
                for what in ("most_common_value_to_be_in", "distinct_values_to_be_in", "distinct_values_to_equal")]
    agree(oracle, rows, written, {"compiled"})
