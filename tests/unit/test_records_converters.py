"""Converters without Java at hand: structures, framing, refusals, configuration. (Java itself: tests/external.)"""

from __future__ import annotations

import datetime as dt
import decimal
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.codec import AvroSchema, UnknownSchema, parse
from headrace.errors import SchemaError, UserError
from headrace.records import Column, Shape, arrow_of, shape_of
from headrace.records.converters import JAVA_NAMES, check, converter_of, header_converter_of
from headrace.records.shape import DATE, DECIMAL, TIME, TIMESTAMP, constant, zeros
from headrace.registry import Registry, RegistryUnreachable

pytestmark = pytest.mark.unit
BARE = {"schemas.enable": "false"}
JSON = st.recursive(st.none() | st.booleans() | st.integers(-2**63, 2**63 - 1) | st.floats(allow_nan=False) | st.text(
    st.characters(exclude_categories=["Cs"])), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from("abcde"), inner, max_size=4), max_leaves=10).filter(lambda value: not _infinite(value))


def _infinite(value: Any) -> bool:
    if isinstance(value, list | dict):
        return any(map(_infinite, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and value in (float("inf"), float("-inf"))


def rows_of(found: tuple[list[tuple[Any, Column]], dict[int, str]]) -> dict[int, Any]:
    """Position → value; every position once."""
    rows: dict[int, Any] = {}
    for at, column in found[0]:
        for place, value in zip(at.tolist(), column.values.to_pylist(), strict=True):
            assert place not in rows
            assert place not in found[1]
            rows[place] = value
    return rows


@given(values=st.lists(JSON, max_size=8))
def test_any_json_comes_out_as_it_went_in(values: list[Any]) -> None:
    found = converter_of("json", BARE, False, None).decode("t", [json.dumps(value).encode() for value in values])
    assert found[1] == {}
    assert rows_of(found) == dict(enumerate(values))
    for at, column in found[0]:
        written = converter_of("json", BARE, False, None).encode("t", column)[0]
        assert [json.loads(each or b"null") for each in written] == [values[place] for place in at.tolist()]


def test_absent_and_null_stay_apart() -> None:
    payloads = [b'{"a":1,"b":2}', b'{"a":1}', b'{"a":null,"b":2}', None, b'{"a":2.5,"b":null}', b"null"]
    found, reasons = converter_of("json", BARE, False, None).decode("t", payloads)
    assert reasons == {}
    assert [(at.tolist(), column.values.to_pylist(), column.shape) for at, column in found] == [
        ([0, 2, 5], [{"a": 1, "b": 2}, {"a": None, "b": 2}, None], None), ([1], [{"a": 1}], None),
        ([3], [None], None), ([4], [{"a": 2.5, "b": None}], None)]


def test_a_list_of_different_things_is_a_union() -> None:
    payload = b'[1,"x",null,{"a":[1.5,true]},[],{"b":{}}]'
    (_, column), = converter_of("json", BARE, False, None).decode("t", [payload])[0]
    assert pa.types.is_union(column.values.type.value_type)
    twice = Column(pa.concat_arrays([column.values, column.values])).take(np.array([1, 0]))
    assert converter_of("json", BARE, False, None).encode("t", twice)[0] == [payload] * 2


def test_records_do_not_mix_when_one_has_two_values() -> None:
    """Parsed together as one text, the second and third would shift the others."""
    payloads: list[bytes | None] = [b"[1", b"2]", b"3,4", b"5"]
    found = converter_of("json", BARE, False, None).decode("t", payloads)
    assert rows_of(found) == {1: 2, 2: 3, 3: 5}
    assert list(found[1]) == [0]


def test_too_many_kinds_of_items_fail_their_record_alone() -> None:
    many = json.dumps([{f"f{n}": n} for n in range(200)]).encode()
    deep = b"[" * 100_000
    found = converter_of("json", BARE, False, None).decode("t", [b"[1]", many, deep, b"[2]", b'"\\ud800"'])
    assert rows_of(found) == {0: [1], 3: [2]}
    assert sorted(found[1]) == [1, 2, 4]


def test_envelopes_of_many_schemas_and_layouts() -> None:
    plain = converter_of("json", {}, False, None)
    ints, texts = (Shape("struct", fields=(("a", Shape(kind, optional=True)),)) for kind in ("int32", "string"))
    payloads = [plain.encode("t", Column(pa.array([{"a": value}], arrow_of(shape)), shape))[0][0]
                for value, shape in ((1, ints), ("x", texts), (2, ints), (None, texts))]
    spaced = json.dumps(json.loads(payloads[0] or b""), indent=1).encode()
    swapped = json.dumps(dict(reversed(json.loads(payloads[0] or b"").items()))).encode()
    trick = (payloads[0] or b"")[:-1] + b',"schema":null}'
    found = plain.decode("t", [*payloads, spaced, swapped, trick, None, b"{}", b'{"schema":null,"payload":{"z":1}}'])
    assert rows_of(found) == {0: {"a": 1}, 1: {"a": "x"}, 2: {"a": 2}, 3: {"a": None}, 4: {"a": 1}, 5: {"a": 1},
                              6: {"a": 1}, 7: None, 9: {"z": 1}}
    assert list(found[1]) == [8]
    assert {tuple(at.tolist()): column.shape for at, column in found[0]} == {
        (0, 2, 4, 5): ints, (1, 3): texts, (6,): None, (7,): None, (9,): None}


def test_a_required_null_fails_its_record_alone() -> None:
    shape = Shape("struct", fields=(("a", Shape("int64")), ("b", Shape("array", values=Shape("string")))))
    values = pa.array([{"a": 1, "b": ["x"]}, {"a": None, "b": []}, {"a": 3, "b": ["y", None]}, {"a": 4, "b": ["z"]}],
                      pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]))
    payloads, reasons = converter_of("json", BARE, False, None).encode("t", Column(values, shape))
    assert payloads == [b'{"a":1,"b":["x"]}', None, None, b'{"a":4,"b":["z"]}']
    assert set(reasons.values()) == {
        "Conversion error: null value for field that is required and has no default value"}


