"""datagen: the same records for the same seed, wherever a run begins, of every type a schema may have."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from headrace.codec import Decoder, Encoder, load, parse
from headrace.connectors.datagen import SOURCE, DatagenConfig, drawn, maker
from headrace.errors import SchemaError

pytestmark = pytest.mark.unit

EVERYTHING = {"type": "record", "name": "Order", "namespace": "a.b", "fields": [
    {"name": "id", "type": "long"}, {"name": "ref", "type": "string", "headrace.grows": True},
    {"name": "customer_id", "type": "int"}, {"name": "price", "type": "double"},
    {"name": "discount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    {"name": "wide", "type": {"type": "bytes", "logicalType": "decimal", "precision": 50, "scale": 3,
                              "headrace.range": [-5, 5]}},
    {"name": "status", "type": {"type": "enum", "name": "Status", "symbols": ["NEW", "PAID"]}},
    {"name": "before", "type": ["null", "Status"], "default": None, "headrace.null": 0.5},
    {"name": "city", "type": "string"}, {"name": "note", "type": ["null", "string"]},
    {"name": "ordered_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "due", "type": {"type": "int", "logicalType": "date"}, "headrace.range": ["2026-01-01", "2026-01-31"]},
    {"name": "noon", "type": {"type": "int", "logicalType": "time-millis"}},
    {"name": "exact", "type": {"type": "long", "logicalType": "time-micros"}},
    {"name": "token", "type": {"type": "string", "logicalType": "uuid"}}, {"name": "paid", "type": "boolean"},
    {"name": "raw", "type": "bytes"}, {"name": "digest", "type": {"type": "fixed", "name": "D", "size": 5}},
    {"name": "span", "type": {"type": "fixed", "name": "S", "size": 12, "logicalType": "duration"}},
    {"name": "nothing", "type": "null"}, {"name": "ratio", "type": "float"},
    {"name": "either", "type": ["null", "long", "string", "D"]},
    {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
        {"name": "id", "type": "int"}, {"name": "qty", "type": "int", "headrace.range": [2, 4]}]}}},
    {"name": "tags", "type": {"type": "map", "values": ["null", "string"]}, "headrace.length": [1, 2]},
    {"name": "home", "type": {"type": "record", "name": "Place", "fields": [
        {"name": "lat", "type": "double"}, {"name": "level", "type": "string", "headrace.values": ["x", "y"]}]}},
    {"name": "work", "type": ["null", "Place"]}]}
SCHEMA = parse(json.dumps(EVERYTHING))


def config(**keys: Any) -> DatagenConfig:
    return DatagenConfig.model_validate({"topic": "t", "schema": "s", "records.max": "1000",
                                         **{k.replace("__", "."): v for k, v in keys.items()}})


def rows(first: int = 0, count: int = 1000, **keys: Any) -> pa.RecordBatch:
    return maker(SCHEMA, config(**keys))(first, count)


def test_a_record_is_the_same_wherever_a_run_begins() -> None:
    whole = rows()
    whole.validate(full=True)
    assert whole.schema == SCHEMA.arrow
    for first, count in ((0, 1), (1, 99), (500, 500), (999, 1)):
        assert rows(first, count).to_pylist() == whole.slice(first, count).to_pylist()
    assert rows(seed="1").to_pylist() != whole.to_pylist()
    assert rows(0, 0).num_rows == 0


def test_every_type_is_written_and_read_as_avro() -> None:
    made = rows()
    encoder = Encoder(SCHEMA, SCHEMA.arrow, 7)
    values, _, rejects = encoder.encode_checked(made)
    assert rejects == []
    decoded = Decoder(SCHEMA, lambda _: SCHEMA).decode(values)
    assert decoded.rows.to_pylist() == made.to_pylist()


def test_values_are_what_names_types_and_properties_say() -> None:
    made = rows()
    cell = made.column
    assert cell("id").to_pylist() == list(range(1, 1001))
    assert cell("ref")[:2].to_pylist() == ["ref-1", "ref-2"]
    ranges = {"customer_id": (1, 1000), "price": (1, 1000), "discount": (0, 1000), "wide": (-5, 5), "ratio": (0, 1),
              "due": (date(2026, 1, 1), date(2026, 1, 31))}
    for name, (low, high) in ranges.items():
        found = pc.min_max(cell(name)).as_py()
        assert low <= found["min"] < found["max"] <= high, name
    assert set(cell("status").to_pylist()) == {"NEW", "PAID"}
    assert 400 < cell("before").null_count < 600
    assert 50 < cell("note").null_count < 150
    assert 50 < cell("either").null_count < 150
    assert "Oslo" in set(cell("city").to_pylist())
    assert 400 < pc.sum(cell("paid")).as_py() < 600
    times = cell("ordered_at").to_pylist()
    assert times == sorted(times)
    assert times[0] >= datetime(2026, 1, 1, tzinfo=UTC)
    assert (times[-1] - times[0]).total_seconds() == pytest.approx(999, abs=1)
    assert pc.count_distinct(cell("token")).as_py() == 1000
    assert pc.all(pc.match_substring_regex(
        cell("token"), r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")).as_py()
    lines = cell("lines").flatten()
    assert set(pc.list_value_length(cell("lines")).to_pylist()) == {0, 1, 2, 3}
    assert set(lines.field("qty").to_pylist()) == {2, 3, 4}
    assert {len(tags) for tags in cell("tags").to_pylist()} == {1, 2}
    assert set(cell("home").field("level").to_pylist()) == {"x", "y"}
    branches = [name for one in cell("either").to_pylist() if one for name, v in one.items() if v is not None]
    assert len(branches) == 1000 - cell("either").null_count
    assert set(branches) == {"long", "string", "D"}


def test_numbers_are_spread_evenly() -> None:
    found = np.bincount((drawn(7, np.arange(100_000, dtype=np.uint64)) % np.uint64(10)).astype(np.int64))
    assert (np.abs(found - 10_000) < 500).all()


def test_the_source_ends_at_records_max_and_goes_on_at_its_position() -> None:
    source = SOURCE(config(records__max="50"), project=Path())
    source.schema = parse('{"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}]}')
    source.open(lambda partition: None)
    first = source.pull(30)
    assert first is not None
    assert (dict(first.partition), dict(first.position), len(first)) == ({"datagen": "t"}, {"record": 30}, 30)
    source.open(lambda partition: first.position)
    rest = source.pull(30)
    assert rest is not None
    assert rest.records[0].value.values.field("id").to_pylist() == list(range(31, 51))
    assert rest.where(0) == "record 30"
    assert not source.ended
    assert source.pull(30) is None
    assert source.ended


@pytest.mark.parametrize(("field", "message"), [
    ({"name": "n", "type": "int", "headrace.range": [1]}, "n: headrace.range is a list of two"),
    ({"name": "n", "type": "int", "headrace.range": [5, 1]}, "is no range of int"),
    ({"name": "n", "type": "int", "headrace.range": ["a", "b"]}, "a property of n: \"a\" is not an int"),
    ({"name": "n", "type": "string", "headrace.values": [1]}, "a property of n: 1 is not a string"),
    ({"name": "n", "type": "string", "headrace.values": []}, "n: headrace.values is empty"),
    ({"name": "n", "type": {"type": "array", "items": "int"}, "headrace.length": [3, 1]}, "headrace.length"),
])
def test_a_property_that_does_not_fit_is_told(field: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        maker(parse(json.dumps({"type": "record", "name": "R", "fields": [field]})), config())


def test_it_says_how_many_or_how_fast() -> None:
    with pytest.raises(ValidationError, match=r"records\.max: neither"):
        config(records__max=None)
    assert config(records__max=None, rate__records__per__second="5").rate == 5


def test_the_schemas_of_the_demo() -> None:
    schemas = [load(path) for path in (Path(__file__).parents[2] / "schemas").glob("*.avsc")]
    assert schemas
    for schema in schemas:
        maker(schema, config())(0, 100).validate(full=True)
