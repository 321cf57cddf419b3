"""Kafka values to rows: framing, schemas by id, resolution, and the reason of everything that is no record."""

from __future__ import annotations

import io
import json
import random
import struct
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

import fastavro
import pyarrow as pa
import pytest

from headrace import codec
from headrace.codec import AvroSchema, Decoded, Decoder, UnknownSchema
from headrace.errors import RegistryError, SchemaError

pytestmark = pytest.mark.unit


def record(*fields: Any, **more: Any) -> dict[str, Any]:
    """A record R with fields a, b, c … of these types; a field may be a whole object with a name."""
    listed = [f if isinstance(f, dict) and "name" in f and "type" in f and f["type"] not in ("enum", "fixed", "record")
              else {"name": chr(97 + i), "type": f} for i, f in enumerate(fields)]
    return {"type": "record", "name": "R", "fields": listed, **more}


def schema(written: Any) -> AvroSchema:
    return codec.parse(json.dumps(written))


def frame(body: bytes, number: int = 1) -> bytes:
    return b"\0" + struct.pack(">I", number) + body


def write(written: Any, value: Any, number: int = 1) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(written))), value)
    return frame(out.getvalue(), number)


def read(writer: Any, payloads: Sequence[bytes | None], reader: Any = None) -> Decoded:
    return Decoder(schema(reader or writer), lambda number: schema(writer)).decode(payloads)


def column(writer: Any, bodies: Sequence[bytes], reader: Any = None) -> list[Any]:
    """Field a of records with these bodies; all are to be accepted."""
    found = read(writer, [frame(b) for b in bodies], reader)
    assert found.rejects == []
    values: list[Any] = found.rows["a"].to_pylist()
    return values


def reason(writer: Any, body: bytes, reader: Any = None) -> str:
    """Why a record is refused, between two that are accepted."""
    found = read(writer, [frame(body)], reader)
    assert len(found.rejects) == 1, found.rows.to_pylist()
    return found.rejects[0][1]


# Framing and schemas


def test_each_value_without_a_frame_has_its_reason_and_the_others_are_read() -> None:
    one = write(record("int"), {"a": 5})
    found = read(record("int"), [one, None, b"", b"\0\0", b"\x05\0\0\0\1\x02", one])
    assert found.rows.to_pylist() == [{"a": 5}, {"a": 5}]
    assert found.index is not None
    assert found.index.tolist() == [0, 5]
    assert [(at, why.partition(":")[0]) for at, why in found.rejects] == [
        (1, "null_value"), (2, "truncated_header"), (3, "truncated_header"), (4, "wrong_magic")]


def test_nothing_in_nothing_out() -> None:
    for values in ([], [None], [b""]):
        found = read(record("int"), values)
        assert found.rows.num_rows == 0
        assert found.rows.schema == schema(record("int")).arrow
        assert len(found.rejects) == len(values)


def test_a_batch_of_several_schemas_comes_out_in_order() -> None:
    schemas = {1: record("int"), 2: record("long", {"name": "b", "type": "string"}), 3: record("string")}

    def writers(number: int) -> AvroSchema:
        if number not in schemas:
            raise UnknownSchema(number)
        return schema(schemas[number])

    kinds = [random.Random(7).choice([1, 2, 3, 9]) for _ in range(200)]
    given = {1: {"a": 4}, 2: {"a": 5, "b": "x"}, 3: {"a": "no"}}
    payloads = [write(schemas[k], given[k], k) if k in schemas else frame(b"", k) for k in kinds]
    found = Decoder(schema(record("long")), writers).decode(payloads)
    assert found.rows["a"].to_pylist() == [given[k]["a"] for k in kinds if k in (1, 2)]
    assert found.index is not None
    assert found.index.tolist() == [i for i, k in enumerate(kinds) if k in (1, 2)]
    why = {3: "incompatible_schema: schema 3: a: written as string, read as long",
           9: "unknown_schema: the registry has no schema 9"}
    assert found.rejects == [(i, why[k]) for i, k in enumerate(kinds) if k in why]


def test_a_registry_that_cannot_be_asked_is_no_reason_to_throw_records_away() -> None:
    def writers(number: int) -> AvroSchema:
        raise RegistryError("no answer")

    with pytest.raises(RegistryError):
        Decoder(schema(record("int")), writers).decode([frame(b"\2")])