# Avro


class Kept(Registry):
    def __init__(self) -> None:
        super().__init__({})
        self.kept: list[tuple[str, AvroSchema]] = []
        self.down = False

    def register(self, subject: str, schema: AvroSchema) -> int:
        if self.down:
            raise RegistryUnreachable("no answer", retry_after_s=1)
        if (subject, schema) not in self.kept:
            self.kept.append((subject, schema))
        return self.kept.index((subject, schema)) + 1

    def schema(self, schema_id: int) -> AvroSchema:
        if schema_id > len(self.kept):
            raise UnknownSchema(schema_id)
        return self.kept[schema_id - 1][1]


ROWS = pa.RecordBatch.from_pylist([
    {"id": 1, "price": decimal.Decimal("1.25"), "at": dt.datetime(2024, 1, 2, 3, 4, 5, 678901, dt.UTC),
     "day": dt.date(2024, 1, 2), "tags": ["a"], "by": [("k", 1.5)], "in": {"x": None}, "small": 7},
    {"id": 2, "price": None, "at": dt.datetime(1969, 1, 1, tzinfo=dt.UTC), "day": None, "tags": [], "by": None,
     "in": None, "small": -7}],
    schema=pa.schema([
        pa.field("id", pa.int64(), nullable=False), ("price", pa.decimal128(9, 2)),
        pa.field("at", pa.timestamp("us", "UTC"), nullable=False), ("day", pa.date32()),
        ("tags", pa.list_(pa.string())),
        ("by", pa.map_(pa.string(), pa.float64())), ("in", pa.struct([("x", pa.bool_())])), ("small", pa.int8())]))


def test_avro_there_and_back() -> None:
    registry = Kept()
    converter = converter_of("avro", {}, False, registry)
    column = Column.of_rows(ROWS, name="shop.Sale")
    payloads, reasons = converter.encode("sales", column)
    assert reasons == {}
    (_, read), = converter.decode("sales", payloads)[0]
    assert read.values.to_pylist() == column.values.to_pylist()
    assert [each.type for each in read.values.type] == [each.type for each in column.values.type]
    assert [subject for subject, _ in registry.kept] == ["sales-value"]
    told = registry.kept[0][1].json
    assert (told["namespace"], told["name"]) == ("shop", "Sale")
    assert [each["type"][1] if isinstance(each["type"], list) else each["type"] for each in told["fields"][1:3]] == [
        {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2, "connect.version": 1,
         "connect.name": DECIMAL, "connect.parameters": {"scale": "2"}},
        {"type": "long", "logicalType": "timestamp-micros", "connect.version": 1, "connect.name": TIMESTAMP}]
    again, _ = converter_of("avro", {}, True, registry).encode("sales", read)
    assert registry.kept[1][0] == "sales-key"
    assert [payload and payload[5:] for payload in again] == [payload and payload[5:] for payload in payloads]


