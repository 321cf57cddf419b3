"""Results in Great Expectations' form: values of every type, floats, a suite as it is serialised. What verdicts hold is
compared in test_contracts_differential.py."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import random
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from headrace.contracts import Expectation, compile_suite, parse
from headrace.contracts.results import map_verdict, suite_result
from headrace.contracts.verdict import Verdict
from tests.contract.gx_cases import case
from tests.contract.gx_cases.columns import COLUMNS_
from tests.contract.gx_cases.values import VALUES
from tests.contract.gx_compare import agree, ours, theirs
from tests.contract.gx_oracle import Oracle, quiet

pytestmark = pytest.mark.contract

BIG = 2**53
TIMES = [dt.datetime(2013, 2, 8), dt.datetime(2013, 2, 8, 0, 0, 0, 1), dt.datetime(1969, 12, 31, 23, 59, 59, 999999),
         dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)]
MS = [t.replace(microsecond=1000) for t in TIMES]
BERLIN = [t.replace(tzinfo=ZoneInfo("Europe/Berlin")) for t in MS]
UTC = [t.replace(tzinfo=dt.UTC) for t in TIMES]
NAN = float("nan")
TEXTS = ["", "a", "b", "N123AA", "ÄÖ", "日本", "a\n", "1", "1.0", "NaN", "NaT", "None", "2013-02-08", "😀", "x'y\""]
POOLS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "i8": (pa.int8(), [-128, 0, 1, 5, 127]), "i32": (pa.int32(), [-(2**31), -1, 0, 1, 5, 2**31 - 1]),
    "j32": (pa.int32(), [-1, 0, 1, 2, 3, 5]), "k32": (pa.int32(), [-1, 0, 1, 2, 3, 5]),
    "i64": (pa.int64(), [-(2**63), -BIG - 1, 0, 1, BIG, BIG + 1, 2**63 - 1]), "u64": (pa.uint64(), [0, 1, 2**64 - 1]),
    "f64": (pa.float64(), [0.0, -0.0, 1.0, 0.1, NAN, float("inf"), -float("inf"), 1e300, float(BIG)]),
    "f32": (pa.float32(), [0.0, -0.0, 1.0, 0.1, 3.3, NAN, 16777216.0]),
    "s": (pa.string(), TEXTS), "t": (pa.string(), TEXTS[:4]), "ls": (pa.large_string(), TEXTS[:3]),
    "e": (pa.dictionary(pa.int8(), pa.string()), TEXTS[:3]), "b": (pa.bool_(), [True, False]),
    "c": (pa.bool_(), [True, False]), "ts": (pa.timestamp("us"), TIMES), "tt": (pa.timestamp("us"), TIMES[:3]),
    "ms": (pa.timestamp("ms"), MS), "sec": (pa.timestamp("s"), TIMES[3:]),
    "ns": (pa.timestamp("ns"), [0, 1, 10**18 + 1, 10**18]), "tz": (pa.timestamp("us", "UTC"), UTC),
    "uz": (pa.timestamp("us", "UTC"), UTC[:3]), "bz": (pa.timestamp("ms", "Europe/Berlin"), BERLIN),
    "d": (pa.date32(), [t.date() for t in TIMES]), "time": (pa.time64("us"), [t.time() for t in TIMES[1:]]),
    "dec": (pa.decimal128(9, 2), [decimal.Decimal(x) for x in ("0.00", "-1.50", "1.50", "2.25")]),
    "bin": (pa.binary(), [b"", b"a", b"\xff'"]), "null": (pa.null(), [None]),
    "du": (pa.duration("us"), [dt.timedelta(0), dt.timedelta(days=-1, microseconds=1)]),
    "l": (pa.list_(pa.int32()), [[], [1], [1, None], [2, 3]]), "lt": (pa.list_(pa.string()), [[], ["a", None]]),
    "lz": (pa.list_(pa.timestamp("us", "UTC")), [[UTC[0]], [None]]),
    "st": (pa.struct([("x", pa.int64()), ("y", pa.string())]), [{"x": 1, "y": "a"}, {"x": None, "y": "b"},
                                                              {"x": BIG + 1, "y": None}]),
    "ln": (pa.list_(pa.struct([("x", pa.int16())])), [[{"x": 1}], [{"x": None}, None], []]),
    "lf": (pa.list_(pa.int8(), 2), [[1, 2], [None, 3]]), "ll": (pa.large_list(pa.uint8()), [[1, 2], [], [None, 3]]),
    "m": (pa.map_(pa.string(), pa.int32()), [[("a", 1)], [("a", None), ("b", 2)], []])}
CONDITION = {"type": "comparison", "column": {"name": "j32"}, "operator": ">", "parameter": 0}


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with quiet() as made:
        yield made


@pytest.mark.parametrize("name", [n for n in POOLS if n not in ("j32", "k32", "c", "tt", "uz")])
def test_values_of_every_type_are_listed_as_pandas_holds_them(oracle: Oracle, name: str) -> None:
    """Among them such as are held as floats for a null that only a row has which the condition leaves out."""
    type_, pool = POOLS[name]
    kept = [v for v in pool if "None" not in str(v)] or pool
    rows = pa.record_batch({name: pa.array([*kept, *pool, *pool, None], type=type_),
                            "j32": pa.array([1] * len(kept) + [0] * (2 * len(pool) + 1), pa.int32())})
    pair = {"column_A": "j32", "column_B": name}
    drawn: list[tuple[str, dict[str, Any]]] = [("values_to_be_null", {"column": name}),
                                               ("values_to_not_be_null", {"column": name})]
    drawn += [] if pa.types.is_nested(type_) else [("pair_values_to_be_equal", pair)]
    written = [{"type": f"expect_column_{kind}", "kwargs": {**kwargs, **more}}
               for kind, kwargs in drawn for more in ({}, {"row_condition": CONDITION})]
    agree(oracle, rows, written, {"compiled", "borrowed", "whole"})


def test_mostly_is_a_matter_of_floating_point() -> None:
    """9 of 10 bad is not below mostly 0.1, though 1 - 0.9 is."""
    from great_expectations.expectations.expectation import _mostly_success

    for judged in range(1, 21):
        rows = pa.record_batch({"a": pa.array([1] * judged)})
        for bad in range(judged + 1):
            mask = pa.array([at < bad for at in range(judged)])
            for mostly in {round(1 - bad / judged, 2), 1 - bad / judged, (judged - bad) / judged}:
                e = Expectation("a", "expect_column_values_to_be_unique", {"column": "a", "mostly": mostly}, "", "f")
                assert map_verdict(e, rows, mask, judged).success is _mostly_success(judged, bad, mostly)


def test_a_suite_is_serialised_as_great_expectations_does(oracle: Oracle) -> None:
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResultSchema
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    rng, asked = random.Random(99), case(99, 60, [*VALUES, *COLUMNS_])
    told, found, rows = theirs(oracle, asked), ours(asked), asked.rows
    written = [{**e, "id": str(uuid.UUID(int=rng.getrandbits(128), version=4)), "meta": {"at": at}}
               for at, e in enumerate(asked.written) if at in told and told[at].json is not None
               and found[at].verdict is not None and "32'" not in str(e) and "$" not in str(e)]
    suite = parse({"name": "departure", "expectations": written}, "suite")
    their_batch = oracle.batches.get_batch(batch_parameters={"dataframe": rows.to_pandas()})
    done = their_batch.validate(oracle.suite(name="departure", expectations=written),
                                result_format={"result_format": "COMPLETE"})
    wanted_all = json.loads(json.dumps(done.to_json_dict()))
    verdicts = list(compile_suite(suite, rows.schema).check(rows).verdicts)
    rng.shuffle(verdicts)
    mine = suite_result(suite, verdicts, meta={**wanted_all["meta"], "batch_id": done.batch_id})
    assert json.loads(json.dumps(mine)) == mine
    assert [r["expectation_config"]["id"] for r in mine["results"]] == [e["id"] for e in written]
    assert {k: v for k, v in mine.items() if k != "results"} == {k: v for k, v in wanted_all.items() if k != "results"}
    assert list(mine) == list(wanted_all)
    for result, other in zip(mine["results"], _in_order(wanted_all["results"], written), strict=True):
        for key in ("success", "result", "meta"):
            assert result[key] == other[key], other
        config, wanted = result["expectation_config"], other["expectation_config"]
        built = [ExpectationConfiguration(**c).to_domain_obj() for c in (config, wanted)]
        assert built[0] == built[1], wanted
        assert config["kwargs"]["batch_id"] == wanted["kwargs"]["batch_id"]
        assert [config[k] for k in ("type", "meta", "id", "severity")] == [wanted[k] for k in (
            "type", "meta", "id", "severity")]
        if other["exception_info"].get("raised_exception") is False:
            assert result["exception_info"] == other["exception_info"]
    assert ExpectationSuiteValidationResultSchema().load(mine).to_json_dict() == mine


def _in_order(results: list[dict[str, Any]], written: list[dict[str, Any]]) -> list[dict[str, Any]]:
    at = {e["id"]: at for at, e in enumerate(written)}
    return sorted(results, key=lambda r: at[r["expectation_config"]["id"]])


def test_ids_that_are_no_uuids_become_some_and_are_kept_in_meta() -> None:
    """Great Expectations refuses to read a result back whose ids are no UUIDs."""
    suite = parse({"name": "departure", "expectations": [
        {"id": id_, "type": "expect_column_values_to_not_be_null", "kwargs": {"column": id_}, "meta": {"by": "me"}}
        for id_ in ("tailnum", "origin", "dest")]}, "departure.expectations.json")
    first, second, third = suite.expectations
    good, bad = Verdict(True, {"unexpected_count": 0}), Verdict(False, {}, "KeyError: 'dest'")
    done = suite_result(suite, [(third, bad), (first, good)], meta={})
    ids = [r["expectation_config"]["id"] for r in done["results"]]
    assert [r["expectation_config"]["meta"] for r in done["results"]] == [{"by": "me", "headrace_id": "tailnum"},
                                                                           {"by": "me", "headrace_id": "dest"}]
    assert len({uuid.UUID(i) for i in ids}) == 2
    assert ids == [r["expectation_config"]["id"] for r in suite_result(suite, [(first, good), (third, bad)],
                                                                       meta={})["results"]]
    assert done["statistics"] == {"evaluated_expectations": 2, "successful_expectations": 1,
                                  "unsuccessful_expectations": 1, "success_percent": 50.0}
    assert done["results"][1]["exception_info"] == {
        "raised_exception": True, "exception_message": "KeyError: 'dest'", "exception_traceback": "KeyError: 'dest'"}
    other = parse({"name": "other", "expectations": [{"id": "x", "type": second.type, "kwargs": {"column": "x"}}]}, "f")
    with pytest.raises(ValueError, match="has no expectation origin"):
        suite_result(other, [(second, good)], meta={})
    assert suite_result(other, [], meta={})["statistics"]["success_percent"] is None


def test_results_need_no_pandas() -> None:
    """Nor Great Expectations; times finer than Python's are then cut to microseconds."""
    code = """if True:
        import sys
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("pandas", "great_expectations"):
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Absent())
        import json, pyarrow as pa
        from headrace.contracts import parse
        from headrace.contracts.results import map_verdict, suite_result
        suite = parse({"expectations": [
            {"id": "a", "type": "expect_column_values_to_be_null", "kwargs": {"column": "ns"}},
            {"id": "b", "type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": ["i", "ns"]}}]}, "s")
        rows = pa.record_batch({"ns": pa.array([1001, None, 10**18, None], pa.timestamp("ns", "UTC")),
                                "i": pa.array([1, 1, None, 1], pa.int32())})
        null, unique = suite.expectations
        verdicts = [(null, map_verdict(null, rows, pa.array([True, False, True, False]), 4)),
                    (unique, map_verdict(unique, rows, pa.array([True, True, None, True]), 4))]
        json.dump([r["result"] for r in suite_result(suite, verdicts, meta={})["results"]], sys.stdout)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    nulls, unique = json.loads(done.stdout)
    assert nulls["unexpected_list"] == ["1970-01-01T00:00:00.000001+00:00", "2001-09-09T01:46:40+00:00"]
    assert unique["unexpected_list"] == [{"i": 1.0, "ns": "1970-01-01T00:00:00.000001+00:00"}, {"i": 1.0, "ns": "NaT"},
                                         {"i": 1.0, "ns": "NaT"}]
    assert unique["partial_unexpected_counts"] == [
        {"value": [1.0, "NaT"], "count": 2}, {"value": [1.0, "1970-01-01T00:00:00.000001+00:00"], "count": 1}]
