"""Partials of aggregates: states add up over batches, are the same bytes for the same rows, and say what is estimated.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.contracts.aggregates import AGGREGATES, Aggregate, tally
from headrace.contracts.aggregates.columns import NAT
from headrace.contracts.aggregates.ranks import ROOM
from headrace.contracts.suite import Expectation
from headrace.errors import SuiteError

pytestmark = pytest.mark.unit

SCHEMA = pa.schema({
    "i": pa.int64(), "u": pa.uint64(), "f": pa.float64(), "h": pa.float32(), "s": pa.string(), "b": pa.bool_(),
    "t": pa.timestamp("us", "UTC"), "d": pa.date32(), "n": pa.decimal128(9, 2),
    "k": pa.dictionary(pa.int8(), pa.string())})
SETS = {"i": [1, 2.0, 77], "f": [0.5, 1], "s": ["a", "zz"], "b": [True], "t": ["2013-02-08T00:00:00Z"],
        "d": ["2013-02-08"], "u": [1], "h": [0.5]}
QUANTILES = {"quantiles": [0.25, 0.5], "value_ranges": [[0, 5], [None, 9]]}


def made(type_: str, schema: pa.Schema = SCHEMA, **kwargs: Any) -> Aggregate:
    out = AGGREGATES[type_](Expectation("id", type_, kwargs, "critical", "suite.json"), schema)
    assert not isinstance(out, str), out
    return out


def between(what: str, column: str, **kwargs: Any) -> Aggregate:
    return made(f"expect_column_{what}_to_be_between", column=column, **kwargs)


def every() -> list[tuple[str, Aggregate]]:
    """An aggregate of each type, on each column that it takes."""
    out = []
    for type_ in AGGREGATES:
        for column in SCHEMA.names if "_table_" not in type_ else [""]:
            kwargs: dict[str, Any] = {"column": column} if column else {}
            if "_set" in type_:
                kwargs["value_set"] = SETS.get(column, ["a"])
            elif "quantile" in type_:
                kwargs["quantile_ranges"] = QUANTILES
            elif type_ == "expect_table_row_count_to_equal":
                kwargs["value"] = 60
            try:
                found = AGGREGATES[type_](Expectation("id", type_, kwargs, "critical", "suite.json"), SCHEMA)
            except SuiteError:
                continue
            if not isinstance(found, str):
                out.append((f"{type_} {column}", found))
    return out


EVERY = every()


def rows(seed: int, n: int, nulls: float = 0.2) -> pa.RecordBatch:
    rng = random.Random(seed)
    day = dt.datetime(2013, 2, 8, tzinfo=dt.UTC)
    pools: list[list[Any]] = [
        [1, 2, 3, 2**53 + 1, -5], [0, 1, 2**63 + 5], [0.0, -0.0, 0.5, float("nan"), 1 / 3, 1e9],
        [0.5, 2.5, float("nan")],
        ["", "a", "b", "ÄÖ"], [True, False], [day, day + dt.timedelta(microseconds=1)],
        [dt.date(2013, 2, 8), dt.date(1900, 1, 1)], [None], ["x"]]
    return pa.RecordBatch.from_arrays(
        [pa.array([None if rng.random() < nulls else rng.choice(pool) for _ in range(n)], type=field.type)
         for pool, field in zip(pools, SCHEMA, strict=True)], schema=SCHEMA)


def folded(aggregate: Aggregate, parts: list[pa.RecordBatch]) -> bytes:
    partial = aggregate.partial
    assert partial is not None
    state = partial.of(parts[0])
    for part in parts[1:]:
        state = partial.merge(state, partial.of(part))
    return state


def near(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(near(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(near, a, b))
    if isinstance(a, float):
        return isinstance(b, float) and (math.isclose(a, b, rel_tol=1e-6) or (math.isnan(a) and math.isnan(b)))
    if isinstance(a, dt.datetime):
        return bool(abs(a - b) < dt.timedelta(milliseconds=1))
    return bool(a == b)


def test_there_is_something_to_test() -> None:
    assert {name.split()[0] for name, _ in EVERY} == set(AGGREGATES)
    assert len(EVERY) > 90


@pytest.mark.parametrize(("name", "aggregate"), EVERY, ids=[n for n, _ in EVERY])
def test_states_add_up(name: str, aggregate: Aggregate) -> None:
    partial, empty = aggregate.partial, rows(0, 0)
    assert partial is not None
    a, b, c = rows(1, 30), rows(2, 25, 0), rows(3, 5, 1)
    all_ = pa.Table.from_batches([a, b, c]).combine_chunks().to_batches()[0]
    wanted = aggregate.judge(all_)
    left, right = folded(aggregate, [a, b, c]), partial.merge(partial.of(a), folded(aggregate, [b, c]))
    for state in (left, right, partial.merge(partial.of(empty), left), partial.merge(left, partial.of(empty))):
        verdict = partial.verdict(state)
        assert verdict.success == wanted.success
        assert near(dict(verdict.result), dict(wanted.result)), (verdict, wanted)
    assert partial.verdict(partial.of(all_)) == wanted
    for none in (empty, c):
        assert str(partial.verdict(partial.of(none))) == str(aggregate.judge(none))
    both = [folded(aggregate, [empty, c]), folded(aggregate, [c, empty])]
    assert [str(partial.verdict(s)) for s in both] == [str(aggregate.judge(c))] * 2
    assert not partial.estimated(left)  # type: ignore[attr-defined]


SCRIPT = """
import hashlib
from tests.unit.test_contract_partials import EVERY, folded, many, rows
for name, aggregate in EVERY:
    print(name, hashlib.sha256(folded(aggregate, [rows(1, 30), rows(2, 25, 0)])).hexdigest())