def test_avro_as_a_given_schema_says() -> None:
    target = parse('{"type":"record","name":"Sale","fields":[{"name":"id","type":"long"},'
                   '{"name":"small","type":["null","double"]},{"name":"more","type":"string","default":"none"}]}')
    registry = Kept()
    converter = converter_of("avro", {}, False, registry, schema=target)
    payloads, reasons = converter.encode("sales", Column.of_rows(ROWS))
    assert reasons == {}
    assert registry.kept == [("sales-value", target)]
    (_, read), = converter.decode("sales", payloads)[0]
    assert read.values.to_pylist() == [{"id": 1, "small": 7.0, "more": "none"},
                                       {"id": 2, "small": -7.0, "more": "none"}]
    wrong = converter_of("avro", {}, False, registry, schema=parse(target.text.replace('"long"', '"boolean"')))
    assert "does not fit boolean" in wrong.encode("sales", Column.of_rows(ROWS))[1][0]


def test_avro_that_others_wrote() -> None:
    """Enums, unions of many, fixed, instants finer than milliseconds."""
    told = {"type": "record", "name": "shop.Other", "doc": "of others", "fields": [
        {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}, "default": "RED"},
        {"name": "any", "type": ["null", "string", "long"]}, {"name": "raw", "type": {
            "type": "fixed", "name": "Four", "size": 4}}, {"name": "n", "type": "int", "default": 5},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "wide", "type": {"type": "bytes", "logicalType": "decimal", "precision": 64, "scale": 1}}]}
    registry = Kept()
    registry.register("x", parse(json.dumps(told)))
    frame = b"\0\0\0\0\1"
    one = frame + b"\x02" + b"\x02\x04hi" + b"abcd" + b"\x0a" + b"\x02" + b"\x02\x0f"
    large = frame + b"\x00" + b"\x04\x0e" + b"abcd" + b"\x0a" + b"\x02" + bytes([40, *([100] * 20)])
    payloads: list[bytes | None] = [one, large, None, b"", b"\1abcdef", frame, b"\0\0\0\0\7x", one[:-1]]
    found = converter_of("avro", {}, False, registry).decode("t", payloads)
    assert rows_of(found) == {0: {"colour": "BLUE", "any": {"string": "hi", "long": None}, "raw": b"abcd", "n": 5,
                                  "at": dt.datetime(1970, 1, 1, 0, 0, 0, 1, dt.UTC),
                                  "wide": decimal.Decimal("1.5")}, 2: None}
    assert sorted(found[1]) == [1, 3, 4, 5, 6, 7]
    assert "more than 38 digits" in found[1][1]
    shape = found[0][0][1].shape
    assert shape is not None
    assert dict(shape.fields)["n"].default == 5
    assert dict(dict(shape.fields)["colour"].parameters)["io.confluent.connect.avro.Enum"] == "shop.Colour"
    assert dict(shape.parameters)["io.confluent.connect.avro.record.doc"] == "of others"


def test_avro_of_schemaless_structures() -> None:
    registry = Kept()
    json_, avro = converter_of("json", BARE, False, None), converter_of("avro", {}, False, registry)
    found, _ = json_.decode("t", [b'{"a":1,"b":{"c":"x"}}', b'{"a":[1,"x"]}', None])
    for at, column in found:
        payloads, reasons = avro.encode("t", column)
        if at.tolist() == [1]:
            assert "no type" in reasons[0]
        elif at.tolist() == [0]:
            assert reasons == {}
            assert rows_of(avro.decode("t", payloads)) == {0: {"a": 1, "b": {"c": "x"}}}
        else:
            assert payloads == [None]


def test_a_registry_that_does_not_answer_is_no_records_fault() -> None:
    registry = Kept()
    registry.down = True
    with pytest.raises(RegistryUnreachable):
        converter_of("avro", {}, False, registry).encode("t", Column.of_rows(ROWS))


# Shapes


