"""Compiled expectations against Great Expectations itself: the same rows, the same counts, the same success.

Batches are made of the values that part implementations (nulls, NaN, signed zeros, the ends of 64 bits, text beyond
ASCII, newlines, nothing at all), expectations of every compiled type with odd arguments among the usual ones.
"""

from __future__ import annotations

import datetime as dt
import random
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from headrace.contracts import compile_suite, parse
from headrace.errors import SuiteError

pytestmark = pytest.mark.contract

SEEDS = 36
BIG = 2**53
TEXTS = ["", "a", "b", "N123AA", "n123aa", "N1", "ÄÖ", "日本", "٣", "N٣", "a\n", "N1\n", "x\ny", "\x0b", " a ", "1",
         "1.0", "ſ", "\u212a", "[1, 2]", "{\"a\": 1}", "NaN", "2013-02-08", "2013-02-30", "e\u0301", "😀", "AAPL",
         "abc def", "null"]
UTC = dt.UTC
TIMES = [dt.datetime(2013, 2, 8), dt.datetime(2013, 2, 8, 0, 0, 0, 1), dt.datetime(1969, 12, 31, 23, 59, 59, 999999),
         dt.datetime(2013, 2, 9, 5), dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)]
POOLS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "i8": (pa.int8(), [-128, -1, 0, 1, 5, 127]), "i32": (pa.int32(), [-(2**31), -1, 0, 1, 2, 3, 5, 100, 2**31 - 1]),
    "j32": (pa.int32(), [-1, 0, 1, 2, 3, 5]), "u32": (pa.uint32(), [0, 1, 5, 2**32 - 1]),
    "i64": (pa.int64(), [-(2**63), -BIG - 1, 0, 1, 5, BIG - 1, BIG, BIG + 1, BIG + 2, 2**63 - 1]),
    "j64": (pa.int64(), [0, 1, 5, BIG, BIG + 1, 2**63 - 1]),
    "f64": (pa.float64(), [0.0, -0.0, 1.0, 0.1, 5.0, float("nan"), float("inf"), -float("inf"), 1e300, float(BIG)]),
    "f32": (pa.float32(), [0.0, -0.0, 1.0, 0.1, 5.0, float("nan"), float("inf"), 16777216.0]),
    "s": (pa.string(), TEXTS), "t": (pa.string(), TEXTS[:8]), "b": (pa.bool_(), [True, False]),
    "ts": (pa.timestamp("us"), TIMES), "ms": (pa.timestamp("ms"), [t.replace(microsecond=1000) for t in TIMES]),
    "tz": (pa.timestamp("us", "UTC"), [t.replace(tzinfo=UTC) for t in TIMES]),
    "uz": (pa.timestamp("us", "UTC"), [t.replace(tzinfo=UTC) for t in TIMES[:3]]),
    "d": (pa.date32(), [t.date() for t in TIMES])}
NUMBERS = [None, -1, 0, 1, 2.5, 5, 0.1, -0.0, 127, 128, -129, 2**31, 2**32, BIG - 1, BIG, BIG + 1, -BIG - 1, 2**63,
           1e300]
REGEXES = [r"^N\d", r"^[A-Z]", r"\d+$", r"^1$", r"\w\w", r"a|b", r"(?i)^n1", r"\s", r"^$", r".", r"\bN", r"[^a-z]",
           r"^N\d{1,5}[A-Z]{0,2}$", r"(?=a)", r"(a)\1?", "\u212a", r"(?i)k", r"(?i)s", r"\Aa\Z", r"[[:alpha:]]",
           r"\u00c4", r"a$", r"(?m)x$", r"\D", r"^\W", r"(?s)x.y", r"x.y", r"[\d]", r"\Ba"]
NUMERIC = ["i8", "i32", "j32", "u32", "i64", "j64", "f64", "f32"]


