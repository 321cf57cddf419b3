"""Mending: which records go back, with what changes, and why others do not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from headrace import codec
from headrace.batch import Span
from headrace.codec import AvroSchema, UnknownSchema
from headrace.errors import ExpressionError, UserError
from headrace.payloads import Reader, plain, schema_id
from headrace.quarantine import Held, Mend
from headrace.quarantine.mend import Mender

pytestmark = pytest.mark.unit

OLD = codec.parse(json.dumps({"type": "record", "name": "Reading", "fields": [
    {"name": "n", "type": "long"}, {"name": "sensor", "type": ["null", "string"]}, {"name": "small", "type": "int"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}))
NEW = codec.parse(json.dumps({"type": "record", "name": "Reading", "fields": [
    {"name": "n", "type": "long"}, {"name": "unit", "type": "string", "default": "C"},
    {"name": "small", "type": "int"}]}))
SCHEMAS = {1: OLD, 2: NEW}


def writers(number: int) -> AvroSchema:
    if number not in SCHEMAS:
        raise UnknownSchema(number)
    return SCHEMAS[number]


def payloads(number: int, *records: dict[str, Any]) -> list[bytes]:
    schema = SCHEMAS[number]
    rows = pa.RecordBatch.from_pylist(list(records), schema=schema.arrow)
    return codec.Encoder(schema, schema.arrow, number).encode(rows)


def old(n: int, sensor: str | None = None, small: int = 0) -> bytes:
    return payloads(1, {"n": n, "sensor": sensor, "small": small, "at": 1_700_000_000_123})[0]


def holding(values: Sequence[bytes | None], reasons: Sequence[str] = ("x: y",)) -> list[Held]:
    return [Held(Span("q", 0, i, i), Span("src", 0, 10 + i, 10 + i), "f", "s", (reasons[i % len(reasons)],), None, 0,
                 None, value, []) for i, value in enumerate(values)]


def mended(mend: Mend, values: Sequence[bytes | None]) -> tuple[dict[int, Any], dict[int, str]]:
    """By place: the records to send, decoded, and the reasons of those left."""
    ready, left = Mender(mend, Reader(writers), lambda topic, schema: 2).apply(holding(values))
    contents = Reader(writers).records([value for _, value in ready])
    return ({r.at.offset_first: c for (r, _), c in zip(ready, contents, strict=True)},
            {r.at.offset_first: why for r, why in left})


def test_unchanged_records_go_back_byte_for_byte() -> None:
    values = [old(1), *payloads(2, {"n": 2, "unit": "K", "small": 5}), old(3)]
    ready, left = Mender(Mend(), Reader(writers), lambda topic, schema: 2).apply(holding(values))
    assert [value for _, value in ready] == values
    assert not left


def test_where_and_set_see_the_record_as_it_was_held() -> None:
    ready, left = mended(Mend(where="n >= 2", sets={"n": "small", "small": "n + 100"}),
                         [old(1, small=7), old(2, small=8), old(3, small=9)])
    assert {at: (record["n"], record["small"]) for at, record in ready.items()} == {1: (8, 102), 2: (9, 103)}
    assert ready[1]["at"] == "2023-11-14T22:13:20.123000+00:00", "what is not set stays as it was"
    assert not left, "what `where` does not choose is not left over, it is not meant"


def test_each_record_keeps_its_writers_schema() -> None:
    values = [old(1), *payloads(2, {"n": 2, "unit": "K", "small": 5})]
    ready, _ = Mender(Mend(sets={"small": "9"}), Reader(writers), lambda topic, schema: 99).apply(holding(values))
    assert [schema_id(value) for _, value in ready] == [1, 2]
    assert [record["small"] for record in Reader(writers).records([v for _, v in ready])] == [9, 9]  # type: ignore[index]


def test_with_another_schema() -> None:
    asked: list[tuple[str, AvroSchema]] = []

    def ids(topic: str, schema: AvroSchema) -> int:
        asked.append((topic, schema))
        return 2

    ready, _ = Mender(Mend(schema=NEW, sets={"unit": "'F'"}), Reader(writers), ids).apply(holding([old(4, small=3)]))
    assert Reader(writers).records([v for _, v in ready]) == [{"n": 4, "unit": "F", "small": 3}]
    assert asked == [("src", NEW)]


def test_what_cannot_be_read_is_left_and_said() -> None:
    values = [old(1), None, b"", b"\1abcdefg", b"\0\0\0\0\7xx", old(2)[:8], old(3) + b"!"]
    ready, left = mended(Mend(), values)
    assert set(ready) == {0}
    assert [left[at].partition(":")[0] for at in range(1, 7)] == [
        "null_value", "truncated_header", "wrong_magic", "unknown_schema", "corrupt", "trailing_bytes"]


def test_raw_sends_what_cannot_be_read_as_it_is() -> None:
    values = [None, b"\1abcdefg", old(1)]
    ready, left = Mender(Mend(raw=True, sets={"small": "3"}), Reader(writers), lambda t, s: 2).apply(holding(values))
    assert [value for _, value in ready] == [None, b"\1abcdefg", old(1, small=3)]
    assert not left


def test_where_cannot_choose_what_cannot_be_read() -> None:
    ready, left = mended(Mend(raw=True, where="n = 1"), [b"\1abcdefg", old(1)])
    assert set(ready) == {1}
    assert set(left) == {0}


def test_a_value_that_does_not_fit_leaves_its_record_alone() -> None:
    ready, left = mended(Mend(sets={"small": "sensor"}), [old(1, "12"), old(2, "warm"), old(3, None)])
    assert {at: record["small"] for at, record in ready.items()} == {0: 12}
    assert "warm" in left[1]
    assert left[2], "null in a field that must not be null"


def test_too_large_for_its_column() -> None:
    ready, left = mended(Mend(sets={"small": "n"}), [old(5), old(1 << 40)])
    assert {at: record["small"] for at, record in ready.items()} == {0: 5}
    assert set(left) == {1}


@pytest.mark.parametrize(("mend", "error", "said"), [
    (Mend(where="n +"), ExpressionError, "--where"),
    (Mend(where="n + 1"), ExpressionError, "not true or false"),
    (Mend(where="nn = 1"), ExpressionError, "nn"),
    (Mend(sets={"nn": "1"}), UserError, "no such column; did you mean “n”"),
    (Mend(sets={"n": "count(*)"}), ExpressionError, "--set n"),
])
def test_wrong_expressions(mend: Mend, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said.replace("(", r"\(").replace("+", r"\+").replace("*", r"\*")):
        mended(mend, [old(1)])


def test_selection_by_reason_and_position() -> None:
    held = holding([old(i) for i in range(4)], ["late: by 3 min", "level: 9 > 5"])
    assert [r.at.offset_first for r in held if Mend(reason="level").selects(r)] == [1, 3]
    assert [r.at.offset_first for r in held if Mend(at=(0, 2)).selects(r)] == [2]
    assert not any(Mend(at=(1, 2)).selects(r) for r in held)
    assert not any(Mend(reason="lev").selects(r) for r in held)


def test_plain_values_are_json() -> None:
    from datetime import UTC, datetime
    from decimal import Decimal

    value = {"t": datetime(2013, 1, 1, tzinfo=UTC), "d": Decimal("1.50"), "b": b"\0\xff", "l": [{"x": None}], "i": 3}
    assert json.loads(json.dumps(plain(value))) == {
        "t": "2013-01-01T00:00:00+00:00", "d": "1.50", "b": "AP8=", "l": [{"x": None}], "i": 3}