def test_a_schema_that_is_not_avro_makes_rejects() -> None:
    def writers(number: int) -> AvroSchema:
        raise SchemaError("schema 4: a PROTOBUF schema; headrace reads Avro")

    found = Decoder(schema(record("int")), writers).decode([frame(b"\2", 4)] * 2)
    assert [why for _, why in found.rejects] == [
        "incompatible_schema: schema 4: a PROTOBUF schema; headrace reads Avro"] * 2


def test_an_unknown_id_is_asked_for_again() -> None:
    known: dict[int, AvroSchema] = {}

    def writers(number: int) -> AvroSchema:
        if number not in known:
            raise UnknownSchema(number)
        return known[number]

    decoder = Decoder(schema(record("int")), writers)
    assert decoder.decode([frame(b"\2")]).rejects
    known[1] = schema(record("int"))
    assert decoder.decode([frame(b"\2")]).rows.to_pylist() == [{"a": 1}]


# Numbers, strings, bytes


@pytest.mark.parametrize("number", [0, -1, 63, -64, 64, -65, 8191, 8192, 2**20, 2**31 - 1, -2**31])
def test_ints_of_every_length(number: int) -> None:
    assert read(record("int"), [write(record("int"), {"a": number})]).rows["a"].to_pylist() == [number]


def test_longs_of_every_length() -> None:
    numbers = [s * (1 << k) + d for k in range(63) for s in (1, -1) for d in (-1, 0)] + [2**63 - 1, -2**63]
    payloads = [write(record("long"), {"a": n}) for n in numbers]
    assert read(record("long"), payloads).rows["a"].to_pylist() == numbers


def test_a_varint_may_be_longer_than_it_needs_but_not_than_64_bits() -> None:
    assert column(record("long"), [b"\x84\x80\x80\x00", b"\x84" + b"\x80" * 8 + b"\x00"]) == [2, 2]
    for body in (b"\x84" + b"\x80" * 9 + b"\x00", b"\xff" * 9 + b"\x02", b"\xff" * 30):
        assert reason(record("long"), body) == "corrupt: a varint is longer than 64 bits"


def test_an_int_holds_32_bits() -> None:
    assert reason(record("int"), b"\x80\x80\x80\x80\x10") == "corrupt: a number is out of the range of its type"
    assert column(record("long"), [b"\x80\x80\x80\x80\x10"]) == [2**31]


@pytest.mark.parametrize(("body", "why"), [
    (b"", "corrupt: the record ends before its last field"), (b"\x06ab", "corrupt: a length"),
    (b"\x01", "corrupt: a length"), (b"\x04\xff\xfe", "corrupt: a string is not UTF-8"),
    (b"\x04\xed\xa0", "corrupt: a string is not UTF-8"), (b"\x04abc", "trailing_bytes"),
    (b"\x04ab\x00", "trailing_bytes"), (b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "corrupt: a length"),
])
def test_a_string_that_is_none(body: bytes, why: str) -> None:
    assert reason(record("string"), body).startswith(why)


def test_any_byte_but_one_is_false_as_in_the_reference() -> None:
    assert column(record("boolean"), [b"\1", b"\0", b"\2", b"\xff"]) == [True, False, False, False]


def test_decimals_of_any_length_and_no_more_digits_than_declared() -> None:
    small = record({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2})
    assert column(small, [b"\2\x01", b"\2\xff", b"\x04\x27\x0f", b"\x04\xd8\xf1", b"\x48" + b"\xff" * 36,
                          b"\x06\0\0\7"]) == list(map(Decimal, ("0.01", "-0.01", "99.99", "-99.99", "-0.01", "0.07")))
    for body in (b"\x04\x27\x10", b"\x48\x01" + b"\0" * 35, b"\x48\x01" + b"\xff" * 35):
        assert reason(small, body) == "corrupt: a number is out of the range of its type"
    assert reason(small, b"\0").startswith("corrupt: a length")
    wide = record({"type": "bytes", "logicalType": "decimal", "precision": 76, "scale": 0})
    top = 10**76 - 1
    assert column(wide, [b"\x40" + n.to_bytes(32, "big", signed=True) for n in (top, -top)]) == [top, -top]