def batch(rng: random.Random) -> pa.RecordBatch:
    """Some rows: mostly a few, now and then none, or more than the 200 that Great Expectations shows."""
    n = rng.choice([0, 1, 2, 7, 20, 20, 50, 400])
    arrays = []
    for type_, pool in POOLS.values():
        nulls = rng.choice([0.0, 0.0, 0.2, 1.0])
        arrays.append(pa.array([None if rng.random() < nulls else rng.choice(pool) for _ in range(n)], type=type_))
    return pa.RecordBatch.from_arrays(arrays, names=list(POOLS))


def _bounds(rng: random.Random, column: str) -> dict[str, Any]:
    type_ = POOLS[column][0]
    if column in NUMERIC or column in ("s", "t", "b"):
        low, high = rng.choice(NUMBERS), rng.choice(NUMBERS)
    elif column == "d":
        low = rng.choice([None, "2013-02-08", "1900-01-01"])
        high = rng.choice([None, "2013-02-09", "2013-02-08T00:00:00"])
    else:
        z = "Z" if type_.tz else ""
        low = rng.choice([None, f"2013-02-08T00:00:00{z}", f"1969-12-31T23:59:59.999999{z}", "2013-02-08"])
        high = rng.choice([None, f"2013-02-08T00:00:00.000001{z}", f"2100-01-01T00:00:00{z}", "2013-02-09T00:00:00"])
    given = {k: v for k, v in (("min_value", low), ("max_value", high)) if v is not None}
    return given | {k: True for k in ("strict_min", "strict_max") if rng.random() < 0.3}


def _set(rng: random.Random, column: str) -> list[Any]:
    if column in ("s", "t"):
        return rng.sample(TEXTS, 4) + rng.choice([[], [1], [None]])
    if column == "b":
        return rng.choice([[True], [False], [True, False], []])
    if column in ("f64", "f32"):
        return rng.choice([[0.0, 1.0], [0, 1], [0.1], [-0.0], [5, 0.1, 1e300], [BIG + 1], []])
    return rng.choice([[1, 5], [0], [-1, 127, 300], [1.0, 5.0], [1.5], [BIG + 1], [BIG, 0], [BIG - 1], []])


