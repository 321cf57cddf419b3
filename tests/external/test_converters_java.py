"""Our converters against Kafka Connect's own, called in a JVM: the same bytes, the same data, the same refusals."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headrace.codec import AvroSchema, UnknownSchema
from headrace.codec.types import PLAIN
from headrace.records import Column, Shape
from headrace.records.converters import JAVA_NAMES, converter_of, header_converter_of
from headrace.records.converters.plain import PRIMITIVE
from headrace.registry import Registry
from tests.external import connect_data as data
from tests.external.connect_oracle import Oracle

pytestmark = pytest.mark.external
EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck),
                    phases=[Phase.explicit, Phase.generate])  # to shrink would ask the oracle for minutes
SIMPLE = "org.apache.kafka.connect.storage.SimpleHeaderConverter"
OPTIONS = st.fixed_dictionaries({}, optional={
    "schemas.enable": st.sampled_from(["true", "false"]), "decimal.format": st.sampled_from(["BASE64", "NUMERIC"]),
    "replace.null.with.default": st.sampled_from(["true", "false"])})


@pytest.fixture(scope="module")
def java() -> Iterator[Oracle]:
    with Oracle.started() as oracle:
        yield oracle


def encoded(java: Oracle, name: str, config: dict[str, str], shape: Shape | None, rows: list[Any]) -> list[Any]:
    """Java's payload of each value, or its error."""
    answers = java.ask([{"op": "encode", "class": JAVA_NAMES[name], "config": config, "schema": data.told_shape(shape),
                         "value": data.told_value(row, shape)} for row in rows])
    return [answer["error"] if "error" in answer else raw(answer) for answer in answers]


def raw(answer: Any) -> bytes | None:
    return None if answer["bytes"] is None else base64.b64decode(answer["bytes"])


def decoded(java: Oracle, name: str, config: dict[str, str], payloads: list[bytes | None]) -> list[Any]:
    """(schema, value) as Java reads each payload, or None where it refuses."""
    answers = java.ask([{"op": "decode", "class": JAVA_NAMES[name], "config": config,
                         "bytes": None if each is None else base64.b64encode(each).decode()} for each in payloads])
    return [None if "error" in answer else data.same([answer["schema"], answer["value"]]) for answer in answers]


def ours(name: str, config: dict[str, str], payloads: list[bytes | None]) -> tuple[list[Any], dict[int, str]]:
    """The same of our converter, and why it refuses."""
    found, reasons = converter_of(name, config, False, None).decode("t", payloads)
    rows: list[Any] = [None] * len(payloads)
    for at, column in found:
        for place, value in zip(at.tolist(), column.values.to_pylist(), strict=True):
            assert rows[place] is None
            assert place not in reasons
            rows[place] = data.same([data.told_shape(column.shape), data.told_value(value, column.shape)])
    return rows, reasons


@EXAMPLES
@given(found=data.columns(), config=OPTIONS)
def test_json_with_a_schema(java: Oracle, found: tuple[Shape, pa.Array], config: dict[str, str]) -> None:
    shape, values = found
    payloads, reasons = converter_of("json", config, False, None).encode("t", Column(values, shape))
    theirs = encoded(java, "json", config, shape, values.to_pylist())
    for at, (mine, other) in enumerate(zip(payloads, theirs, strict=True)):
        if isinstance(other, dict):
            assert reasons[at] == other["message"]
        else:
            assert mine == other
            assert at not in reasons
    read: list[bytes | None] = [payload for payload in payloads if payload is not None]
    assert ours("json", config, read)[0] == decoded(java, "json", config, read)


@EXAMPLES
@given(values=st.lists(data.JSON, min_size=1, max_size=6))
def test_json_without_a_schema(java: Oracle, values: list[Any]) -> None:
    config = {"schemas.enable": "false"}
    payloads: list[bytes | None] = [json.dumps(value).encode() for value in values]
    mine, reasons = ours("json", config, payloads)
    assert not reasons
    assert mine == decoded(java, "json", config, payloads)
    converter = converter_of("json", config, False, None)
    strings = converter_of("string", {}, False, None)
    for at, column in converter.decode("t", payloads)[0]:
        told = [{"op": "again", "from": JAVA_NAMES["json"], "config": config, "to": JAVA_NAMES[to],
                 "bytes": base64.b64encode(payloads[place] or b"").decode()}
                for to in ("json", "string") for place in at.tolist()]
        theirs = [raw(each) for each in java.ask(told)]
        written = converter.encode("t", column)[0] + strings.encode("t", column)[0]
        assert written == theirs


