"""A window's verdicts beside Great Expectations' on the same rows at once, whatever batches they came in."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.contracts.windows import held
from headrace.processors.validate_window import ValidateWindow, ValidateWindowConfig
from tests.contract.gx_oracle import Oracle, quiet, raised
from tests.unit.statekit import Driven, cut, records

pytestmark = pytest.mark.contract
SEEDS = range(12)
SCHEMA = pa.schema([("i", pa.int64()), ("j", pa.int32()), ("f", pa.float64()), ("s", pa.string()), ("b", pa.bool_())])
POOLS: dict[str, list[Any]] = {
    "i": [0, 1, 2, 5, -7, 2**53 + 1, None], "j": [0, 1, 2, 3, 100, None],
    "f": [0.0, -0.0, 0.1, 0.2, 7.5, math.nan, None],
    "s": ["", "a", "b", "N123", "x\n", "ü", None], "b": [True, False, None]}
WHEN = {"type": "comparison", "column": {"name": "j"}, "operator": "<", "parameter": 3}
SUITE: list[dict[str, Any]] = [
    {"type": f"expect_{name}", "kwargs": kwargs} for name, kwargs in [
        ("column_values_to_not_be_null", {"column": "s", "mostly": 0.8}),
        ("column_values_to_be_in_set", {"column": "s", "value_set": ["a", "b"], "mostly": 0.3}),
        ("column_values_to_be_between", {"column": "i", "min_value": 0, "max_value": 5, "row_condition": WHEN}),
        ("column_values_to_match_regex", {"column": "s", "regex": "^[a-z]"}),
        ("column_values_to_match_regex", {"column": "j", "regex": "^1"}),
        ("column_pair_values_a_to_be_greater_than_b", {"column_A": "i", "column_B": "j", "or_equal": True}),
        ("column_pair_values_to_be_in_set", {"column_A": "b", "column_B": "s", "value_pairs_set": [[True, "a"]]}),
        ("column_values_to_be_unique", {"column": "f"}),
        ("compound_columns_to_be_unique", {"column_list": ["i", "s"]}),
        ("column_values_to_be_increasing", {"column": "j"}),
        ("column_value_z_scores_to_be_less_than", {"column": "j", "threshold": 1.0, "double_sided": True}),
        ("column_mean_to_be_between", {"column": "i", "min_value": 0, "max_value": 10}),
        ("column_mean_to_be_between", {"column": "f", "min_value": 1, "row_condition": WHEN}),
        ("column_stdev_to_be_between", {"column": "j", "max_value": 40}),
        ("column_sum_to_be_between", {"column": "j", "min_value": 0}),
        ("column_min_to_be_between", {"column": "f", "min_value": 0, "strict_min": True}),
        ("column_max_to_be_between", {"column": "i", "max_value": 5}),
        ("column_median_to_be_between", {"column": "j", "max_value": 2}),
        ("column_quantile_values_to_be_between", {"column": "i", "quantile_ranges": {
            "quantiles": [0.1, 0.5, 0.9], "value_ranges": [[-10, 0], [0, 2], [None, 100]]}}),
        ("column_unique_value_count_to_be_between", {"column": "s", "min_value": 3}),
        ("column_proportion_of_unique_values_to_be_between", {"column": "i", "max_value": 0.2}),
        ("column_proportion_of_non_null_values_to_be_between", {"column": "b", "min_value": 0.7}),
        ("column_distinct_values_to_be_in_set", {"column": "j", "value_set": [0, 1, 2, 3]}),
        ("column_most_common_value_to_be_in_set", {"column": "s", "value_set": ["a"]}),
        ("column_kl_divergence_to_be_less_than", {"column": "s", "threshold": 0.5, "partition_object": {
            "values": ["", "a", "b", "N123", "x\n", "ü"], "weights": [0.2, 0.2, 0.2, 0.2, 0.1, 0.1]}}),
        ("table_row_count_to_be_between", {"min_value": 10, "max_value": 40})]]


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with quiet() as made:
        yield made


COUNTED: Counter[str] = Counter()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_window_is_judged_as_its_rows_at_once(oracle: Oracle, tmp_path: Path, seed: int,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "BLOCK", 16)
    rng = random.Random(seed)
    size, n = rng.choice([3, 40, 100]), 230
    few = {name: rng.sample(pool, 2) if rng.random() < 0.25 else pool for name, pool in POOLS.items()}
    given = [(0, {name: rng.choice(pool) for name, pool in few.items()}) for _ in range(n)]
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas/s.expectations.json").write_text(json.dumps({"name": "s", "expectations": SUITE}))
    step = ValidateWindow(ValidateWindowConfig.model_validate({"suite": "s", "window": {"records": size}}),
                          project=tmp_path)
    step.outputs(SCHEMA)
    driven = Driven(step, SCHEMA)
    for part in cut(records(given), [rng.randrange(n) for _ in range(9)]):
        driven.feed(part)
    verdicts = [dict(row) for row, *_ in driven.got["verdict"]]
    assert len(verdicts) == n // size
    for at, verdict in enumerate(verdicts[:6]):
        rows = pa.RecordBatch.from_pylist([row for _, row in given[at * size:(at + 1) * size]], schema=SCHEMA)
        wanted = oracle.judge(rows, SUITE)
        for place, mine in enumerate(json.loads(verdict["detail"])["results"]):
            compare(mine, wanted[place], f"seed {seed}, window {at}: {SUITE[place]}")


def compare(mine: dict[str, Any], wanted: Any, told: str) -> None:
    COUNTED["compared"] += 1
    theirs = wanted.to_json_dict()["result"]
    if raised(wanted):
        COUNTED["raised"] += 1
        assert not mine["success"], told
        assert mine["exception_info"]["raised_exception"], told
        return
    assert mine["success"] == wanted.success, (told, mine["result"], theirs)
    for key in ("element_count", "unexpected_count", "unexpected_percent", "missing_count", "missing_percent"):
        assert mine["result"].get(key) == theirs.get(key), (told, key)
    if "observed_value" in theirs:
        assert near(mine["result"]["observed_value"], theirs["observed_value"]), (told, mine["result"], theirs)


def near(mine: Any, theirs: Any) -> bool:
    """Sums are added up in another order: the last digits may differ."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return mine.keys() == theirs.keys() and all(near(mine[key], theirs[key]) for key in mine)
    if isinstance(mine, list) and isinstance(theirs, list):
        return len(mine) == len(theirs) and all(map(near, mine, theirs))
    if isinstance(mine, float) and isinstance(theirs, int | float):
        return math.isclose(mine, theirs, rel_tol=1e-12, abs_tol=1e-12) or (math.isnan(mine) and math.isnan(theirs))
    return bool(mine == theirs)


def test_enough_was_compared(capsys: pytest.CaptureFixture[str]) -> None:
    if not COUNTED:
        pytest.skip("needs the whole module")
    with capsys.disabled():
        print(f"\nwindows against Great Expectations: {dict(COUNTED)}")
    assert COUNTED["compared"] > 1_000
    assert COUNTED["raised"] < COUNTED["compared"] / 20