@pytest.mark.parametrize(("logical", "outside"), [
    ({"type": "int", "logicalType": "date"}, 2_932_897), ({"type": "int", "logicalType": "time-millis"}, 86_400_000),
    ({"type": "long", "logicalType": "time-micros"}, -1),
    ({"type": "long", "logicalType": "timestamp-millis"}, 253_402_300_800_000),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, -62_135_596_800_000_001),
])
def test_dates_and_times_that_no_calendar_has(logical: dict[str, str], outside: int) -> None:
    body = write(record(logical["type"]), {"a": outside})[5:]
    assert reason(record(logical), body) == "corrupt: a number is out of the range of its type"
    assert column(record(logical), [b"\2"])[0] is not None


@pytest.mark.parametrize("logical", [{}, {"logicalType": "decimal", "precision": 4, "scale": 0}])
def test_a_fixed_longer_than_all_there_is(logical: dict[str, Any]) -> None:
    of = record({"type": "fixed", "name": "F", "size": 5000, **logical})
    assert reason(of, b"abc") == "corrupt: the record ends before its last field"
    assert len(read(of, [frame(bytes(5000)), frame(b"abc")]).rejects) == 1


# Unions, enums, arrays, maps

UNION = record(["null", "int", "long", {"type": "record", "name": "X", "fields": [{"name": "n", "type": "int"}]},
                {"type": "record", "name": "Y", "fields": [{"name": "n", "type": "int"}]}])


def test_a_general_union_tells_its_branch() -> None:
    given = [None, ("int", 5), ("long", 5), ("X", {"n": 1}), ("Y", {"n": 1})]
    found = read(UNION, [write(UNION, {"a": v}) for v in given]).rows["a"].to_pylist()
    empty = {"int": None, "long": None, "X": None, "Y": None}
    assert found == [None, *({**empty, name: value} for name, value in given[1:])]  # type: ignore[misc]


def test_a_branch_number_out_of_range() -> None:
    for body in (b"\x0a", b"\x01", b"\x04\x02"):
        assert reason(record(["null", "int"]), body).startswith("corrupt: a union's branch number")


def test_a_branch_the_reader_lacks_condemns_only_the_records_that_carry_it() -> None:
    writer, reader = record(["null", "int", "string"]), record("long")
    found = read(writer, [write(writer, {"a": v}) for v in (1, "x", None, 2)], reader)
    assert found.rows.to_pylist() == [{"a": 1}, {"a": 2}]
    assert found.rejects == [(1, "incompatible_schema: a: written as string, read as long"),
                             (2, "incompatible_schema: a: written as null, read as long")]


def test_enums_by_symbol_with_the_readers_default() -> None:
    def of(*symbols: str, **more: str) -> dict[str, Any]:
        return record({"type": "enum", "name": "E", "symbols": symbols, **more})

    assert column(of("A", "B", "C"), [b"\0", b"\2", b"\4"], of("C", "B", default="B")) == ["B", "B", "C"]
    found = read(of("A", "B"), [frame(b"\0"), frame(b"\2")], of("B"))
    assert found.rows["a"].to_pylist() == ["B"]
    assert found.rejects == [(0, "incompatible_schema: the symbol is not in the schema that is read with")]
    assert reason(of("A", "B"), b"\4") == reason(of("A"), b"\1") == "corrupt: an enum's symbol number is out of range"


INTS = record({"type": "array", "items": "int"})
TEXTS = record({"type": "array", "items": "string"})
NULLS = record({"type": "array", "items": "null"})


def test_arrays_in_several_blocks_with_and_without_their_size() -> None:
    assert column(INTS, [b"\x02\x02\x04\x04\x06\x00", b"\x03\x04\x02\x04\x00", b"\x00"]) == [[1, 2, 3], [1, 2], []]
    assert column(TEXTS, [b"\x02\x02a\x01\x04\x02b\x00"]) == [["a", "b"]]
    assert column(NULLS, [b"\xd0\x0f\x00"]) == [[None] * 1000]


