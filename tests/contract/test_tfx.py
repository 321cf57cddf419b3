"""What we write for TFX is what TFX's messages are, and what comes back is what went out."""

from __future__ import annotations

import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import typer
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from typer.testing import CliRunner

from headrace import codec, contracts
from headrace.cli import tfx
from headrace.demo.data import flights
from headrace.errors import HeadraceError, SchemaError, UserError
from headrace.resources import content
from headrace.tfx import to_text
from headrace.tfx.anomalies import Drift, Wrong, anomalies, of_columns, of_report
from headrace.tfx.blessing import bless, blessed, push
from headrace.tfx.schema import from_pbtxt, to_pbtxt, to_tfx
from headrace.tfx.statistics import statistics

pytestmark = pytest.mark.contract


def ours(name: str) -> tuple[codec.AvroSchema, contracts.Suite]:
    return codec.load(content(f"schemas/{name}.avsc")), contracts.load(content(f"schemas/{name}.expectations.json"))


def parsed(text: str) -> schema_pb2.Schema:
    return text_format.Parse(text, schema_pb2.Schema())


def record(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "R", "namespace": "n.s", "fields": list(fields)}


def suite_of(*expectations: dict[str, Any]) -> contracts.Suite:
    return contracts.parse({"name": "r", "expectations": list(expectations)}, "r.json")


# Schema and suite


@pytest.mark.parametrize("name", ["departure", "arrival"])
def test_our_own_schemas_and_suites_come_back_as_they_were(name: str) -> None:
    schema, suite = ours(name)
    text, untold = to_pbtxt(schema.json, suite)
    assert [f.name for f in parsed(text).feature] == schema.arrow.names
    avro, back = from_pbtxt(text)
    assert codec.parse(json.dumps(avro)) == schema
    assert contracts.parse(back, suite.file) == suite
    assert len(untold) == text.count("gx.untold=")


def test_what_tfx_is_told_of_departures() -> None:
    schema, suite = ours("departure")
    made, untold = to_tfx(schema.json, suite)
    features = {f.name: f for f in made.feature}
    kinds = {n: schema_pb2.FeatureType.Name(f.type) for n, f in features.items()}
    assert kinds == dict.fromkeys(kinds, "INT") | dict.fromkeys(("carrier", "tailnum", "origin", "dest"), "BYTES")
    assert features["distance"].int_domain == schema_pb2.IntDomain(min=50, max=5000)
    assert "B6" in features["carrier"].string_domain.value
    assert features["scheduled_at"].time_domain.integer_format == schema_pb2.TimeDomain.UNIX_MILLISECONDS
    assert features["tailnum"].presence.min_fraction == 1.0
    assert features["origin"].shape.dim[0].size == 1
    assert [u.split(":")[0] for u in untold] == ["tailnum_american", "airport_known"]


PLAIN = st.sampled_from(["boolean", "int", "long", "float", "double", "string", "bytes"])
LOGICAL = st.sampled_from([
    {"type": "int", "logicalType": "date"}, {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "long", "logicalType": "timestamp-micros"}, {"type": "long", "logicalType": "local-timestamp-nanos"},
    {"type": "int", "logicalType": "time-millis"}, {"type": "string", "logicalType": "uuid"},
    {"type": "string", "logicalType": "date"}, {"type": "long"}, {"type": "string", "pack": "some.thing"},
    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}])
NAMES = st.text("abcXYZ_", min_size=1, max_size=6)


@st.composite
def avro_records(draw: st.DrawFn, depth: int = 2, prefix: str = "R") -> dict[str, Any]:
    """Records of what TFX has features for: plain, logical and named types, nullable or not, listed or not."""
    fields = []
    for at, name in enumerate(draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))):
        own = f"{prefix}_{at}"
        core: Any = draw(st.one_of(
            PLAIN, LOGICAL, st.just({"type": "enum", "name": f"E{own}", "symbols": ["A", "B"], "doc": "e"}),
            st.just({"type": "fixed", "name": f"F{own}", "size": 4}),
            *([avro_records(depth - 1, own)] if depth else [])))
        if isinstance(core, dict) and core.get("type") == "enum":
            fields.append({"name": f"again{at}_{len(name)}", "type": ["null", core], "default": None})
            core = core["name"]
        if draw(st.booleans()):
            core = {"type": "array", "items": core}
        field: dict[str, Any] = {"name": name, "type": core}
        if draw(st.booleans()):
            field["type"] = ["null", core]
            if draw(st.booleans()):
                field["default"] = None
        elif core in ("int", "long") and draw(st.booleans()):
            field["default"] = 7
        field |= draw(st.sampled_from([{}, {"doc": "Its „doc“\nin two lines"}, {"aliases": ["old"]}]))
        fields.append(field)
    return {"type": "record", "name": prefix, "fields": fields, **draw(st.sampled_from([{}, {"doc": "Of it"}]))}