def expectation(rng: random.Random) -> dict[str, Any]:  # a table of kinds, long but flat
    """One expectation of a compiled type."""
    kind = rng.choice(["null", "between", "between", "set", "set", "regex", "regex", "regexes", "length", "parse",
                       "pair", "pair", "list"])
    column = rng.choice(list(POOLS))
    text = rng.choice(["s", "t"])
    kwargs: dict[str, Any]
    match kind:
        case "null":
            type_ = rng.choice(["expect_column_values_to_be_null", "expect_column_values_to_not_be_null"])
            kwargs = {"column": column}
        case "between":
            type_, kwargs = "expect_column_values_to_be_between", {"column": column, **_bounds(rng, column)}
        case "set":
            column = rng.choice([*NUMERIC, "s", "t", "b"])
            type_ = rng.choice(["expect_column_values_to_be_in_set", "expect_column_values_to_not_be_in_set"])
            kwargs = {"column": column, "value_set": _set(rng, column)}
        case "regex":
            type_ = rng.choice(["expect_column_values_to_match_regex", "expect_column_values_to_not_match_regex"])
            kwargs = {"column": text, "regex": rng.choice(REGEXES)}
        case "regexes":
            type_ = rng.choice(["expect_column_values_to_match_regex_list",
                                "expect_column_values_to_not_match_regex_list"])
            kwargs = {"column": text, "regex_list": rng.sample(REGEXES, rng.choice([1, 2, 3]))}
            if "_not_" not in type_:
                kwargs["match_on"] = rng.choice(["any", "all"])
        case "length":
            if rng.random() < 0.5:
                type_ = "expect_column_value_lengths_to_equal"
                kwargs = {"column": text, "value": rng.choice([0, 1, 2, 6])}
            else:
                type_, low = "expect_column_value_lengths_to_be_between", rng.choice([None, 0, 1, 3])
                high = rng.choice([None if low is not None else 4, 2, 6])
                kwargs = {k: v for k, v in (("min_value", low), ("max_value", high)) if v is not None}
                kwargs |= {"column": text} | {k: True for k in ("strict_min", "strict_max") if rng.random() < 0.3}
        case "parse":
            type_, kwargs = rng.choice([
                ("expect_column_values_to_be_json_parseable", {"column": text}),
                ("expect_column_values_to_match_strftime_format", {"column": text, "strftime_format": "%Y-%m-%d"})])
        case "pair":
            family = rng.choice([NUMERIC, NUMERIC, ["s", "t"], ["tz", "uz"]])
            a, b = rng.choice(family), rng.choice(family)
            type_ = rng.choice(["expect_column_pair_values_to_be_equal",
                                "expect_column_pair_values_a_to_be_greater_than_b"])
            kwargs = {"column_A": a, "column_B": b}
            if "greater" in type_ and rng.random() < 0.5:
                kwargs["or_equal"] = True
            if rng.random() < 0.5:
                kwargs["ignore_row_if"] = rng.choice(["neither", "either_value_is_missing", "both_values_are_missing"])
        case _:
            type_ = rng.choice(["expect_multicolumn_values_to_be_equal", "expect_multicolumn_sum_to_equal",
                                "expect_select_column_values_to_be_unique_within_record"])
            family = ["i8", "j32", "i32"] if "sum" in type_ else rng.choice([["i8", "j32", "i32"], ["s", "t"]])
            kwargs = {"column_list": rng.sample(family, rng.choice([2, len(family)]))}
            if "sum" in type_:
                kwargs["sum_total"] = rng.choice([0, 1, 6, 2.0])
            if rng.random() < 0.5:
                kwargs["ignore_row_if"] = rng.choice(["never", "any_value_is_missing", "all_values_are_missing"])
    if rng.random() < 0.2:
        kwargs["mostly"] = rng.choice([0, 0.5, 0.9, 1])
    return {"type": type_, "kwargs": kwargs}


class Oracle:
    """Great Expectations, set up here on its own, not by headrace."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import great_expectations as gx
            from great_expectations.data_context.types.base import (
                DataContextConfig,
                InMemoryStoreBackendDefaults,
                ProgressBarsConfig,
            )
        context = gx.get_context(mode="ephemeral", project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False), analytics_enabled=False,
            progress_bars=ProgressBarsConfig(globally=False)))
        asset = context.data_sources.add_pandas("oracle").add_dataframe_asset("rows")
        self.batches, self.suite = asset.add_batch_definition_whole_dataframe("batch"), gx.ExpectationSuite

    def takes(self, written: dict[str, Any]) -> bool:
        try:
            self.suite(name="one", expectations=[written])
        except Exception:
            return False
        return True

    def judge(self, rows: pa.RecordBatch, written: list[dict[str, Any]]) -> dict[int, Any]:
        """Position → Great Expectations' result; expectations it refuses to build are absent."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batch = self.batches.get_batch(batch_parameters={"dataframe": rows.to_pandas()})
            built = [{**e, "id": str(at)} for at, e in enumerate(written) if self.takes(e)]
            done = batch.validate(self.suite(name="all", expectations=built),
                                  result_format={"result_format": "COMPLETE"})
        return {int(r.expectation_config.id): r for r in done.results}


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    import logging

    logging.disable(logging.CRITICAL)
    yield Oracle()
    logging.disable(logging.NOTSET)


TIERS: Counter[tuple[str, str]] = Counter()


def raised(result: Any) -> bool:
    return "raised_exception" not in result.exception_info or bool(result.exception_info["raised_exception"])


