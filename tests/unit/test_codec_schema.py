"""Avro schemas as values: what is read, what is refused and in which words, and the way from Arrow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest

from headrace import codec
from headrace.errors import SchemaError

pytestmark = pytest.mark.unit


def record(*fields: Any, **more: Any) -> str:
    """The text of a record R with fields a, b, c … of these types."""
    listed = [{"name": chr(97 + i), "type": t} for i, t in enumerate(fields)]
    return json.dumps({"type": "record", "name": "R", "fields": listed, **more})


def held(written: Any) -> pa.Field:
    return codec.parse(record(written)).arrow.field("a")


def decimal(precision: int, scale: int = 0, **more: Any) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale, **more}


ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
HELD: list[tuple[Any, pa.DataType]] = [
    ("null", pa.null()), ("boolean", pa.bool_()), ("int", pa.int32()), ("long", pa.int64()), ("float", pa.float32()),
    ("double", pa.float64()), ("bytes", pa.binary()), ("string", pa.string()), (ENUM, pa.string()),
    ({"type": "fixed", "name": "F", "size": 3}, pa.binary(3)),
    ({"type": "array", "items": "int"}, pa.list_(pa.field("item", pa.int32(), nullable=False))),
    ({"type": "map", "values": ["null", "int"]}, pa.map_(pa.string(), pa.field("value", pa.int32()))),
    ({"type": "record", "name": "S", "fields": [{"name": "x", "type": ["long", "null"]}]},
     pa.struct([pa.field("x", pa.int64())])),
    (["int", "string", ENUM], pa.struct([("int", pa.int32()), ("string", pa.string()), ("E", pa.string())])),
    ([{"type": "fixed", "name": "x.F", "size": 1}, {"type": "fixed", "name": "y.F", "size": 2}],
     pa.struct([("x.F", pa.binary(1)), ("y.F", pa.binary(2))])),
    (["string"], pa.string()), (["null"], pa.null()),
    (decimal(38, 2), pa.decimal128(38, 2)), (decimal(39, 2), pa.decimal256(39, 2)),
    ({**decimal(4, 1), "type": "fixed", "name": "D", "size": 2}, pa.decimal128(4, 1)),
    ({"type": "string", "logicalType": "uuid"}, pa.string()),
    ({"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}, pa.string()),
    ({"type": "int", "logicalType": "date"}, pa.date32()),
    ({"type": "int", "logicalType": "time-millis"}, pa.time32("ms")),
    ({"type": "long", "logicalType": "time-micros"}, pa.time64("us")),
    ({"type": "long", "logicalType": "timestamp-millis"}, pa.timestamp("ms", "UTC")),
    ({"type": "long", "logicalType": "timestamp-micros"}, pa.timestamp("us", "UTC")),
    ({"type": "long", "logicalType": "timestamp-nanos"}, pa.timestamp("ns", "UTC")),
    ({"type": "long", "logicalType": "local-timestamp-millis"}, pa.timestamp("ms")),
    ({"type": "long", "logicalType": "local-timestamp-nanos"}, pa.timestamp("ns")),
    ({"type": "fixed", "name": "P", "size": 12, "logicalType": "duration"},
     pa.struct([pa.field(n, pa.uint32(), nullable=False) for n in ("months", "days", "millis")])),
]


@pytest.mark.parametrize(("written", "arrow"), HELD, ids=[str(a) for _, a in HELD])
def test_every_type_has_its_arrow_type(written: Any, arrow: pa.DataType) -> None:
    assert held(written).type == arrow
    if not isinstance(written, list) and written != "null":
        assert not held(written).nullable
        assert held(["null", written]) == pa.field("a", arrow)


@pytest.mark.parametrize("written", [
    {"type": "int", "logicalType": "timestamp-millis"}, {"type": "long", "logicalType": "date"},
    {"type": "long", "logicalType": "no-such"}, {"type": "fixed", "name": "F", "size": 4, "logicalType": "uuid"},
    decimal(0), decimal(3, 4), decimal(3, -1), {"type": "bytes", "logicalType": "decimal"},
    {**decimal(5), "type": "fixed", "name": "F", "size": 2},
], ids=str)
def test_a_logical_type_that_does_not_fit_is_ignored(written: dict[str, Any]) -> None:
    plain = {"int": pa.int32(), "long": pa.int64(), "bytes": pa.binary(), "fixed": pa.binary(written.get("size", 1))}
    assert held(written).type == plain[written["type"]]


def nested(depth: int) -> Any:
    return {"type": "array", "items": nested(depth - 1)} if depth else "int"


def doubling(depth: int) -> str:
    """A schema whose every record has twice the one before: small as text, 2 ** depth types when written out."""
    inner: Any = "int"
    for i in range(depth):
        inner = {"type": "record", "name": f"D{i}", "fields": [
            {"name": "x", "type": inner}, {"name": "y", "type": f"D{i - 1}" if i else "int"}]}
    return json.dumps(inner)


REFUSED = [
    (record(nested(70)), "nested more than 64 levels deep"), ("[" * 100_000, "nested too deeply"),
    (doubling(30), "types when its names are written out, of at most 20,000"),
    ("{", "not JSON"),
    (record(["null", "R"]), "R.a: R contains itself: a recursive schema"),
    (record({"type": "array", "items": "R"}), "R.a[]: R contains itself"),
    (record("itn"), "R.a: unknown type “itn”"),
    (record(["int", "int"]), "R.a: a union with int twice"),
    (record(["int", ["null", "string"]]), "R.a: a union directly inside a union"),
    (record([]), "R.a: a union without branches"),
    (record(ENUM, {"type": "fixed", "name": "E", "size": 1}), "R.b: E is defined twice"),
    (record({"type": "enum", "name": "E", "symbols": ["A", "A"]}), "R.a: enum symbols that are no names, or twice: A"),
    (record({"type": "enum", "name": "E", "symbols": ["1x"]}), "1x"),
    (record({**ENUM, "default": "C"}), 'the default "C" is not among the symbols A, B'),
    (record({"type": "fixed", "name": "F", "size": -1}), "a fixed of size -1"),
    (record({"type": "array"}), "R.a: array without “items”"),
    (record(decimal(77)), "R.a: a decimal of 77 digits; Arrow holds 76"),
    (record(7), "R.a: a type is a name, a list or an object"),
    (record(name="no name"), '"no name" is no Avro name'),
    ('{"type": "record", "name": "R"}', "record without “fields”"),
    ('{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}, {"name": "a", "type": "int"}]}',
     "field “a” twice"),
    *((json.dumps({"type": "record", "name": "R", "fields": [{"name": "a", "type": t, "default": d}]}), why)
      for t, d, why in [
          ("int", "x", 'R.a: its default does not fit: "x" is not int'), ("int", 2**31, "out of the range of int"),
          ("int", True, "true is not int"), (["null", "int"], "x", "fits no branch of [null, int]"),
          (ENUM, "C", "'C' is not a symbol of enum E"),
          ({"type": "fixed", "name": "F", "size": 2}, "x", "1 bytes where"),
          ({"type": "record", "name": "S", "fields": [{"name": "x", "type": "int"}]}, {}, "it leaves x unset"),
      ]),
]


@pytest.mark.parametrize(("text", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_is_refused_says_where_and_why(text: str, why: str) -> None:
    with pytest.raises(SchemaError) as error:
        codec.parse(text, where="f.avsc")
    assert str(error.value).startswith("f.avsc: ")
    assert why in str(error.value)


def test_equal_schemas_are_equal_whatever_the_order_of_keys_and_spaces() -> None:
    one = codec.parse('{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int", "default": 1}]}')
    two = codec.parse('{"fields":[{"default":1,"type":"int","name":"a"}],"name":"R","type":"record"}')
    three = codec.parse('{"fields":[{"default":2,"type":"int","name":"a"}],"name":"R","type":"record"}')
    assert one == two
    assert hash(one) == hash(two)
    assert one != three
    assert one.fingerprint == three.fingerprint  # they write the same bytes
    assert codec.parse(one.text) == one


@pytest.mark.parametrize("written", [t for t, _ in HELD], ids=[str(a) for _, a in HELD])
def test_the_fingerprint_is_that_of_fastavro(written: Any) -> None:
    text = record(written, namespace="x.y")
    canonical = fastavro.schema.to_parsing_canonical_form(json.loads(text))
    assert codec.parse(text).fingerprint == fastavro.schema.fingerprint(canonical, "SHA-256")


def test_a_top_level_that_is_no_record_is_a_record_of_one_column() -> None:
    for text in ('"string"', "string", '{"type": "string"}'):  # the second as some registries keep it
        schema = codec.parse(text)
        assert schema.arrow == pa.schema([pa.field("value", pa.string(), nullable=False)])
        assert schema.name == ""


def test_a_name_finds_its_type_in_its_namespace_and_in_known_schemas() -> None:
    inner = '{"type": "enum", "name": "x.E", "symbols": ["A"]}'
    text = record({**ENUM, "name": "F"}, "F", "x.E", namespace="y")
    assert codec.parse(text, known=[inner]).arrow.names == ["a", "b", "c"]
    with pytest.raises(SchemaError, match=r"unknown type “x\.E”"):
        codec.parse(text)


def test_a_file_is_read_and_a_missing_one_named(tmp_path: Path) -> None:
    file = tmp_path / "r.avsc"
    file.write_text(record("int"))
    assert codec.load(file).name == "R"
    with pytest.raises(SchemaError, match=r"gone\.avsc: cannot be read: No such file"):
        codec.load(tmp_path / "gone.avsc")
    file.write_bytes(b"\xff")
    with pytest.raises(SchemaError, match="cannot be read"):
        codec.load(file)


def test_from_arrow_gives_a_schema_that_holds_the_same_columns() -> None:
    struct = pa.struct([pa.field("x", pa.int64()), pa.field("y", pa.string(), nullable=False)])
    types = [arrow for _, arrow in HELD if not pa.types.is_struct(arrow)] + [struct]
    rows = pa.schema([(f"f{i}", arrow) for i, arrow in enumerate(types)])
    made = codec.from_arrow(rows, name="Out", namespace="n.s")
    assert made.name == "n.s.Out"
    assert made.arrow == rows
    assert codec.assignable(rows, made) == []
    required = pa.schema([pa.field("a", pa.int32(), nullable=False)])
    assert codec.from_arrow(required, name="Out").arrow == required


@pytest.mark.parametrize(("given", "taken"), [
    (pa.int8(), pa.int32()), (pa.uint16(), pa.int32()), (pa.uint32(), pa.int64()), (pa.float16(), pa.float32()),
    (pa.large_string(), pa.string()), (pa.string_view(), pa.string()),
    (pa.dictionary(pa.int32(), pa.string()), pa.string()),
    (pa.large_binary(), pa.binary()), (pa.date64(), pa.date32()), (pa.time64("ns"), pa.time64("us")),
    (pa.timestamp("s", "Europe/Paris"), pa.timestamp("ms", "UTC")), (pa.timestamp("us"), pa.timestamp("us")),
], ids=str)
def test_from_arrow_takes_what_polars_gives(given: pa.DataType, taken: pa.DataType) -> None:
    assert codec.from_arrow(pa.schema([("a", given)]), name="Out").arrow == pa.schema([("a", taken)])


@pytest.mark.parametrize(("column", "why"), [
    (pa.field("a", pa.uint64()), "Avro has no type for uint64\n  cast it to int64"),
    (pa.field("a", pa.duration("us")), "Avro has no type for duration[us]"),
    (pa.field("a b", pa.int32()), "column “a b” has no Avro name"),
    (pa.field("a", pa.struct([pa.field("x", pa.uint64())])), "column Out_a_x: Avro has no type"),
], ids=str)
def test_from_arrow_names_the_column_that_has_no_avro_type(column: pa.Field, why: str) -> None:
    with pytest.raises(SchemaError) as error:
        codec.from_arrow(pa.schema([column]), name="Out")
    assert why in str(error.value)