@settings(max_examples=200, deadline=None)
@given(avro_records())
def test_any_supported_schema_comes_back_equal(avro: dict[str, Any]) -> None:
    schema = codec.parse(json.dumps(avro))
    back, suite = from_pbtxt(to_pbtxt(schema.json)[0])
    assert codec.parse(json.dumps(back)) == schema
    assert suite["expectations"] == []


NUMBERS = st.integers(-2**31, 2**31)
COLUMN = {"i": NUMBERS, "l": NUMBERS, "d": st.floats(-1e9, 1e9, width=32)}


@st.composite
def expectations(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["be_between", "be_in_set", "not_be_null", "match_regex", "not_be_in_set"]))
    column = draw(st.sampled_from(["i", "l", "d", "s", "n", "e", "t"]))
    kwargs: dict[str, Any] = {"column": column}
    if kind == "be_between":
        ends = sorted(draw(st.lists(COLUMN.get(column, NUMBERS), min_size=2, max_size=2)))
        kwargs |= draw(st.sampled_from([{"min_value": ends[0], "max_value": ends[1]}, {"min_value": ends[0]},
                                        {"max_value": ends[1], "strict_max": True}, {"max_value": 0.1}]))
    elif kind in ("be_in_set", "not_be_in_set"):
        kwargs["value_set"] = draw(st.sampled_from([["A"], ["A", "B"], [1, 2], ["x„", "\n"]]))
    elif kind == "match_regex":
        kwargs["regex"] = "^N\\d"
    kwargs |= draw(st.sampled_from([{}, {"mostly": 0.9}]))
    return {"type": f"expect_column_values_to_{kind}", "kwargs": kwargs,
            "severity": draw(st.sampled_from(["critical", "critical", "warning"])), "meta": {"notes": "so"}}


COLUMNS = record(
    {"name": "i", "type": "int"}, {"name": "l", "type": ["null", "long"], "default": None},
    {"name": "d", "type": "double"}, {"name": "s", "type": "string"}, {"name": "n", "type": ["null", "string"]},
    {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
    {"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}})


@settings(max_examples=300, deadline=None)
@given(st.lists(expectations(), max_size=6))
def test_any_suite_comes_back_equal_and_in_order(written: list[dict[str, Any]]) -> None:
    suite = suite_of(*written, {"type": "expect_column_pair_values_to_be_equal",
                                "kwargs": {"column_A": "i", "column_B": "l"}})
    text, untold = to_pbtxt(COLUMNS, suite)
    avro, back = from_pbtxt(text)
    assert codec.parse(json.dumps(avro)) == codec.parse(json.dumps(COLUMNS))
    assert contracts.parse(back, suite.file) == suite
    assert len(untold) >= 1


def told(made: schema_pb2.Schema) -> list[tuple[str, dict[str, Any]]]:
    back = from_pbtxt(to_text(made))[1]
    contracts.parse(back, "r.json")
    return [(e["type"].removeprefix("expect_column_values_to_"), e["kwargs"]) for e in back["expectations"]]


def test_who_changes_a_domain_has_the_last_word() -> None:
    """Edited in TFX: the tag that says otherwise is dropped, what stands in the domain comes back."""
    made, _ = to_tfx(COLUMNS, suite_of(
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "i", "min_value": 1, "max_value": 9}},
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "s", "value_set": ["A"], "mostly": 0.9}},
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "n"}},
        {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "n", "regex": "^N"}}))
    features = {f.name: f for f in made.feature}
    features["i"].int_domain.max = 99
    features["s"].string_domain.value.append("B")
    features["n"].presence.min_fraction = 0.5
    assert told(made) == [
        ("match_regex", {"column": "n", "regex": "^N"}),
        ("be_between", {"column": "i", "min_value": 1, "max_value": 99}),
        ("be_in_set", {"column": "s", "value_set": ["A", "B"], "mostly": 0.9}),
        ("not_be_null", {"column": "n", "mostly": 0.5})]
    features["i"].type = schema_pb2.BYTES
    features["i"].ClearField("int_domain")
    assert from_pbtxt(to_text(made))[0]["fields"][0]["type"] == "string"


