"""Rows to Kafka values: what fits, what is filled, dropped and widened, and the rows a schema cannot hold."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import fastavro
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from headrace import codec
from headrace.codec import AvroSchema, Encoder
from headrace.errors import SchemaError

pytestmark = pytest.mark.unit


def schema(*fields: Any) -> AvroSchema:
    """A record R with fields a, b, c … of these types; (type, default) gives one a default."""
    listed = [{"name": chr(97 + i), **({"type": f[0], "default": f[1]} if isinstance(f, tuple) else {"type": f})}
              for i, f in enumerate(fields)]
    return codec.parse(json.dumps({"type": "record", "name": "R", "fields": listed}))


def read_back(target: AvroSchema, payloads: list[bytes]) -> list[Any]:
    """What fastavro reads; union branches as (name, value) where they are records or enums."""
    parsed = fastavro.parse_schema(target.json)
    return [fastavro.schemaless_reader(io.BytesIO(p[5:]), parsed) for p in payloads]


def encode(target: AvroSchema, rows: pa.RecordBatch) -> list[Any]:
    return read_back(target, Encoder(target, rows.schema, 1).encode(rows))


def batch(**columns: Any) -> pa.RecordBatch:
    return pa.record_batch(columns)


def test_the_frame_has_the_schemas_id_and_each_row_its_value() -> None:
    target = schema("string", ["null", "int"])
    rows = batch(a=["x", "", "é" * 200], b=pa.array([1, None, -70000], pa.int32()))
    payloads = Encoder(target, rows.schema, 0x01020304).encode(rows)
    assert {p[:5] for p in payloads} == {b"\0\1\2\3\4"}
    assert read_back(target, payloads) == rows.to_pylist()
    assert Encoder(target, rows.schema, 7).encode(rows.slice(0, 0)) == []


def test_the_bytes_are_those_of_fastavro_for_strings_of_every_length() -> None:
    target = schema("string", "long", "bytes")
    texts = ["x" * n for n in [*range(40), 63, 64, 255, 256, 257, 5000]] * 3
    rows = batch(a=texts, b=[n * 10**n for n in range(len(texts) // 9)] * 9 + [0] * (len(texts) % 9),
                 c=[t.encode() for t in reversed(texts)])
    parsed = fastavro.parse_schema(target.json)
    wanted = []
    for row in rows.to_pylist():
        out = io.BytesIO(b"\0\0\0\0\1")
        out.seek(5)
        fastavro.schemaless_writer(out, parsed, row)
        wanted.append(out.getvalue())
    assert Encoder(target, rows.schema, 1).encode(rows) == wanted


def test_columns_go_by_name_missing_ones_are_filled_and_others_dropped() -> None:
    target = schema("int", ("string", "dflt"), ["null", "long"], ({"type": "array", "items": "int"}, [1, 2]),
                    ({"type": "map", "values": "string"}, {"k": "v"}))
    rows = batch(z=[1.5, 2.5], a=pa.array([7, 8], pa.int32()))
    assert encode(target, rows) == [{"a": n, "b": "dflt", "c": None, "d": [1, 2], "e": {"k": "v"}} for n in (7, 8)]


WIDENED: list[tuple[Any, pa.Array]] = [
    ("int", pa.array([1, -2], pa.int8())), ("int", pa.array([1, 65535], pa.uint16())),
    ("long", pa.array([1, 2**32 - 1], pa.uint32())), ("double", pa.array([1, 2**31 - 1], pa.int32())),
    ("double", pa.array([0.5, -1.5], pa.float32())), ("float", pa.array([0.5, -1.5], pa.float16())),
    ("string", pa.array(["a", "bc"], pa.large_string())), ("string", pa.array(["a", "x" * 50], pa.string_view())),
    ("string", pa.array(["a", "a"]).dictionary_encode()), ("bytes", pa.array([b"a", b""], pa.large_binary())),
    ("bytes", pa.array(["a", "é"]).cast(pa.binary())),
    ({"type": "array", "items": "int"}, pa.array([[1], []], pa.large_list(pa.int32()))),
    ({"type": "array", "items": "int"}, pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2))),
]


@pytest.mark.parametrize(("avro", "column"), WIDENED, ids=[f"{c.type}" for _, c in WIDENED])
def test_narrower_and_other_forms_of_a_type_are_written(avro: Any, column: pa.Array) -> None:
    assert [r["a"] for r in encode(schema(avro), batch(a=column))] == column.to_pylist()
    assert [r["a"] for r in encode(schema(avro), batch(a=column).slice(1))] == column.to_pylist()[1:]


LOGICAL: list[tuple[Any, list[Any]]] = [
    ({"type": "int", "logicalType": "date"}, [date(2013, 2, 8), date(1, 1, 1)]),
    ({"type": "int", "logicalType": "time-millis"}, [time(5, 30, 1), time(23, 59, 59, 999000)]),
    ({"type": "long", "logicalType": "time-micros"}, [time(5, 30, 1), time(0, 0, 0, 1)]),
    ({"type": "long", "logicalType": "timestamp-millis"},
     [datetime(2013, 2, 8, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)]),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, [datetime(2013, 2, 8, 1, 2, 3, 4)] * 2),
    ({"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2},
     [Decimal("-0.01"), Decimal("9" * 18 + ".99")]),
    ({"type": "fixed", "name": "D", "size": 20, "logicalType": "decimal", "precision": 40, "scale": 0},
     [Decimal(-1), Decimal("9" * 40)]),
]


@pytest.mark.parametrize(("avro", "values"), LOGICAL, ids=[t["logicalType"] for t, _ in LOGICAL])
def test_logical_types_are_written_also_from_polars(avro: Any, values: list[Any]) -> None:
    target = schema(avro)
    rows = pa.record_batch([pa.array(values, target.arrow.field("a").type)], ["a"])
    assert [r["a"] for r in encode(target, rows)] == values
    if avro.get("precision", 0) <= 38:
        through = pl.from_arrow(rows).to_arrow().to_batches()[0]
        assert codec.assignable(through.schema, target) == []
        assert [r["a"] for r in encode(target, through)] == values


def test_a_finer_instant_takes_a_coarser_one_and_any_zone() -> None:
    noon = datetime(2013, 2, 8, 12, tzinfo=UTC)
    target = schema({"type": "long", "logicalType": "timestamp-micros"})
    rows = batch(a=pa.array([noon], pa.timestamp("s", "Europe/Paris")))
    assert encode(target, rows) == [{"a": noon}]


def test_maps_come_from_maps_and_from_what_polars_makes_of_them() -> None:
    target = schema({"type": "map", "values": ["null", "int"]})
    pairs = [[("k", 1), ("l", None)], [], [("m", 3)]]
    as_map = pa.array(pairs, pa.map_(pa.string(), pa.int32()))
    as_list = pa.array([[{"key": k, "value": v} for k, v in p] for p in pairs],
                       pa.list_(pa.struct([("key", pa.large_string()), ("value", pa.int32())])))
    for column in (as_map, as_list):
        assert encode(target, batch(a=column)) == [{"a": dict(p)} for p in pairs]
        assert encode(target, batch(a=column).slice(2)) == [{"a": dict(pairs[2])}]


def test_a_general_union_comes_from_a_struct_or_from_one_of_its_types() -> None:
    target = schema(["int", "null", "string", {"type": "enum", "name": "E", "symbols": ["P"]}])
    members = [{"int": 1}, {"string": "x"}, None, {"E": "P"}, {}]
    column = pa.array(members, target.arrow.field("a").type)
    assert [r["a"] for r in encode(target, batch(a=column))] == [1, "x", None, "P", None]
    assert [r["a"] for r in encode(target, batch(a=["x", None, "y"]))] == ["x", None, "y"]
    branches = Encoder(target, batch(a=column).schema, 1).encode(batch(a=column))
    assert [p[5] // 2 for p in branches] == [0, 2, 1, 3, 1]


FIXED = {"type": "fixed", "name": "F", "size": 2}
UUID = {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}
REJECTED: list[tuple[Any, pa.Array, list[tuple[int, str]]]] = [
    ("int", pa.array([1, None, 3], pa.int32()), [(1, "null_value: a is null, and the schema has no null there")]),
    ("string", pa.array(["x", None]), [(1, "null_value: a")]),
    ({"type": "array", "items": "int"}, pa.array([[1], [2, None], None, []], pa.list_(pa.int32())),
     [(1, "null_value: a[] is null"), (2, "null_value: a is null")]),
    ({"type": "record", "name": "S", "fields": [{"name": "x", "type": "int"}]},
     pa.array([{"x": 1}, None, {"x": None}], pa.struct([("x", pa.int32())])),
     [(1, "null_value: a is null"), (2, "null_value: a.x is null")]),
    ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, pa.array(["A", "C", "B"]),
     [(1, "unknown_symbol: a is not one of A, B")]),
    ({"type": "bytes", "logicalType": "decimal", "precision": 3, "scale": 1},
     pa.array([Decimal("1.0"), Decimal("100.0"), Decimal("-99.9")], pa.decimal128(38, 1)), [(1, "out_of_range: a")]),
    (FIXED, pa.array([b"ab", b"abc", b"", b"cd"]), [(1, "wrong_size: a has not the 2 bytes"), (2, "wrong_size")]),
    (UUID, pa.array(["00010203-0405-0607-0809-0a0b0c0d0e0f", "x", "00010203-0405-0607-0809-0a0b0c0d0e0g"]),
     [(1, "not_a_uuid: a"), (2, "not_a_uuid: a")]),
    ({"type": "int", "logicalType": "time-millis"}, pa.array([10**6, 1, 2 * 10**6], pa.time64("ns")),
     [(1, "out_of_range: a does not fit time32[ms]")]),
    ({"type": "int", "logicalType": "time-millis"}, pa.array([-1, 1, 86_400_000], pa.time32("ms")),
     [(0, "out_of_range: a is no time-millis"), (2, "out_of_range: a is no time-millis")]),
    (["int", "string"], pa.array([{"int": 1}, None, {"int": 1, "string": "x"}, {}],
                                 pa.struct([("int", pa.int32()), ("string", pa.string())])),
     [(1, "null_value: a"), (2, "ambiguous_union: a"), (3, "null_value: a")]),
]


@pytest.mark.parametrize(("avro", "column", "why"), REJECTED, ids=[w[0][1] for _, _, w in REJECTED])
def test_a_row_that_the_schema_cannot_hold_is_told_apart_and_the_others_are_written(
        avro: Any, column: pa.Array, why: list[tuple[int, str]]) -> None:
    target, rows = schema(avro, "int"), batch(a=column, b=pa.array(range(len(column)), pa.int32()))
    payloads, index, rejects = Encoder(target, rows.schema, 1).encode_checked(rows)
    assert [at for at, _ in rejects] == [at for at, _ in why]
    for (_, said), (_, wanted) in zip(rejects, why, strict=True):
        assert said.startswith(wanted), said
    assert index is not None
    assert index.tolist() == [i for i in range(len(column)) if i not in dict(why)]
    assert [r["b"] for r in read_back(target, payloads)] == index.tolist()
    with pytest.raises(SchemaError, match=f"row {why[0][0]} is no R: "):
        Encoder(target, rows.schema, 1).encode(rows)


@pytest.mark.parametrize(("avro", "arrow", "why"), [
    ("int", pa.int64(), "a: int64 does not fit int: cast it to int32, or change the schema"),
    ("long", pa.uint64(), "a: uint64 does not fit long"), ("int", pa.string(), "a: string does not fit int"),
    ("string", pa.int32(), "a: int32 does not fit string"), ("float", pa.float64(), "a: double does not fit float"),
    ("boolean", pa.int32(), "a: int32 does not fit boolean"), ("int", pa.null(), "a: the column has no values"),
    ({"type": "long", "logicalType": "timestamp-millis"}, pa.timestamp("ms"), "a: timestamp[ms] does not fit long"),
    ({"type": "long", "logicalType": "timestamp-millis"}, pa.timestamp("us", "UTC"), "a: timestamp[us, tz=UTC] does"),
    ({"type": "bytes", "logicalType": "decimal", "precision": 3, "scale": 1}, pa.decimal128(3, 2), "a: decimal128("),
    (FIXED, pa.binary(3), "a: fixed_size_binary[3] does not fit fixed F of 2 bytes"),
    ({"type": "array", "items": "int"}, pa.list_(pa.string()), "a[]: string does not fit int"),
    ({"type": "map", "values": "int"}, pa.list_(pa.int32()), "a: list<item: int32> is no map<int>"),
    ({"type": "record", "name": "S", "fields": [{"name": "x", "type": "int"}]}, pa.struct([("y", pa.int32())]),
     "a.x: no such column, and the field has no default"),
    (["int", "string"], pa.bool_(), "a: bool fits no branch of [int, string]"),
    (["null", "int"], pa.int64(), "a: int64 does not fit int"),
], ids=str)
def test_rows_that_do_not_fit_say_which_column_and_what_to_do(avro: Any, arrow: pa.DataType, why: str) -> None:
    rows = pa.schema([("a", arrow)])
    problems = codec.assignable(rows, schema(avro))
    assert len(problems) == 1
    assert problems[0].startswith(why), problems
    with pytest.raises(SchemaError, match="rows cannot be written as R: a"):
        Encoder(schema(avro), rows, 1)


def test_every_problem_is_told_at_once() -> None:
    assert len(codec.assignable(pa.schema([("a", pa.bool_())]), schema("int", "string", "long"))) == 3


def test_a_nullable_column_may_feed_a_required_field() -> None:
    assert codec.assignable(pa.schema([("a", pa.int32())]), schema("int")) == []
    assert codec.assignable(pa.schema([("a", pa.null())]), schema(["null", "int"])) == []


def test_rows_of_another_arrow_schema_than_planned_are_planned_for_anew() -> None:
    target = schema("string")
    encoder = Encoder(target, pa.schema([("a", pa.string())]), 1)
    assert read_back(target, encoder.encode(batch(a=pa.array(["x"], pa.large_string())))) == [{"a": "x"}]


def test_many_rows_of_every_size() -> None:
    chance = np.random.default_rng(5)
    n = 20_000
    numbers = chance.integers(-(1 << 62), 1 << 62, n) >> chance.integers(0, 62, n)
    rows = batch(a=numbers, b=[None if v % 3 == 0 else "t" * int(v % 30) for v in numbers],
                 c=[[float(v)] * int(v % 4) for v in numbers])
    target = schema("long", ["null", "string"], {"type": "array", "items": "double"})
    payloads = Encoder(target, rows.schema, 1).encode(rows)
    decoded = codec.Decoder(target, lambda number: target).decode(payloads)
    assert decoded.rejects == []
    assert decoded.rows.to_pylist() == rows.to_pylist()
    assert read_back(target, payloads[:500]) == rows.slice(0, 500).to_pylist()