@given(kind=st.sampled_from([pa.int8(), pa.uint16(), pa.float16(), pa.large_string(), pa.decimal128(5, 2), pa.date64(),
                             pa.time64("us"), pa.timestamp("ns"), pa.list_(pa.int8(), 3), pa.large_list(pa.string()),
                             pa.map_(pa.string(), pa.bool_()), pa.string_view(), pa.null(), pa.binary(4),
                             pa.dictionary(pa.int8(), pa.string()), pa.struct([pa.field("a", pa.bool_(), False)])]))
def test_every_shape_has_an_arrow_type(kind: pa.DataType) -> None:
    shape = shape_of(kind)
    assert shape_of(arrow_of(shape)) == shape.but(optional=True)
    assert zeros(arrow_of(shape), 3).null_count == 0
    assert len(zeros(arrow_of(shape), 3)) == 3
    assert constant(shape, None).null_count == 1


@pytest.mark.parametrize("parameters", [(("scale", "x"),), (("scale", "2"), ("connect.decimal.precision", "99"))])
def test_a_decimal_that_arrow_lacks(parameters: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(SchemaError, match="76 digits"):
        arrow_of(Shape("bytes", name=DECIMAL, parameters=parameters))


# Headers


def test_headers_by_any_converter() -> None:
    headers = [("a", 5, Shape("int32")), ("b", None, None), ("c", "x", Shape("string"))]
    by_json = header_converter_of("json", {"schemas.enable": "false"})
    assert by_json.encode("t", headers) == [("a", b"5"), ("b", None), ("c", b'"x"')]
    assert by_json.decode("t", [("a", b"5"), ("b", None)]) == [("a", 5, None), ("b", None, None)]
    assert header_converter_of("simple", {}).encode("t", headers) == [("a", b"5"), ("b", None), ("c", b"x")]
    with pytest.raises(SchemaError, match="header z"):
        by_json.decode("t", [("z", b"{")])
    with pytest.raises(UserError, match="no headers"):
        header_converter_of("avro", {})


@given(moment=st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(2400, 1, 1)))
def test_moments_in_headers(moment: dt.datetime) -> None:
    simple = header_converter_of("simple", {})
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=dt.UTC)
    sent = [("at", moment, Shape("int64", name=TIMESTAMP, version=1)), ("on", moment.date(), Shape("int32", name=DATE)),
            ("in", moment.time(), Shape("int32", name=TIME))]
    read = simple.decode("t", simple.encode("t", sent))
    assert [value for _, value, _ in read][1:] == [moment.date(), moment.time()]
    assert read[0][1] in (moment, moment.date())


# Configuration


@pytest.mark.parametrize("name", JAVA_NAMES)
def test_names(name: str) -> None:
    registry = Registry({"url": "http://127.0.0.1:1"})
    for each in (name, JAVA_NAMES[name]):
        assert type(converter_of(each, {}, False, registry)) is type(converter_of(name, {}, True, registry))


@pytest.mark.parametrize(("kind", "config", "why"), [
    ("jason", {}, "did you mean “json”"), ("io.confluent.connect.json.JsonSchemaConverter", {}, "no such converter"),
    ("json", {"schemas.enabled": "false"}, "did you mean “schemas.enable”"),
    ("json", {"schemas.enable": "yes"}, "none of true, false"), ("json", {"decimal.format": "hex"}, "base64, numeric"),
    ("json", {"schemas.cache.size": "many"}, "no number"), ("string", {"converter.encoding": "UTF-99"}, "UTF-99"),
    ("avro", {}, "needs a schema registry"),
    ("avro", {"schema.registry.url": "http://x", "value.subject.name.strategy": "Mine"}, "no such strategy")])
def test_what_is_refused(kind: str, config: dict[str, str], why: str) -> None:
    with pytest.raises(UserError, match=why):
        converter_of(kind, config, False, None)


def test_settings_of_other_converters_are_passed_over() -> None:
    assert check({"schemas.enable": "TRUE", "schema.registry.url": "http://r", "schema.registry.ssl.keystore.type": "P"}
                 ) == []
    assert check({"schemas.enable": "maybe", "shemas.cache.size": "1"}) == [
        ("schemas.enable", "“maybe” is none of true, false"),
        ("shemas.cache.size", "no converter has a setting “shemas.cache.size”; did you mean “schemas.cache.size”?")]