FOREIGN = """
feature { name: "fare" type: FLOAT value_count { min: 1 max: 1 } presence { min_count: 1 }
          float_domain { min: 0.1 max: 250 } }
feature { name: "company" type: BYTES domain: "company" presence { min_fraction: 1.0 min_count: 1 }
          shape { dim { size: 1 } } distribution_constraints { min_domain_mass: 0.8 } }
feature { name: "words" type: BYTES value_count { min: 1 } presence { min_fraction: 0.25 } }
feature { name: "tip" type: INT bool_domain { } shape { } }
feature { name: "place" type: STRUCT struct_domain { feature { name: "lat" type: FLOAT presence { min_fraction: 1 } } }
          presence { min_fraction: 1 } value_count { min: 1 max: 1 } }
string_domain { name: "company" value: "Blue" value: "Yellow" }
default_environment: "TRAINING"
"""


def test_a_schema_that_tfx_made_is_read() -> None:
    avro, suite = from_pbtxt(FOREIGN, name="Taxi")
    schema = codec.parse(json.dumps(avro))
    assert schema.arrow.field("fare") == pa.field("fare", pa.float64())
    assert schema.arrow.field("company") == pa.field("company", pa.string(), nullable=False)
    assert pa.types.is_list(schema.arrow.field("words").type)
    assert schema.arrow.field("tip").type == pa.bool_()
    assert schema.arrow.field("place") == pa.field(
        "place", pa.struct([pa.field("lat", pa.float64(), nullable=False)]), nullable=False)
    kwargs = [e["kwargs"] for e in suite["expectations"]]
    assert kwargs == [{"column": "fare", "min_value": 0.1, "max_value": 250.0},
                      {"column": "company", "value_set": ["Blue", "Yellow"], "mostly": 0.8},
                      {"column": "words", "mostly": 0.25}]
    contracts.compile_suite(contracts.parse({**suite, "expectations": suite["expectations"][:2]}, "t"), schema.arrow)


@pytest.mark.parametrize(("field", "why"), [
    ({"name": "m", "type": {"type": "map", "values": "int"}}, "m: TFX has no feature for a type map"),
    ({"name": "u", "type": ["null", "int", "string"]}, "u: TFX has no feature for a union"),
    ({"name": "u", "type": ["int", "null"]}, "u: TFX has no feature for a union"),
    ({"name": "a", "type": {"type": "array", "items": ["null", "int"]}}, "a: TFX has no feature for a union in a list"),
    ({"name": "r", "type": {"type": "record", "name": "X", "fields": [{"name": "n", "type": "null"}]}}, "r.n: TFX")])
def test_what_has_no_feature_is_named(field: dict[str, Any], why: str) -> None:
    codec.parse(json.dumps(record(field)))
    with pytest.raises(SchemaError, match=why):
        to_tfx(record(field))


@pytest.mark.parametrize(("text", "why"), [
    ("feature {", "not a TFX schema"), ("feature { nam: 1 }", "1:11"), ('sparse_feature { name: "x" }', "x: a sparse"),
    ('feature { name: "a b" type: INT }', "no Avro name"),
    ('feature { name: "a" type: INT value_counts { } }', "lists in lists")])
def test_what_is_no_schema_is_refused(text: str, why: str) -> None:
    with pytest.raises(SchemaError, match=why):
        from_pbtxt(text, "s.pbtxt")


# Statistics


def of(made: statistics_pb2.DatasetFeatureStatisticsList, *path: str) -> statistics_pb2.FeatureNameStatistics:
    return next(f for f in made.datasets[0].features if tuple(f.path.step) == path)