ODD = [b"", b" ", b"null", b"nul", b"{}", b"[]", b"{\"a\":1} x", b"{\"a\":1,\"a\":2}", b"NaN", b"1e400", b"-0", b"-0.0",
       b"1.0", b"1E2", b"01", b"\xff", b"\"\\u0000\"", b"[1,]", b"123456789012345678901234567890", b"0.1e-400", b"tru",
       b"{\"a\":{\"b\":[1,{\"c\":null}]}}", b"\"x", b"\"\t\"", b"\xef\xbb\xbf1", b"{'a':1}", b"// c\n1", b"+1", b".5",
       b'{"a":007,"b":"a 007","c":[00.5,-01]}', b"-0.05", b"1\x00",
       '"é"'.encode("utf-16")]


@pytest.mark.parametrize("payload", ODD)
def test_odd_json(java: Oracle, payload: bytes) -> None:
    config = {"schemas.enable": "false"}
    assert ours("json", config, [payload])[0] == decoded(java, "json", config, [payload])


ENVELOPES = [
    {"schema": None, "payload": {"a": 1.5}}, {"schema": {"type": "int32"}}, {"payload": 1}, [1], {"a": 1, "b": 2},
    {"schema": {"type": "int32"}, "payload": "x"}, {"schema": {"type": "int32"}, "payload": None},
    {"schema": {"type": "int32", "optional": True}, "payload": None}, {"schema": {"type": "int8"}, "payload": 300},
    {"schema": {"type": "int32"}, "payload": 3.99}, {"schema": {"type": "int64"}, "payload": 1 << 70},
    {"schema": {"type": "boolean"}, "payload": "true"},
    {"schema": {"type": "float"}, "payload": 0.1}, {"schema": {"type": "double"}, "payload": 3},
    {"schema": {"type": "bytes"}, "payload": "eA=="}, {"schema": {"type": "bytes"}, "payload": "%%"},
    {"schema": {"type": "nope"}, "payload": 1}, {"schema": {}, "payload": 1}, {"schema": 5, "payload": 1},
    {"schema": {"type": "array"}, "payload": []},
    {"schema": {"type": "map", "keys": {"type": "string"}}, "payload": {}},
    {"schema": {"type": "struct"}, "payload": {}}, {"schema": {"type": "struct", "fields": [{}]}, "payload": {}},
    {"schema": {"type": "struct", "fields": [{"type": "int32", "field": "a"}]}, "payload": {}},
    {"schema": {"type": "struct", "fields": [{"type": "int32", "field": "a", "default": 7}]}, "payload": {}},
    {"schema": {"type": "struct", "fields": [{"type": "string", "field": "a"}]}, "payload": {"a": 5}},
    {"schema": {"type": "struct", "fields": []}, "payload": {"a": 5}},
    {"schema": {"type": "struct", "fields": []}, "payload": 5},
    {"schema": {"type": "array", "items": {"type": "int32"}}, "payload": [1, None]},
    {"schema": {"type": "array", "items": {"type": "int32"}}, "payload": 5},
    {"schema": {"type": "map", "keys": {"type": "int32"}, "values": {"type": "int32"}}, "payload": [[1, 2], [3]]},
    {"schema": {"type": "map", "keys": {"type": "int32"}, "values": {"type": "int32"}}, "payload": {"1": 2}},
    {"schema": {"type": "map", "keys": {"type": "string"}, "values": {"type": "int32"}}, "payload": [["a", 2]]},
    *({"schema": {"type": kind, "name": f"org.apache.kafka.connect.data.{name}", "version": 1,
                  "parameters": {"scale": "2"}}, "payload": payload}
      for kind, name in (("int32", "Date"), ("int32", "Time"), ("int64", "Timestamp"), ("bytes", "Decimal"))
      for payload in (5, 86_399_999 if name != "Date" else 7, -1, 1.25, "eA==", "x", 1 << 40, True, None)),
]


