"""The processors validate, derive, filter, route and select: what leaves by which output, and why."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from headrace.batch import Batch, Frames, Meta
from headrace.catalog import processor
from headrace.errors import ExpressionError, SchemaError, SuiteError, UserError
from headrace.processor import Context, Processor
from headrace.testing import Record

pytestmark = pytest.mark.unit

SCHEMA = pa.schema([pa.field("origin", pa.string(), False), pa.field("dest", pa.string()),
                    pa.field("distance", pa.int32(), False), pa.field("text", pa.string())],
                   metadata={"name": "flight"})
ROWS: list[dict[str, Any]] = [
    {"origin": "JFK", "dest": "LAX", "distance": 2475, "text": "1"},
    {"origin": "EWR", "dest": None, "distance": 17, "text": "x"},
    {"origin": "LGA", "dest": "ORD", "distance": 733, "text": None}]
HERE = Path(__file__).parent


def batch(rows: list[dict[str, Any]] = ROWS) -> Batch:
    frames = Frames([Record(b"", offset_=10 + at) for at in range(len(rows))])
    return Batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA), Meta(frames))


def built(name: str, config: Any, project: Path = HERE) -> tuple[Processor, Any]:
    """The processor, by the catalog as a flow would name it, and the schemas of its outputs."""
    kind = processor(name, project)
    made = kind(kind.Config.model_validate(config), project=project)
    return made, made.outputs(SCHEMA)


def run(name: str, config: Any, given: Batch | None = None, project: Path = HERE) -> dict[str, Batch]:
    """What leaves, checked against what was declared; and that the batch given is as it was."""
    made, schemas = built(name, config, project)
    given = given or batch()
    before = given.rows.to_pylist()
    out = dict(made.process(given, Context("flow", "step", project)))
    assert given.rows.to_pylist() == before
    assert set(out) <= set(schemas)
    for output, left in out.items():
        assert left.rows.schema.equals(schemas[output], check_metadata=True), output
        left.rows.validate(full=True)
    assert sorted(o for left in out.values() for o in left.meta.offsets().tolist()) == given.meta.offsets().tolist()
    return out


def offsets(out: dict[str, Batch]) -> dict[str, list[int]]:
    return {name: left.meta.offsets().tolist() for name, left in out.items() if len(left)}


def test_filter() -> None:
    assert offsets(run("filter", {"where": "dest <> 'ORD'"})) == {"success": [10], "unmatched": [11, 12]}
    given = batch()
    assert run("filter", {"where": "distance > 0"}, given)["success"] is given, "nothing is copied when all pass"
    assert offsets(run("filter", {"where": "CAST(text AS integer) = 1"})) == {"success": [10], "unmatched": [11, 12]}


def test_route_takes_the_first_that_holds() -> None:
    out = run("route", {"far": "distance > 2000", "known": "dest IS NOT NULL", "never": "FALSE"})
    assert offsets(out) == {"far": [10], "known": [12], "unmatched": [11]}
    assert offsets(run("route", {"x": "distance > 20", "all": "TRUE", "o": "FALSE"})) == {"x": [10, 12], "all": [11]}
    assert offsets(run("route", {"a": "dest = 'LAX' OR distance = 17"})) == {"a": [10, 11], "unmatched": [12]}
    assert list(built("route", {"b": "TRUE", "a": "TRUE"})[1]) == ["b", "a", "unmatched"]


def test_derive_adds_columns_at_the_end() -> None:
    out = run("derive", {"route": "origin || '-' || dest", "one": "1", "far": "distance > 2000", "copy": "distance"})
    rows = out["success"].rows
    assert rows.schema.names == [*SCHEMA.names, "route", "one", "far", "copy"]
    assert [f.nullable for f in rows.schema][4:] == [True, False, False, False]
    assert rows.column("one").to_pylist() == [1, 1, 1]
    assert rows.column("copy").to_pylist() == [2475, 17, 733]
    assert rows.column("route").to_pylist() == ["JFK-LAX", None, "LGA-ORD"]
    assert rows.schema.metadata == SCHEMA.metadata


def test_derive_with_a_cast_has_a_failure_output_with_reasons() -> None:
    assert built("derive", {"n": "CAST(text AS integer)"})[1]["failure"].equals(SCHEMA)
    assert "failure" not in built("derive", {"n": "distance + 1"})[1]
    out = run("derive", {"n": "CAST(text AS integer)", "m": "CAST(text AS double)"})
    assert offsets(out) == {"success": [10, 12], "failure": [11]}
    assert out["failure"].reasons is not None
    assert out["failure"].reasons.to_pylist() == [["n: text is “x”, which is not a whole number of 32 bits",
                                                   "m: text is “x”, which is not a number"]]


def test_select_keeps_drops_renames_and_casts() -> None:
    rows = run("select", {"keep": ["dest", "distance"], "rename": {"distance": "miles"},
                          "cast": {"distance": "double"}})
    assert rows["success"].rows.to_pylist() == [{"dest": "LAX", "miles": 2475.0}, {"dest": None, "miles": 17.0},
                                                {"dest": "ORD", "miles": 733.0}]
    assert run("select", {"drop": ["text", "origin"]})["success"].rows.schema.names == ["dest", "distance"]
    assert "failure" not in built("select", {"cast": {"distance": "long"}})[1]
    assert not built("select", {"cast": {"distance": "long"}})[1]["success"].field("distance").nullable


def test_select_sends_what_does_not_cast_to_failure() -> None:
    out = run("select", {"cast": {"text": "int"}, "rename": {"text": "number"}})
    assert offsets(out) == {"success": [10, 12], "failure": [11]}
    assert out["success"].rows.column("number").to_pylist() == [1, None]
    assert out["failure"].rows.schema.names == SCHEMA.names
    assert out["failure"].reasons is not None
    assert out["failure"].reasons.to_pylist() == [["text: \"text\" is “x”, which is not a whole number of 32 bits"]]


@pytest.mark.parametrize(("to", "type_"), [
    ("timestamp-millis", pa.timestamp("ms", "UTC")), ("local-timestamp-micros", pa.timestamp("us")),
    ("date", pa.date32()), ("decimal(6, 2)", pa.decimal128(6, 2)), ("float", pa.float32()),
    ("boolean", pa.bool_()), ("long", pa.int64())])
def test_select_casts_to_avros_types(to: str, type_: pa.DataType) -> None:
    made, schemas = built("select", {"keep": ["text"], "cast": {"text": to}})
    assert schemas["success"].field("text").type == type_
    empty = batch([{**ROWS[0], "text": None}])
    assert made.process(empty, Context("f", "s", HERE))["success"].rows.column("text").type == type_


def project_with(tmp_path: Path, *expectations: dict[str, Any]) -> Path:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "flight.expectations.json").write_text(json.dumps({"expectations": expectations}))
    return tmp_path


def test_validate_holds_back_with_reasons_and_counts(tmp_path: Path) -> None:
    project = project_with(
        tmp_path, {"id": "dest_given", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "dest"}},
        {"id": "not_near", "type": "expect_column_values_to_be_between", "severity": "warning",
         "kwargs": {"column": "distance", "min_value": 1000}})
    out = run("validate", {"suite": "flight"}, project=project)
    assert offsets(out) == {"success": [10, 12], "failure": [11]}
    assert out["failure"].reasons is not None
    assert out["failure"].reasons.to_pylist() == [["dest_given: dest is null"]]
    made, _ = built("validate", {"suite": "schemas/flight.expectations.json"}, project)
    counted: Counter[tuple[str, str]] = Counter()
    ctx = Context("flow", "step", project, count=lambda name, label, n: counted.update({(name, label): n}))
    given = batch(ROWS[:1])
    assert made.process(given, ctx)["success"] is given
    assert not counted
    made.process(batch(), ctx)
    assert counted == {("expectation", "dest_given"): 1, ("expectation", "not_near"): 2}


def test_validate_with_nothing_valid_leaves_only_failures(tmp_path: Path) -> None:
    project = project_with(tmp_path, {"type": "expect_column_values_to_be_null", "kwargs": {"column": "origin"}})
    assert offsets(run("validate", {"suite": "flight"}, project=project)) == {"failure": [10, 11, 12]}


BAD_CONFIG = [
    ("filter", {}, "where"), ("filter", {"where": "TRUE", "what": 1}, "what"), ("route", {}, "at least one"),
    ("route", {"success": "TRUE"}, "cannot name an output"), ("route", {"a b": "TRUE"}, "cannot name an output"),
    ("route", {"a": 1}, "a"), ("derive", {}, "at least one"), ("derive", {"a-b": "1"}, "cannot name a column"),
    ("select", {}, "needs one of"), ("select", {"keep": ["a"], "drop": ["b"]}, "not both"),
    ("select", {"cast": {"text": "json"}}, "not a type"),
    ("select", {"cast": {"text": "decimal(50, 2)"}}, "not a type"),
    ("select", {"rename": {"text": "1x"}}, "cannot name"), ("select", {"keep": ["text", "text"]}, "twice"),
    ("validate", {}, "suite")]


@pytest.mark.parametrize(("name", "config", "why"), BAD_CONFIG)
def test_a_config_that_cannot_be_meant(name: str, config: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        built(name, config)


BAD_PLAN = [
    ("filter", {"where": "distance + 1"}, ExpressionError, "not true or false"),
    ("filter", {"where": "distnace > 1"}, ExpressionError, "no column"),
    ("route", {"x": "origin"}, ExpressionError, "“x”, “origin”, is string"),
    ("derive", {"dest": "origin"}, SchemaError, "there already"),
    ("derive", {"x": "NULL"}, ExpressionError, "“x”, “NULL”: it is always null"),
    ("select", {"keep": ["nope"]}, SchemaError, "not there"),
    ("select", {"drop": ["text"], "cast": {"text": "int"}}, SchemaError, "does not keep it"),
    ("select", {"rename": {"text": "dest"}}, SchemaError, "two columns one name"),
    ("select", {"cast": {"distance": "date"}}, ExpressionError, "cannot become"),
    ("validate", {"suite": "nope"}, SuiteError, "no such suite")]


@pytest.mark.parametrize(("name", "config", "error", "why"), BAD_PLAN)
def test_a_plan_that_cannot_work(name: str, config: dict[str, Any], error: type[UserError], why: str) -> None:
    with pytest.raises(error, match=why) as caught:
        built(name, config)
    assert caught.value.hint


def test_the_processor_of_the_documentation_works(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "processors.md").read_text()
    (tmp_path / "processors").mkdir()
    (tmp_path / "processors" / "shout.py").write_text(text.partition("```python\n")[2].partition("```")[0])
    out = run("shout", {"column": "text"}, project=tmp_path)
    assert out["success"].rows.column("text").to_pylist() == ["1", "X", None]