def test_statistics_of_flights_are_those_of_polars() -> None:
    rows = flights().arrivals
    made = statistics(rows, "arrivals")
    assert statistics_pb2.DatasetFeatureStatisticsList.FromString(made.SerializeToString()) == made
    assert text_format.Parse(to_text(made), statistics_pb2.DatasetFeatureStatisticsList()) == made
    frame = pl.from_arrow(pa.table(rows))
    assert isinstance(frame, pl.DataFrame)
    assert made.datasets[0].num_examples == frame.height == 336_776
    assert [tuple(f.path.step) for f in made.datasets[0].features] == [(c,) for c in frame.columns]
    for name in ("dep_delay", "arr_delay", "air_time", "flight", "scheduled_at"):
        held, column = of(made, name).num_stats, frame[name].to_physical()
        assert (held.common_stats.num_missing, held.common_stats.num_non_missing) == (
            column.null_count(), len(column) - column.null_count())
        assert held.common_stats.tot_num_values == len(column) - column.null_count()
        assert (held.min, held.max, held.median) == (column.min(), column.max(), column.median())
        assert held.mean == pytest.approx(column.mean())
        assert held.std_dev == pytest.approx(column.std(ddof=0))
        assert held.num_zeros == column.eq(0).sum()
        even, quantiles = held.histograms
        assert sum(b.sample_count for b in even.buckets) == len(column) - column.null_count()
        assert [b.high_value for b in quantiles.buckets] == pytest.approx(
            [column.quantile(q / 10, interpolation="linear") for q in range(1, 11)])
        inside = column.drop_nulls()
        for bucket in even.buckets[3:6]:
            assert bucket.sample_count == inside.is_between(bucket.low_value, bucket.high_value, closed="left").sum()
    for name in ("carrier", "dest"):
        texts, counts = of(made, name).string_stats, frame[name].value_counts().rows()
        assert texts.unique == frame[name].n_unique()
        assert [(t.value, t.frequency) for t in texts.top_values] == sorted(counts, key=lambda c: (-c[1], c[0]))[:20]
        assert texts.avg_length == pytest.approx(frame[name].str.len_bytes().mean())


def test_statistics_of_odd_columns() -> None:
    rows = pa.table({
        "none": pa.array([None, None, None], pa.int32()), "nan": [1.0, float("nan"), float("inf")],
        "flag": [True, False, None], "raw": [b"ab", b"", None], "empty": pa.array(["", None, ""]),
        "list": pa.array([[1, 2, None], [], None], pa.list_(pa.int64())),
        "place": pa.array([{"lat": 1.5, "name": "a"}, None, {"lat": 2.5, "name": "b"}]),
        "price": pa.array([Decimal(1), Decimal(2), Decimal(3)], pa.decimal128(5, 2)),
        "dict": pa.array(["x", "y", "x"]).dictionary_encode()})
    made = statistics(rows)
    kinds = {".".join(f.path.step): f.Type.Name(f.type) for f in made.datasets[0].features}
    assert kinds == {"none": "INT", "nan": "FLOAT", "flag": "INT", "raw": "BYTES", "empty": "STRING", "list": "INT",
                     "place": "STRUCT", "place.lat": "FLOAT", "place.name": "STRING", "price": "FLOAT",
                     "dict": "STRING"}
    assert of(made, "none").num_stats.common_stats.num_missing == 3
    assert (of(made, "nan").num_stats.histograms[0].num_nan, of(made, "nan").num_stats.max) == (1, float("inf"))
    assert of(made, "nan").num_stats.histograms[0].num_undefined == 1
    assert (of(made, "flag").num_stats.mean, of(made, "flag").num_stats.num_zeros) == (0.5, 1)
    assert (of(made, "raw").bytes_stats.max_num_bytes_int, of(made, "raw").bytes_stats.avg_num_bytes) == (2, 1)
    lists = of(made, "list").num_stats
    assert (lists.common_stats.min_num_values, lists.common_stats.max_num_values, lists.common_stats.tot_num_values,
            lists.common_stats.num_missing, lists.mean) == (0, 3, 3, 1, 1.5)
    assert (of(made, "place").struct_stats.common_stats.num_missing, of(made, "place", "lat").num_stats.mean) == (1, 2)
    assert of(made, "price").num_stats.mean == 2
    assert of(made, "dict").string_stats.top_values[0].value == "x"
    assert statistics(rows.slice(0, 0)).datasets[0].num_examples == 0


# Anomalies


