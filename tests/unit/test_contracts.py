"""Suites read, compiled and reported on; nothing here needs Great Expectations."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.contracts import compile_suite, load, parse
from headrace.contracts.patterns import ANSWERS_MAX, Answers, Search
from headrace.errors import MissingExtra, SuiteError

pytestmark = pytest.mark.unit

SCHEMA = pa.schema([("tailnum", pa.string()), ("distance", pa.int32()), ("delay", pa.float64()),
                    ("carrier", pa.string()), ("at", pa.timestamp("us", "UTC")), ("day", pa.date32())])
ROWS = pa.record_batch([
    pa.array(["N1", None, "X2", "N3"]), pa.array([100, 20, None, 9000], pa.int32()),
    pa.array([1.0, float("nan"), None, 5.0]), pa.array(["AA", "ZZ", "ZZ", None]),
    pa.array([0, 1, 2, None], pa.timestamp("us", "UTC")), pa.array([0, 1, None, 3], pa.date32())], schema=SCHEMA)


def one(type_: str, /, **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{type_}", "kwargs": kwargs}


def compiled(*expectations: dict[str, Any], schema: pa.Schema = SCHEMA, stream: bool = True) -> Any:
    suite = parse({"name": "s", "expectations": list(expectations)}, "schemas/s.expectations.json")
    return compile_suite(suite, schema, stream=stream)


def test_a_report_says_which_rows_why_and_how_many() -> None:
    contract = compiled(
        {"id": "tailnum_not_null", **one("column_values_to_not_be_null", column="tailnum")},
        {"id": "tailnum_american", **one("column_values_to_match_regex", column="tailnum", regex=r"^N\d")},
        {"id": "distance_plausible",
         **one("column_values_to_be_between", column="distance", min_value=50, max_value=5000)},
        {"id": "carrier_known", "severity": "warning",
         **one("column_values_to_be_in_set", column="carrier", value_set=["AA", "UA"])})
    report = contract.check(ROWS)
    assert report.counts == {"tailnum_not_null": 1, "tailnum_american": 1, "distance_plausible": 2, "carrier_known": 2}
    assert report.row_mask.to_pylist() == [True, False, False, False]
    assert report.success is False
    assert report.reasons([1, 2, 3]).to_pylist() == [
        ["tailnum_not_null: tailnum is null", "distance_plausible: distance is 20, not between 50 and 5000"],
        ["tailnum_american: tailnum is “X2”, which does not match ^N\\d"],
        ["distance_plausible: distance is 9000, not between 50 and 5000"]]
    assert report.reasons(np.array([0, 3])).to_pylist()[0] == []
    assert report.failures.to_pylist()[-1] == {
        "row": 2, "expectation_id": "carrier_known", "expectation_type": "expect_column_values_to_be_in_set",
        "column": "carrier", "severity": "warning", "observed": "“ZZ”"}


def test_a_clean_or_empty_batch_reports_nothing() -> None:
    contract = compiled(one("column_values_to_not_be_null", column="distance"),
                        one("column_values_to_match_regex", column="tailnum", regex="N"))
    for rows in (ROWS.slice(0, 1), ROWS.slice(0, 0)):
        report = contract.check(rows)
        assert report.success
        assert report.row_mask.to_pylist() == [True] * rows.num_rows
        assert report.failures.num_rows == 0
        assert set(report.counts.values()) == {0}
        assert report.reasons([]).to_pylist() == []


def test_mostly_is_for_success_and_never_for_a_row() -> None:
    contract = compiled(one("column_values_to_be_in_set", column="carrier", value_set=["AA"], mostly=0.3))
    report = contract.check(ROWS)
    assert report.success, "one of the three carriers that are given is in the set"
    assert report.row_mask.to_pylist() == [True, False, False, True]
    assert "each record is judged alone" in contract.notes()[0]


def test_ids_are_the_files_own_or_derived_and_numbered() -> None:
    suite = parse({"expectations": [
        one("column_values_to_not_be_null", column="a"), one("column_values_to_not_be_null", column="a", mostly=0.5),
        {"id": "column_values_to_not_be_null__a_2", **one("column_values_to_be_null", column="b")},
        one("column_pair_values_to_be_equal", column_A="a", column_B="b"),
        one("multicolumn_sum_to_equal", column_list=["a", "b"], sum_total=1)]}, "f")
    assert [e.id for e in suite.expectations] == [
        "column_values_to_not_be_null__a", "column_values_to_not_be_null__a_3", "column_values_to_not_be_null__a_2",
        "column_pair_values_to_be_equal__a__b", "multicolumn_sum_to_equal__a__b"]


BAD_FILES = [
    ("{", "not JSON"), ("[]", "an object with a list"), ("{\"expectations\": [1]}", "expectation 1 is not an object"),
    ("{\"expectations\": [{\"expectation_type\": \"x\"}]}", "0.x"), ("{\"expectations\": [{}]}", "no “type”"),
    ("{\"expectations\": [{\"type\": \"x\", \"kwargs\": []}]}", ""),
    ("{\"expectations\": [{\"type\": \"x\", \"kwargs\": [1]}]}", "“kwargs” is not an object"),
    ("{\"expectations\": [{\"type\": \"x\", \"severity\": \"awful\"}]}", "“awful” is no severity"),
    ("{\"expectations\": [{\"id\": \"a\", \"type\": \"x\"}, {\"id\": \"a\", \"type\": \"y\"}]}",
     "two expectations have the id"),
    ("{\"expectations\": [{\"type\": \"x\", \"kwargs\": {\"mostly\": 2}}]}", "mostly is 2"),
]


@pytest.mark.parametrize(("text", "why"), BAD_FILES)
def test_a_file_that_is_no_suite(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "x.expectations.json"
    file.write_text(text)
    if not why:
        assert load(file).expectations[0].kwargs == {}
        return
    with pytest.raises(SuiteError, match=why) as caught:
        load(file)
    assert caught.value.hint


def test_a_suite_that_is_not_there_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "departure.expectations.json").write_text("{}")
    with pytest.raises(SuiteError, match=r"departures.expectations.json: there is no such suite") as caught:
        load(tmp_path / "departures.expectations.json")
    assert caught.value.hint == "beside it there are departure"


REFUSED = [
    (one("column_values_to_be_unique", column="tailnum"), "over many records .* where a batch ends"),
    (one("column_mean_to_be_between", column="distance", min_value=1), "judges a batch as one"),
    (one("table_row_count_to_equal", value=3), "judges a batch as one"),
    (one("column_values_to_be_increasing", column="distance"), "neighbours"),
    (one("compound_columns_to_be_unique", column_list=["tailnum", "carrier"]), "over many records"),
    (one("column_values_to_match_like_pattern", column="tailnum", like_pattern="N%"), "for databases only"),
    ({"type": "unexpected_rows_expectation", "kwargs": {}}, "asks a database"),
    (one("column_value_to_not_be_null", column="tailnum"), "there is no expectation"),
    (one("column_values_to_not_be_null", column="tail"), "there is no column “tail”"),
    (one("column_values_to_not_be_null"), "names no column"),
    (one("column_values_to_be_between", column="distance"), "neither min_value nor max_value"),
    (one("column_values_to_be_between", column="distance", min_value=5, max_value=1), "greater than"),
    (one("column_values_to_be_between", column="distance", min_value="2013-01-01"), "bounds of a number"),
    (one("column_values_to_be_between", column="tailnum", min_value=1), "the column is text"),
    (one("column_values_to_be_between", column="at", min_value="2013-01-01"), "reads “2013-01-01” as a date"),
    (one("column_values_to_be_between", column="at", min_value="2013-01-01T00:00:00"), "has time zone, and the bound"),
    (one("column_values_to_be_between", column="at", min_value=5), "a bound is 5"),
    (one("column_values_to_be_between", column="day", min_value="2013-01-01T00:00:00"), "holds dates"),
    (one("column_values_to_be_in_set", column="tailnum", value_set="N1"), "value_set is a list"),
    (one("column_values_to_match_regex", column="tailnum", regex="(a"), "not a regular expression"),
    (one("column_values_to_match_regex", column="tailnum"), "regex is None"),
    (one("column_values_to_match_regex_list", column="tailnum", regex_list=["a"], match_on="some"), "any or all"),
    (one("column_value_lengths_to_equal", column="tailnum"), "no length is given"),
    (one("column_values_to_match_strftime_format", column="tailnum"), "strftime_format is None"),
    (one("column_values_to_match_json_schema", column="tailnum", json_schema={"type": "nope"}), "no JSON Schema"),
    (one("column_pair_values_to_be_equal", column_A="tailnum"), "column_B is missing"),
    (one("multicolumn_sum_to_equal", column_list=["distance"], sum_total=1), "two columns or more"),
    (one("column_values_to_be_between", column="distance", min_value={"$PARAMETER": "low"}), "suite parameter “low”"),
    (one("column_values_to_not_be_null", column="distance", row_condition="distance > @x", condition_parser="pandas"),
     "could do anything"),
]


@pytest.mark.parametrize(("written", "why"), REFUSED, ids=[r[1][:40] for r in REFUSED])
def test_refused_with_file_expectation_and_a_way_out(written: dict[str, Any], why: str) -> None:
    with pytest.raises(SuiteError, match=why) as caught:
        compiled({"id": "the_one", **written})
    assert str(caught.value).startswith("schemas/s.expectations.json: the_one")
    assert caught.value.hint


def test_compiled_suites_never_import_great_expectations() -> None:
    code = ("import sys, pyarrow as pa; from headrace.contracts import compile_suite, parse\n"
            "s = parse({'expectations': [{'type': 'expect_column_values_to_match_regex', 'kwargs': {'column': 'a', "
            "'regex': 'x'}}]}, 'f')\n"
            "rows = pa.record_batch({'a': ['x', 'y']})\n"
            "assert compile_suite(s, rows.schema).check(rows).row_mask.to_pylist() == [True, False]\n"
            "print([m for m in ('great_expectations', 'polars') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_extra_a_suite_that_needs_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "great_expectations"]:
        monkeypatch.delitem(sys.modules, name)  # which a test before this one may have imported
    monkeypatch.setitem(sys.modules, "great_expectations", None)
    with pytest.raises(MissingExtra, match=r"expect_column_values_to_be_dateutil_parseable.*needs the extra “gx”"):
        compiled(one("column_values_to_be_dateutil_parseable", column="tailnum"))


def test_long_values_are_cut_and_nested_ones_shown() -> None:
    schema = pa.schema([("s", pa.string()), ("l", pa.list_(pa.int32())), ("b", pa.binary())])
    rows = pa.record_batch([pa.array(["x" * 500]), pa.array([[1, 2]], schema.field("l").type), pa.array([b"\xff"])],
                           schema=schema)
    report = compiled(*(one("column_values_to_be_null", column=c) for c in schema.names), schema=schema).check(rows)
    shown = report.failures["observed"].to_pylist()
    assert shown == ["“" + "x" * 100 + "…”", "[1, 2]", "b'\\xff'"]


def test_answers_are_asked_once_per_value_and_bounded() -> None:
    asked: list[str] = []
    answers = Answers(lambda v: bool(asked.append(v)) or v == "a")
    column = pa.array(["a", None, "b", "a"] * 10)
    assert answers(column).to_pylist()[:4] == [True, None, False, True]
    answers(column)
    assert asked == ["a", "b"]
    answers(pa.array([str(n) for n in range(ANSWERS_MAX + 1)]))
    answers(pa.array(["new"]))
    assert len(answers._known) == 1, "past the bound all answers are forgotten"


@pytest.mark.parametrize(("pattern", "python"), [
    ("^N", False), (r"^N\d", True), ("a$", True), (r"\s", True), ("(?=a)", True)])
def test_a_search_asks_python_only_where_the_engines_part(pattern: str, python: bool) -> None:
    search = Search(pattern)
    search(pa.array(["N1", "a"]))
    search(pa.array(["N٣", "a\n"]))
    assert hasattr(search, "_python") is python


def test_the_suites_of_the_demo_compile_to_kernels() -> None:
    """The two flights suites never need Great Expectations at run time."""
    folder = Path(__file__).parents[2] / "schemas"
    names: dict[str, pa.DataType] = {}
    for file in sorted(folder.glob("*.expectations.json")):
        for e in json.loads(file.read_text())["expectations"]:
            text = {"value_set", "regex"} & set(e["kwargs"])
            names[e["kwargs"]["column"]] = pa.string() if text else names.get(e["kwargs"]["column"], pa.int32())
    for file in sorted(folder.glob("*.expectations.json")):
        assert {tier for _, tier, _ in compile_suite(load(file), pa.schema(names)).tiers} == {"compiled"}


@pytest.mark.parametrize(("ref", "tier"), [
    ("#/$defs/age", "compiled"), ("#", "compiled"), ("#/nowhere", "borrowed"), ("other.json", "borrowed"),
    ("#age", "borrowed")])
def test_a_json_schema_whose_references_lead_elsewhere_is_not_compiled(ref: str, tier: str) -> None:
    """Such a one raises on some values, which must not end a worker."""
    wanted = {"type": ["object", "integer"], "properties": {"a": {"$ref": ref}}, "$defs": {"age": {"type": "integer"}}}
    contract = compiled(one("column_values_to_match_json_schema", column="tailnum", json_schema=wanted))
    assert contract.checks[0].tier == tier
    rows = pa.record_batch([pa.array(["1", "{\"a\": 1}"]), *ROWS.slice(0, 2).columns[1:]], schema=SCHEMA)
    assert contract.check(rows).row_mask.to_pylist() == [True, tier == "compiled"]