@pytest.mark.parametrize("envelope", ENVELOPES, ids=json.dumps)
def test_odd_envelopes(java: Oracle, envelope: Any) -> None:
    payloads: list[bytes | None] = [json.dumps(envelope).encode(), json.dumps(envelope, separators=(",", ":")).encode()]
    assert ours("json", {}, payloads)[0] == decoded(java, "json", {}, payloads)


@EXAMPLES
@given(found=data.columns())
def test_string(java: Oracle, found: tuple[Shape, pa.Array]) -> None:
    shape, values = found
    payloads, reasons = converter_of("string", {}, False, None).encode("t", Column(values, shape))
    for at, other in enumerate(encoded(java, "string", {}, shape, values.to_pylist())):
        assert at in reasons or payloads[at] == other
    assert all("bytes have no text" in why for why in reasons.values())


@EXAMPLES
@given(payloads=st.lists(st.none() | st.binary(max_size=12), min_size=1),
       encoding=st.sampled_from(["UTF-8", "ISO-8859-1", "US-ASCII"]))
def test_string_of_any_bytes(java: Oracle, payloads: list[bytes | None], encoding: str) -> None:
    """How many U+FFFD a broken UTF-8 sequence becomes is not Java's number always; that it becomes some is."""
    config = {"converter.encoding": encoding}
    mine, theirs = (json.loads(re.sub(r"(\\ufffd)+", "?", json.dumps(rows))) for rows in (
        ours("string", config, payloads)[0], decoded(java, "string", config, payloads)))
    assert mine == theirs


@EXAMPLES
@given(name=st.sampled_from([*PRIMITIVE, "bytes"]), payloads=st.lists(
    st.none() | st.binary(max_size=9) | st.integers(-128, 127).map(lambda n: struct.pack(">b", n)), min_size=1))
def test_single_values(java: Oracle, name: str, payloads: list[bytes | None]) -> None:
    mine, _ = ours(name, {}, payloads)
    assert mine == decoded(java, name, {}, payloads)
    for at, column in converter_of(name, {}, False, None).decode("t", payloads)[0]:
        assert converter_of(name, {}, False, None).encode("t", column) == ([payloads[each] for each in at], {})


@EXAMPLES
@given(found=data.columns(size=1), name=st.sampled_from([*PRIMITIVE, "bytes"]))
def test_single_values_refuse_others(java: Oracle, found: tuple[Shape, pa.Array], name: str) -> None:
    shape, values = found
    theirs = encoded(java, name, {}, shape, values.to_pylist())[0]
    payloads, reasons = converter_of(name, {}, False, None).encode("t", Column(values, shape))
    assert isinstance(theirs, dict) == bool(reasons)
    assert reasons or payloads[0] == theirs


@EXAMPLES
@given(found=data.columns(size=3))
def test_headers_of_any_value(java: Oracle, found: tuple[Shape, pa.Array]) -> None:
    shape, values = found
    rows = values.to_pylist()
    mine = header_converter_of("simple", {}).encode("t", [("h", row, shape) for row in rows])
    answers = java.ask([{"op": "encode", "class": SIMPLE, "header": "h", "schema": data.told_shape(shape),
                         "value": data.told_value(row, shape, tag="linked")} for row in rows])
    assert [payload for _, payload in mine] == [raw(each) for each in answers]


TEXTS = ["5", "300", "-70000", "3000000000", "1.5", "1.0", "1e3", "1e39", "1e400", "abc", "true", "false", "null", "",
         " ", "[1,2]", "[1,2.5]", "[1,300]", '["a","b"]', "[]", "{}", '{"a":1}', '{"a":1,"b":300}', "[[1],[2]]",
         "[1", "{1",
         "[1,]", "[,1]", "true}", "2020-01-02", "12:34:56.789Z", "2020-01-02T12:34:56.789Z", "2020-13-45", '"x"', "+5",
         "99999999999999999999", "1234567890123456789012.5", "a,b", "5 apples", "10.0.0.1", "{a:1}", "x:y", "-", "+",
         "\\[1]", "[1,null]", "[null]", "[true,false]", '{"a":null}', "NaN", "0x10", "1_000", "٣"]