@pytest.mark.parametrize(("writer", "body", "why"), [
    (INTS, b"\x06\x02\x04\x00", "corrupt: "), (INTS, b"\xfe\xff\xff\xff\x0f\x02\x00", "corrupt: a length or"),
    (INTS, b"\x03\x06\x02\x04\x00", "corrupt: a block's size"),
    (INTS, b"\x03\x02\x02\x04\x00", "corrupt: a block's size"),
    (INTS, b"\x03\x01\x02\x04\x00", "corrupt: a"), (INTS, b"\x02\x02", "corrupt: a length"),
    (INTS, b"\xff" * 9 + b"\x01\x00", "corrupt: a length"), (NULLS, b"\xd2\x0f\x00", "corrupt: more than 1,000 items"),
    (NULLS, b"\xd0\x0f\x02\x00", "corrupt: more than 1,000 items"), (TEXTS, b"\x04\x02a\x7f", "corrupt: a length"),
])
def test_arrays_that_are_none(writer: Any, body: bytes, why: str) -> None:
    assert reason(writer, body).startswith(why)


def test_maps_keep_their_pairs_as_written() -> None:
    of = record({"type": "map", "values": "int"})
    assert column(of, [b"\x04\x02k\x02\x02k\x04\x00", b"\x00"]) == [[("k", 1), ("k", 2)], []]
    assert reason(of, b"\x02\x02\xff\x02\x00") == "corrupt: a string is not UTF-8"


def test_nested_collections_of_many_records() -> None:
    of = record({"type": "array", "items": {"type": "map", "values": ["null", {"type": "array", "items": "string"}]}})
    chance = random.Random(3)
    rows = [{"a": [{f"k{k}": chance.choice([None, [f"{i}"] * chance.randrange(4)]) for k in range(chance.randrange(3))}
                   for _ in range(chance.randrange(4))]} for i in range(2000)]
    found = read(of, [write(of, r) for r in rows]).rows["a"].to_pylist()
    assert [{"a": [dict(m) for m in r]} for r in found] == rows


@pytest.mark.parametrize("items", [
    "string", ["null", "string"], {"type": "array", "items": "string"}, {"type": "map", "values": "bytes"},
    record("string", "double", ["null", "int"], name="N")], ids=str)
def test_one_long_array_is_read_like_many_short_ones(items: Any) -> None:
    of = record({"type": "array", "items": items})
    one = {"string": "x", "array": ["y", "z"], "map": {"k": b"v"}, "record": {"a": "s", "b": 0.5, "c": None}}
    value = "ü" * 100 if isinstance(items, list) else one[items if isinstance(items, str) else items["type"]]
    many = [write(of, {"a": [value] * n}) for n in (0, 1, 3, 2) * 50]
    long = write(of, {"a": [value] * 20_000})
    apart, together = read(of, [long]).rows["a"], read(of, [*many, long]).rows["a"]
    assert apart.to_pylist() == together.slice(200).to_pylist()
    assert len(apart[0]) == 20_000
    assert [len(a) for a in together.slice(0, 200)] == [0, 1, 3, 2] * 50
    assert read(of, [long[:-9], *many, long[:-9]]).rejects[0][1].startswith("corrupt: a length")
    skipped = record({"name": "b", "type": "int", "default": 1})
    assert read(of, [long, many[1], long], skipped).rejects == []


# Resolution


def test_fields_by_name_alias_and_default() -> None:
    writer = record({"name": "gone", "type": {"type": "array", "items": "string"}}, {"name": "old", "type": "int"},
                    {"name": "kept", "type": "string"})
    reader = record({"name": "added", "type": ["null", "int"], "default": None}, {"name": "kept", "type": "string"},
                    {"name": "new", "type": "long", "aliases": ["old"]},
                    {"name": "tags", "type": {"type": "map", "values": "int"}, "default": {"x": 1}},
                    name="New", aliases=["R"])
    found = read(writer, [write(writer, {"gone": ["a", "b"], "old": 4, "kept": "k"})] * 2, reader)
    assert found.rows.to_pylist() == [{"added": None, "kept": "k", "new": 4, "tags": [("x", 1)]}] * 2