@pytest.mark.parametrize("seed", range(SEEDS))
def test_compiled_verdicts_are_those_of_great_expectations(oracle: Oracle, seed: int) -> None:
    rng = random.Random(seed)
    rows, written = batch(rng), [expectation(rng) for _ in range(40)]
    wanted = oracle.judge(rows, written)
    for at, e in enumerate(written):
        told = f"{e} on {rows.num_rows} rows"
        try:
            contract = compile_suite(parse({"expectations": [e]}, "suite"), rows.schema)
        except SuiteError:
            TIERS[e["type"], "refused"] += 1
            columns = [rows.column(c) for c in (e["kwargs"].get("column"),) if c]
            empty = not rows.num_rows or any(c.null_count == len(c) for c in columns)
            if at in wanted and not raised(wanted[at]) and not empty:
                pytest.fail(f"{told}: refused, and Great Expectations judges it")
            continue
        tier = contract.checks[0].tier
        TIERS[e["type"], tier] += 1
        if tier != "compiled":
            continue
        report, result = contract.check(rows), wanted[at]
        assert not raised(result), f"{told}: Great Expectations raises: {result.exception_info}"
        assert report.failures["row"].to_pylist() == result.result["unexpected_index_list"], told
        assert list(report.counts.values()) == [result.result["unexpected_count"]], told
        assert report.success == result.success, told


def test_the_comparison_above_compared_something() -> None:
    """Run with the test above: every compiled type was compiled often, and hardly anything ran whole."""
    if sum(TIERS.values()) < 40 * SEEDS:
        pytest.skip("needs the whole module")
    compiled = Counter({t: n for (t, tier), n in TIERS.items() if tier == "compiled"})
    assert len(compiled) == 18, sorted(compiled)
    assert min(compiled.values()) >= 10, compiled
    assert sum(compiled.values()) > 0.75 * sum(TIERS.values()), TIERS


def test_whole_expectations_are_great_expectations_own(oracle: Oracle) -> None:
    """What has no kernel gives the rows of Great Expectations, several at once, on more than the 200 rows it shows."""
    n = 1400
    rows = pa.record_batch({
        "i": pa.array([None if at % 7 == 0 else at % 5 for at in range(n)], pa.int32()),
        "j": pa.array([at % 3 for at in range(n)], pa.int32()),
        "s": pa.array([None if at % 11 == 0 else ["2013-02-08", "noon", "x"][at % 3] for at in range(n)]),
        "json": pa.array([["{\"a\": 1}", "[]", "{\"a\": \"x\"}", "3"][at % 4] for at in range(n)]),
        "u": pa.array([at % 4 for at in range(n)], pa.uint64())})
    condition = {"type": "comparison", "column": {"name": "j"}, "operator": ">", "parameter": 0}
    written: list[dict[str, Any]] = [
        {"type": "expect_column_values_to_be_dateutil_parseable", "kwargs": {"column": "s"}},
        {"type": "expect_column_pair_values_to_be_in_set",
         "kwargs": {"column_A": "i", "column_B": "j", "value_pairs_set": [[1, 1], [2, 2], [3, 0]]}},
        {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "i", "regex": r"^1"}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "u", "min_value": 2}},
        {"type": "expect_column_values_to_be_between",
         "kwargs": {"column": "i", "min_value": 2, "row_condition": condition}},
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "i", "value_set": ["1", 3]}},
        {"type": "expect_column_values_to_match_json_schema",
         "kwargs": {"column": "json", "json_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}}]
    contract = compile_suite(parse({"expectations": written}, "suite"), rows.schema)
    assert [c.tier for c in contract.checks] == ["whole"] * 6 + ["compiled"]
    report, wanted = contract.check(rows), oracle.judge(rows, written)
    for at, check in enumerate(contract.checks):
        assert not raised(wanted[at]), check
        mine = [r["row"] for r in report.failures.to_pylist() if r["expectation_id"] == check.expectation.id]
        assert mine == wanted[at].result["unexpected_index_list"], check.expectation
        assert len(mine) > 200, "the case has become too small to show the limit"