@pytest.mark.parametrize("text", TEXTS)
def test_headers_are_guessed_alike(java: Oracle, text: str) -> None:
    raw_text = base64.b64encode(text.encode()).decode()
    answer = java.ask({"op": "decode", "class": SIMPLE, "header": "h", "bytes": raw_text})
    (_, value, shape), = header_converter_of("simple", {}).decode("t", [("h", text.encode())])
    mine = [data.told_shape(shape), data.told_value(value, shape)]
    theirs = answer["schema"]
    for part in ("keys", "values"):  # of nothing: Java's schema has no schema there, ours text that may be null
        if theirs and part in theirs and theirs[part] is None:
            theirs[part] = {"type": "string", "optional": True}
    assert data.same(mine) == data.same([theirs, answer["value"]])


@pytest.mark.parametrize("text", ["5,6", '[1,"a"]', "[1,2] and so on"])
def test_headers_lose_nothing(text: str) -> None:
    """Java reads 5 in the first, a list without a schema in the second, and passes over the words of the third."""
    converter = header_converter_of("simple", {})
    assert converter.decode("t", [("h", text.encode())]) == [("h", text, Shape("string"))]
    assert converter.encode("t", converter.decode("t", [("h", text.encode())])) == [("h", text.encode())]


# Avro: AvroData as Apicurio ships it, a copy of Confluent's


class Kept(Registry):
    """A registry in memory: its ids count from 1."""

    def __init__(self) -> None:
        super().__init__({})
        self.kept: list[AvroSchema] = []

    def register(self, subject: str, schema: AvroSchema) -> int:
        if schema not in self.kept:
            self.kept.append(schema)
        return self.kept.index(schema) + 1

    def schema(self, schema_id: int) -> AvroSchema:
        if schema_id > len(self.kept):
            raise UnknownSchema(schema_id)
        return self.kept[schema_id - 1]


def full(told: Any, space: str = "") -> Any:
    """An Avro schema's JSON with every name in full."""
    if isinstance(told, list):
        return [full(each, space) for each in told]
    if isinstance(told, str):
        return told if "." in told or told in PLAIN else f"{space}.{told}"
    if not isinstance(told, dict):
        return told
    told = dict(told)
    if told.get("type") in ("record", "fixed", "enum"):
        space = told.pop("namespace", space)
        told["name"] = f"{space}.{told['name']}"
        told["fields"] = [{**each, "type": full(each["type"], space)} for each in told.get("fields", ())]
        return told
    return {key: full(value, space) if key in ("items", "values") else value for key, value in told.items()}


AVRO_NAMES = st.sampled_from([f"field_{n}" for n in range(20)])


@EXAMPLES
@given(found=data.columns(names=AVRO_NAMES))
def test_avro(java: Oracle, found: tuple[Shape, pa.Array]) -> None:
    shape, values = found
    registry = Kept()
    converter = converter_of("avro", {}, False, registry)
    payloads, reasons = converter.encode("t", Column(values, shape))
    rows = values.to_pylist()
    theirs = java.ask([{"op": "avro", "schema": data.told_shape(shape), "value": data.told_value(row, shape)}
                       for row in rows])
    twice = "MapEntry2" in registry.kept[-1].text if registry.kept else any("twice" in why for why in reasons.values())
    for at, (row, payload, other) in enumerate(zip(rows, payloads, theirs, strict=True)):
        if row is None:
            assert payload is None
        elif twice:
            pass  # Java gives different types one name, and so loses all but the first
        elif at in reasons:
            assert "error" in other, reasons[at]
        else:
            assert payload is not None
            assert full(registry.kept[-1].json) == full(other["schema"])
            assert payload[5:] == base64.b64decode(other["bytes"])
        if payload is not None:
            written = {"avro": registry.kept[-1].json, "bytes": base64.b64encode(payload[5:]).decode()}
            answer = java.ask({"op": "connect", **written})
            assert "error" not in answer, answer
            (_, column), = converter.decode("t", [payload])[0]
            mine = [data.told_shape(column.shape), data.told_value(column.values.to_pylist()[0], column.shape)]
            assert data.same(mine) == data.same([answer["schema"], answer["value"]])