@pytest.mark.parametrize(("writer", "reader", "why"), [
    (record("int"), record("int", "int"), "b: not in the writer's schema, and without a default"),
    (record("int"), record("int", name="S"), "the record: record R is not S; an alias in the reader would make it so"),
    (record("long"), record("int"), "a: written as long, read as int"),
    (record({"type": "fixed", "name": "F", "size": 2}), record({"type": "fixed", "name": "F", "size": 3}),
     "a: fixed of 2 bytes, read as one of 3"),
    (record({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1}),
     record({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}),
     "a: decimal of scale 1, read with scale 2"),
    (record({"type": "array", "items": "string"}), record({"type": "array", "items": "int"}),
     "a[]: written as string, read as int"),
])
def test_schemas_that_cannot_be_resolved_say_which_field(writer: Any, reader: Any, why: str) -> None:
    assert reason(writer, b"\2", reader) == f"incompatible_schema: schema 1: {why}"


def test_strings_and_bytes_promote_to_each_other() -> None:
    assert column(record("string"), [b"\x04hi"], record("bytes")) == [b"hi"]
    assert column(record("bytes"), [b"\x04hi"], record("string")) == ["hi"]
    assert reason(record("bytes"), b"\x02\xff", record("string")) == "corrupt: a string is not UTF-8"


def test_instants_and_times_change_their_unit_and_not_their_meaning() -> None:
    def of(kind: str, logical: str) -> dict[str, Any]:
        return record({"type": kind, "logicalType": logical})

    millis, micros = of("long", "timestamp-millis"), of("long", "timestamp-micros")
    noon = datetime(2013, 2, 8, 12, 0, 0, 123000, UTC)
    assert read(millis, [write(millis, {"a": noon})], micros).rows["a"].to_pylist() == [noon]
    assert read(micros, [write(micros, {"a": noon})], millis).rows["a"].to_pylist() == [noon]
    day, fine = of("int", "time-millis"), of("long", "time-micros")
    assert read(day, [write(day, {"a": time(23, 59)})], fine).rows["a"].to_pylist() == [time(23, 59)]
    nanos = of("long", "timestamp-nanos")
    late = write(millis, {"a": datetime(2300, 1, 1, tzinfo=UTC)})[5:]
    assert reason(millis, late, nanos).startswith("corrupt: a number")
    assert pa.types.is_timestamp(read(millis, [write(millis, {"a": noon})], nanos).rows["a"].type)


def test_a_skipped_field_is_held_to_its_bytes_and_not_to_its_meaning() -> None:
    writer = record({"name": "x", "type": "string"}, {"name": "a", "type": "int"})
    assert column(writer, [b"\x02\xff\x08"], record("int")) == [4]
    assert reason(writer, b"\x08\xff\x08", record("int")).startswith("corrupt: a length")


def test_a_record_without_fields_and_one_of_bare_values() -> None:
    assert read(record(), [frame(b""), frame(b"")]).rows.num_rows == 2
    assert reason(record(), b"\0").startswith("trailing_bytes")
    assert read("string", [frame(b"\x04hi")]).rows.to_pylist() == [{"value": "hi"}]


# In company


def test_among_many_each_corrupt_record_costs_only_itself() -> None:
    of = record("string", ["null", "long"], {"type": "array", "items": "string"}, "double")
    chance = random.Random(11)
    rows = [{"a": "x" * chance.randrange(40), "b": chance.choice([None, chance.getrandbits(60)]),
             "c": ["y"] * chance.randrange(3), "d": chance.random()} for _ in range(5000)]
    payloads = [write(of, r) for r in rows]
    hurt = sorted(chance.sample(range(5000), 500))
    for i in hurt:
        payloads[i] = payloads[i] + b"!" if i % 2 else payloads[i][:-1]
    found = read(of, payloads)
    assert [at for at, _ in found.rejects] == hurt
    assert found.index is not None
    assert found.index.tolist() == sorted(set(range(5000)) - set(hurt))
    assert found.rows.to_pylist() == [rows[i] for i in found.index]


def test_huge_lengths_in_many_corrupt_records_take_no_memory() -> None:
    writer = record("string", {"type": "array", "items": "double"})
    body = b"\xfe\xff\xff\xff\x0f" + b"x" * 2000
    ours, usual = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(ours)
    tracemalloc.start()
    try:
        refused = len(read(writer, [frame(body)] * 5000).rejects)  # nothing of the pool may outlive it
        peak = (ours.max_memory() or 0) + tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)
    assert refused == 5000
    assert peak < 50_000_000  # the payloads are 10 MB