def test_a_report_on_flights_becomes_anomalies() -> None:
    schema, suite = ours("departure")
    rows = flights().departures
    report = contracts.compile_suite(suite, rows.schema).check(rows)
    made, _ = to_tfx(schema.json, suite)
    found = anomalies(made, of_report(suite.expectations, report.counts, rows.num_rows, made,
                                      sides={"distance_plausible": ["low"], "hour_open": ["low"]}))
    assert anomalies_pb2.Anomalies.FromString(found.SerializeToString()) == found
    assert found.baseline == made
    assert set(found.anomaly_info) == {
        e.columns[0] for e in suite.expectations if report.counts[e.id]} >= {"tailnum", "distance", "carrier"}
    types = {c: [anomalies_pb2.AnomalyInfo.Type.Name(r.type) for r in i.reason] for c, i in found.anomaly_info.items()}
    assert types["tailnum"] == ["FEATURE_TYPE_LOW_FRACTION_PRESENT", "CUSTOM_VALIDATION"]
    assert types["distance"] == types["sched_dep_time"] == ["INT_TYPE_SMALL_INT"]
    assert types["carrier"] == ["ENUM_TYPE_UNEXPECTED_STRING_VALUES"]
    assert types["flight"] == ["CUSTOM_VALIDATION"]
    info = found.anomaly_info["tailnum"]
    assert list(info.path.step) == ["tailnum"]
    assert info.severity == anomalies_pb2.AnomalyInfo.ERROR
    assert info.short_description == "Multiple errors"
    assert "2,512 of 336,776 rows" in info.reason[0].description


def test_drift_and_columns() -> None:
    made, _ = to_tfx(record({"name": "a", "type": "string"}, {"name": "b", "type": "double"}))
    found = anomalies(made, [*of_columns(made, ["a", "c"]), Wrong("", "DATASET_LOW_NUM_EXAMPLES", "few", "3 rows")],
                      drift=[Drift("a", "jensen_shannon", 0.2, 0.1), Drift("b", "psi", 8.0, 0.25),
                             Drift("b", "l_infinity", 0.01, 0.1)])
    types = {c: [anomalies_pb2.AnomalyInfo.Type.Name(r.type) for r in i.reason] for c, i in found.anomaly_info.items()}
    assert types == {"a": ["COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"], "c": ["SCHEMA_NEW_COLUMN"],
                     "b": ["SCHEMA_MISSING_COLUMN", "CUSTOM_VALIDATION"]}
    assert found.anomaly_info["c"].severity == anomalies_pb2.AnomalyInfo.WARNING
    assert found.dataset_anomaly_info.reason[0].type == anomalies_pb2.AnomalyInfo.DATASET_LOW_NUM_EXAMPLES
    names = anomalies_pb2.DriftSkewInfo.Measurement.Type.Name
    assert [(list(d.path.step), names(m.type), m.value, m.threshold) for d in found.drift_skew_info
            for m in d.drift_measurements] == [
        (["a"], "JENSEN_SHANNON_DIVERGENCE", 0.2, 0.1), (["b"], "UNKNOWN", 8.0, 0.25), (["b"], "L_INFTY", 0.01, 0.1)]
    assert not anomalies(made, of_columns(made, ["a", "b"])).anomaly_info


# Blessings


@pytest.mark.parametrize(("kind", "yes", "no"), [
    ("model", "BLESSED", "NOT_BLESSED"), ("infra", "INFRA_BLESSED", "INFRA_NOT_BLESSED")])
def test_a_blessing_is_one_empty_file(tmp_path: Path, kind: str, yes: str, no: str) -> None:
    folder = tmp_path / "blessing" / "3"
    assert blessed(folder, kind) is None
    assert bless(folder, True, kind=kind, model="models:/m/7") == {"blessed": 1, "current_model": "models:/m/7"}
    assert [(f.name, f.read_bytes()) for f in folder.iterdir()] == [(yes, b"")]
    assert bless(folder, False, kind=kind, baseline="b") == {"blessed": 0, "baseline_model": "b"}
    assert [f.name for f in folder.iterdir()] == [no]
    assert blessed(folder, kind) is False
    (folder / yes).touch()
    with pytest.raises(UserError, match="both"):
        blessed(folder, kind)


def test_a_blessed_model_is_pushed_whole_and_once(tmp_path: Path) -> None:
    model, verdict, infra = tmp_path / "model", tmp_path / "verdict", tmp_path / "infra"
    (model / "variables").mkdir(parents=True)
    (model / "saved_model.pb").write_bytes(b"model")
    (model / "variables" / "x").write_bytes(b"x")
    target = tmp_path / "serving"
    assert push(model, target, 7, verdict=verdict) == {"pushed": 0}  # nobody has judged it
    bless(verdict, True)
    bless(infra, False, kind="infra")
    assert push(model, target, 7, verdict=verdict, infra=infra) == {"pushed": 0}
    assert not target.exists()
    bless(infra, True, kind="infra")
    made = {"pushed": 1, "pushed_destination": str(target / "7"), "pushed_version": "7"}
    assert push(model, target, 7, verdict=verdict, infra=infra) == made
    (model / "saved_model.pb").write_bytes(b"another")
    assert push(model, target, 7, verdict=verdict, infra=infra) == made
    assert {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()} == {
        "7/saved_model.pb": b"model", "7/variables/x": b"x"}
    with pytest.raises(UserError, match="no model"):
        push(tmp_path / "nothing", target, 8)
    with pytest.raises(UserError, match="no version"):
        push(model, target, 0)