for aggregate, parts in many():
    print(hashlib.sha256(folded(aggregate, parts)).hexdigest())
"""


def many() -> list[tuple[Aggregate, list[pa.RecordBatch]]]:
    """Aggregates over more than is kept exactly."""
    rng = np.random.default_rng(5)
    schema = pa.schema({"i": pa.int64(), "s": pa.string()})
    values = rng.integers(0, 30_000, (6, 9_000))
    parts = [pa.record_batch([pa.array(v), pa.array([f"k{x}" for x in v])], schema=schema) for v in values]
    return [(made(type_, schema, **kwargs), parts) for type_, kwargs in (
        ("expect_column_unique_value_count_to_be_between", {"column": "s"}),
        ("expect_column_most_common_value_to_be_in_set", {"column": "i", "value_set": [1]}),
        ("expect_column_distinct_values_to_be_in_set", {"column": "s", "value_set": ["k1", "no"]}),
        ("expect_column_median_to_be_between", {"column": "i"}))]


def test_the_same_rows_give_the_same_bytes_in_every_process() -> None:
    root = Path(__file__).resolve().parents[2]
    told = [subprocess.run([sys.executable, "-c", SCRIPT], cwd=root, check=True, capture_output=True, text=True,
                           env={**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": seed}).stdout
            for seed in ("1", "2")]
    assert told[0] == told[1]
    assert told[0].count("\n") == len(EVERY) + 4
    aggregate, parts = many()[-1]
    assert hashlib.sha256(folded(aggregate, parts)).hexdigest() in told[0]


def one(column: str, values: list[Any], type_: pa.DataType | None = None) -> pa.RecordBatch:
    type_ = type_ or SCHEMA.field(column).type
    return pa.record_batch([pa.array(values, type_)], names=[column])


def test_a_null_that_comes_later_makes_floats_of_whole_numbers() -> None:
    """As in pandas, for which the whole window is one column."""
    large, null = one("i", [2**53, 2**53 + 1]), one("i", [None])
    for what, exact, floats in (("max", 2**53 + 1, 2.0**53), ("sum", 2**54 + 1, 2.0**54), ("unique_value_count", 2, 1)):
        aggregate = between(what, "i")
        assert aggregate.partial is not None
        assert aggregate.partial.verdict(aggregate.partial.of(large)).result == {"observed_value": exact}
        got = aggregate.partial.verdict(folded(aggregate, [large, null])).result["observed_value"]
        assert (got, type(got)) == (floats, type(floats))


@pytest.mark.parametrize("column", ["i", "u"])
def test_whole_numbers_may_come_as_floats(column: str) -> None:
    """As they must where a condition left out the rows without a value, for which pandas made floats of the others."""
    some = [2**63 - 1 if column == "i" else 2**64 - 1, 5, 5, 2**53 + 1]
    parts = [one(column, some), one(column, [float(v) for v in some], pa.float64()), one(column, [])]
    all_ = one(column, [float(v) for v in [*some, *some]], pa.float64())
    tried = 0
    for name, aggregate in EVERY:
        if name.endswith(f" {column}") and aggregate.partial is not None:
            for order in (parts, parts[::-1]):
                got, wanted = aggregate.partial.verdict(folded(aggregate, order)), aggregate.judge(all_)
                assert near(dict(got.result), dict(wanted.result)), (name, got, wanted)
            tried += 1
    assert tried == 14
    mode = made("expect_column_most_common_value_to_be_in_set", column=column, value_set=[7])
    assert mode.partial is not None
    large = [one(column, list(range(11_000))), one(column, [7.0] * 500, pa.float64())]
    assert mode.partial.verdict(folded(mode, large)).result == {"observed_value": [7.0]}


def test_a_sum_runs_over_as_64_bits_do() -> None:
    parts = [one("i", [2**62]), one("i", [2**62])]
    aggregate = between("sum", "i")
    assert aggregate.partial is not None
    assert aggregate.partial.verdict(folded(aggregate, parts)).result == {"observed_value": -(2**63)}
    assert between("sum", "u").judge(one("u", [2**63, 2**63])).result == {"observed_value": 0}


def test_mean_and_deviation_of_a_hundred_batches() -> None:
    rng = np.random.default_rng(3)
    values = [rng.normal(at, 2, rng.integers(1, 900)) for at in range(100)]
    parts = [one("f", list(v)) for v in values]
    for what in ("mean", "stdev", "sum"):
        aggregate = between(what, "f")
        assert aggregate.partial is not None
        got = aggregate.partial.verdict(folded(aggregate, parts)).result["observed_value"]
        wanted = aggregate.judge(one("f", list(np.concatenate(values)))).result["observed_value"]
        assert math.isclose(got, wanted, rel_tol=1e-12)


def test_no_timestamps_pass_where_there_are_no_bounds() -> None:
    assert between("max", "t").judge(one("t", [None])).result == {"observed_value": NAT}
    assert between("max", "t").judge(one("t", [])).success
    assert not between("max", "t", min_value="2013-02-08T00:00:00Z").judge(one("t", [])).success
    far = one("t", [2**62])
    assert between("max", "t").judge(far).result == {"observed_value": str(np.datetime64(2**62, "us"))}


def distinct_parts() -> list[pa.RecordBatch]:
    """25,000 distinct texts in five batches, one of them often."""
    return [one("s", [f"k{v:05}" for v in range(at, 25_000, 5)] + ["often"] * 300) for at in range(5)]


def test_distinct_values_beyond_the_limit_are_estimated() -> None:
    parts = distinct_parts()
    count, share = between("unique_value_count", "s"), between("proportion_of_unique_values", "s", max_value=1)
    for aggregate, wanted in ((count, 25_001), (share, 25_001 / 26_500)):
        assert aggregate.partial is not None
        assert aggregate.partial.estimate
        state = folded(aggregate, parts)
        assert aggregate.partial.estimated(state)  # type: ignore[attr-defined]
        assert math.isclose(aggregate.partial.verdict(state).result["observed_value"], wanted, rel_tol=0.03)
        assert len(state) < 20_000
        few = folded(aggregate, [p.slice(0, 2_000) for p in parts])
        assert not aggregate.partial.estimated(few)  # type: ignore[attr-defined]
    assert count.partial is not None
    assert count.partial.verdict(folded(count, [p.slice(0, 2_000) for p in parts])).result["observed_value"] == 10_000
    assert tally.EXACT == 10_000


def test_a_set_is_watched_however_many_values_come() -> None:
    parts, watched = distinct_parts(), ["k00003", "k24999", "often", "no"]
    kinds = {w: made(f"expect_column_distinct_values_to_{w}_set", column="s", value_set=watched)
             for w in ("be_in", "contain", "equal")}
    results = {w: a.partial.verdict(folded(a, parts)) for w, a in kinds.items() if a.partial is not None}
    assert results["contain"].result == {"observed_value": None, "missing_count": 1, "partial_missing_list": ["no"]}
    assert not kinds["contain"].partial.estimate  # type: ignore[union-attr]
    least = [f"k{v:05}" for v in range(21) if v != 3]
    for which in ("be_in", "equal"):
        assert not results[which].success
        assert results[which].result["partial_unexpected_list"] == least
        assert math.isclose(results[which].result["unexpected_count"], 24_998, rel_tol=0.03)


def test_the_most_common_value_among_many_is_found() -> None:
    for column, parts in (("s", distinct_parts()),
                          ("i", [one("i", [*range(at, 25_000, 5), *([7] * 300)]) for at in range(5)]),
                          ("u", [one("u", [*range(2**63, 2**63 + 12_000), *([2**63 + 7] * 300)])]),
                          ("t", [one("t", [*range(at, 25_000, 5), *([7] * 300)]) for at in range(5)]),
                          ("f", [one("f", [*(v / 8 for v in range(at, 25_000, 5)), *([0.875] * 300)])
                                 for at in range(5)])):
        aggregate = made("expect_column_most_common_value_to_be_in_set", column=column,
                         value_set=["often", *([7, 0.875, 2**63 + 7] if column != "t" else [])])
        assert aggregate.partial is not None
        state = folded(aggregate, parts)
        assert aggregate.partial.estimated(state)  # type: ignore[attr-defined]
        assert aggregate.partial.verdict(state) == aggregate.judge(pa.Table.from_batches(parts).combine_chunks()
                                                                   .to_batches()[0]), column


@pytest.mark.parametrize("order", ["shuffled", "sorted", "reversed", "sawtooth"])
def test_quantiles_of_many_values_are_near(order: str) -> None:
    n, points = 300_000, [0.0, 0.01, 0.25, 0.5, 0.9, 0.999, 1.0]
    values = np.arange(n)
    if order == "shuffled":
        values = np.random.default_rng(1).permutation(n)
    elif order != "sorted":
        values = values[::-1] if order == "reversed" else values.reshape(30, -1).T.ravel()
    aggregate = made("expect_column_quantile_values_to_be_between", column="i",
                     quantile_ranges={"quantiles": points, "value_ranges": [[None, None]] * 7})
    median = between("median", "i")
    parts = [one("i", part.tolist()) for part in np.array_split(values, 77)]
    for each in (aggregate, median):
        assert each.partial is not None
        state = folded(each, parts)
        assert each.partial.estimated(state)  # type: ignore[attr-defined]
        got = each.partial.verdict(state).result["observed_value"]
        ranks = got["values"] if isinstance(got, dict) else [got]
        for rank, point in zip(ranks, points if len(ranks) > 1 else [0.5], strict=True):
            assert abs(rank - point * n) <= n * 8 / (2 * ROOM) + 1, (order, point, rank)
        assert len(state) < 8 * ROOM * 8
    assert isinstance(ranks[0], float)
    assert isinstance(aggregate.partial.verdict(folded(aggregate, parts)).result[  # type: ignore[union-attr]
        "observed_value"]["values"][0], int)


def test_infinities_are_ranked() -> None:
    values = [float("inf")] * 6_000 + [1.0] * 2_000 + [float("-inf")] * 2_000
    aggregate = between("median", "f")
    assert aggregate.partial is not None
    parts = [one("f", values[at:at + 1_000]) for at in range(0, 10_000, 1_000)]
    assert aggregate.partial.verdict(folded(aggregate, parts)).result == {"observed_value": math.inf}


@pytest.mark.parametrize(("type_", "kwargs", "told"), [
    ("expect_column_mean_to_be_between", {"column": "s"}, "has no mean"),
    ("expect_column_sum_to_be_between", {"column": "t"}, "has no sum"),
    ("expect_column_median_to_be_between", {"column": "d"}, "has no median"),
    ("expect_column_max_to_be_between", {"column": "s", "max_value": 5}, "the column is text"),
    ("expect_column_max_to_be_between", {"column": "i", "max_value": "2013-02-08"}, "a bound is the text"),
    ("expect_column_max_to_be_between", {"column": "t", "max_value": "2013-02-08"}, "write it as"),
    ("expect_column_max_to_be_between", {"column": "t", "max_value": "2013-02-08T00:00:00"}, "time zone"),
    ("expect_column_min_to_be_between", {"column": "d", "min_value": "2013-02-08T00:00:00"}, "is not one"),
    ("expect_column_quantile_values_to_be_between", {"column": "i"}, "quantile_ranges is None"),
    ("expect_column_quantile_values_to_be_between", {"column": "i", "quantile_ranges": {
        "quantiles": [1.5], "value_ranges": [[1, 2]]}}, "between 0 and 1"),
    ("expect_column_quantile_values_to_be_between",
     {"column": "i", "quantile_ranges": QUANTILES, "allow_relative_error": "some"}, "allow_relative_error"),
    ("expect_column_distinct_values_to_be_in_set", {"column": "i", "value_set": []}, "empty"),
    ("expect_column_distinct_values_to_be_in_set", {"column": "i"}, "value_set is None"),
    ("expect_table_row_count_to_be_between", {"min_value": 5, "max_value": 3}, "swap them"),
    ("expect_table_row_count_to_equal", {}, "value is missing")])
def test_what_could_only_ever_fail_is_refused(type_: str, kwargs: dict[str, Any], told: str) -> None:
    with pytest.raises(SuiteError) as caught:
        made(type_, **kwargs)
    assert told in f"{caught.value} {caught.value.hint}"
    assert "suite.json: id" in str(caught.value)


@pytest.mark.parametrize(("type_", "kwargs", "told"), [
    ("expect_column_max_to_be_between", {"column": "n"}, "decimal128"),
    ("expect_column_unique_value_count_to_be_between", {"column": "k"}, "dictionary"),
    ("expect_column_stdev_to_be_between", {"column": "t"}, "span of time"),
    ("expect_column_sum_to_be_between", {"column": "s"}, "sum of text"),
    ("expect_column_max_to_be_between", {"column": "s", "max_value": "2013-02-08"}, "for a column of text"),
    ("expect_column_max_to_be_between", {"column": "i", "max_value": "5"}, "unusual form"),
    ("expect_column_max_to_be_between", {"column": "i", "strict_max": "yes"}, "strict_max"),
    ("expect_column_most_common_value_to_be_in_set", {"column": "i", "value_set": [[1]]}, "[1]"),
    ("expect_column_distinct_values_to_be_in_set", {"column": "t", "value_set": ["noon"]}, "unusual forms")])
def test_what_needs_pandas_is_left_to_great_expectations(type_: str, kwargs: dict[str, Any], told: str) -> None:
    out = AGGREGATES[type_](Expectation("id", type_, kwargs, "critical", "suite.json"), SCHEMA)
    assert isinstance(out, str)
    assert told in out


def test_says_is_a_sentence() -> None:
    says = between("mean", "i", min_value=1, max_value=2).says
    assert says.format(7.5) == "the mean of i is 7.5, not between 1 and 2"
    odd = made("expect_column_distinct_values_to_be_in_set", column="s", value_set=["{x}"]).says
    assert odd.format(None) == "the values of s are not within the set ({x})"