# The command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs `headrace tfx …` in a folder with schemas/; gives (stdout, stderr)."""
    shutil.copytree(content("schemas"), tmp_path / "schemas")
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> tuple[str, str]:
        app = typer.Typer()
        tfx.register(app)
        result = CliRunner().invoke(app, ["tfx", *args], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout, result.stderr

    return run


def test_export_and_import_by_command(command: Any, tmp_path: Path) -> None:
    out, err = command("export", "schema", "departure", "--suite", "departure")
    assert parsed(out).feature[0].name == "flight_id"
    assert "not checked by TFX: tailnum_american" in err
    out, _ = command("export", "schema", "departure", "--suite", "departure", "--out", "d.pbtxt", "--json")
    assert json.loads(out)["file"] == "d.pbtxt"
    command("import", "d.pbtxt", "--out-dir", "new")
    assert codec.load(tmp_path / "new/departure.avsc") == ours("departure")[0]
    suite = contracts.load(tmp_path / "new/departure.expectations.json")
    wanted = ours("departure")[1].expectations
    assert [(e.id, e.kwargs) for e in suite.expectations] == [(e.id, e.kwargs) for e in wanted]
    with pytest.raises(UserError, match="already there"):
        command("import", "d.pbtxt", "--out-dir", "new")
    Path("chicago taxi.pbtxt").write_text(FOREIGN)
    out, _ = command("import", "chicago taxi.pbtxt", "--json")
    assert json.loads(out) == {"file": "chicago taxi.pbtxt", "fields": 5, "expectations": 3, "written": [
        "schemas/chicago_taxi.avsc", "schemas/chicago_taxi.expectations.json"]}


def test_statistics_by_command(command: Any) -> None:
    frame = pl.DataFrame({"a": [1, 2, None], "b": ["x", "y", "x"]})
    frame.write_csv("f.csv")
    frame.write_parquet("f.parquet")
    Path("schemas/f.avsc").write_text(json.dumps(record(
        {"name": "a", "type": ["null", "long"]}, {"name": "b", "type": "string"})))
    Path("f.jsonl").write_text('{"a": 1, "b": "x"}\n{"a": "?", "b": "x"}\n{"a": 2, "b": "y"}\n{"a": null, "b": "x"}\n')
    wanted = statistics(frame.to_arrow()).datasets[0].features
    for file, *more in (("f.csv",), ("f.parquet",), ("f.csv", "--schema", "f"), ("f.jsonl", "--schema", "f")):
        out, err = command("export", "statistics", file, *more)
        assert text_format.Parse(out, statistics_pb2.DatasetFeatureStatisticsList()).datasets[0].features == wanted
        assert ("1 records" in err) == (file == "f.jsonl")
    command("export", "statistics", "f.csv", "--out", "s.pb")
    read = statistics_pb2.DatasetFeatureStatisticsList.FromString(Path("s.pb").read_bytes())
    assert read.datasets[0].num_examples == 3
    out, _ = command("export", "statistics", "f.csv", "--json")
    assert json.loads(out)["statistics"]["datasets"][0]["features"][0]["num_stats"]["mean"] == 1.5


@pytest.mark.parametrize(("args", "why"), [
    (["export", "schema", "nothing"], "no schema “nothing”"), (["export", "statistics", "n.csv"], "no file n.csv"),
    (["export", "statistics", "schemas/departure.avsc"], "format"), (["import", "n.pbtxt"], "cannot be read"),
    (["export", "schema", "departure", "--suite", "none"], "no such suite"),
    (["import", "schemas/departure.avsc"], "not a TFX schema")])
def test_mistakes_are_told(command: Any, args: list[str], why: str) -> None:
    with pytest.raises(HeadraceError, match=why):
        command(*args)


def test_a_stream_of_json_lines_needs_its_schema(command: Any) -> None:
    Path("f.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="--schema"):
        command("export", "statistics", "f.jsonl")
