"""The fast way through JSON Lines and the exact one agree on whatever lines come."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.codec import parse
from headrace.ingest import jsonl
from headrace.ingest.text import Cut, Cutter

pytestmark = pytest.mark.contract

SCHEMA = parse(json.dumps({"type": "record", "name": "R", "fields": [
    {"name": "i", "type": ["null", "int"]}, {"name": "l", "type": ["null", "long"]},
    {"name": "d", "type": ["null", "double"]}, {"name": "f", "type": ["null", "float"]},
    {"name": "s", "type": ["null", "string"]}, {"name": "b", "type": ["null", "boolean"]},
    {"name": "t", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
    {"name": "lt", "type": ["null", {"type": "long", "logicalType": "local-timestamp-micros"}]},
    {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]},
    {"name": "n", "type": "int", "default": 5}]}))
TEXTS = st.one_of(st.text(max_size=8), st.datetimes().map(str), st.datetimes().map(lambda t: t.isoformat() + "Z"),
                  st.dates().map(str), st.sampled_from(["", " 1", "1", "0x1F", "2013-01-01T10:00:00.1234567Z", "NaN",
                                                        "2013-01-01T10", "2013-01-01 10:00+01", "20130101",
                                                        "10000-01-01", "2013-02-29", "2013-01-01t10:00:00z",
                                                        "2013-W01-1"]))
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-(1 << 65), 1 << 65), st.floats(), TEXTS,
                   st.sampled_from([[1], {}]))
LIKELY = {"i": st.integers(-9, 9), "l": st.integers(-(1 << 63), (1 << 63) - 1), "d": st.floats(),
          "f": st.floats(width=32), "s": st.text(max_size=5), "b": st.booleans(), "t": TEXTS, "lt": TEXTS, "day": TEXTS,
          "n": st.integers(0, 9)}


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    record = {name: draw(VALUES if draw(st.integers(0, 9)) == 0 else some)
              for name, some in LIKELY.items() if draw(st.integers(0, 3)) > 0}
    raw = json.dumps(record, ensure_ascii=draw(st.booleans())).encode(errors="replace")
    return draw(st.sampled_from([raw, raw, raw, raw, raw, raw + b" ", b" " + raw, raw.replace(b", ", b",\n", 1),
                                 raw[:-1], raw + raw, raw.replace(b"5", b"05"), raw.replace(b'"i"', b'"l"')]))


def cut(raw: bytes) -> Cut:
    found = Cutter(io.BytesIO(raw)).next(1000)
    assert found is not None
    return found


@settings(deadline=None, max_examples=600)
@given(st.lists(lines(), min_size=1, max_size=4))
def test_where_the_fast_way_gives_rows_the_exact_one_gives_the_same(written: list[bytes]) -> None:
    block = cut(b"\n".join(written) + b"\n")
    plain = jsonl._read_as(SCHEMA)
    assert plain is not None
    fast = jsonl._in_bulk(SCHEMA, plain, block) if len(block) else None
    if fast is None:
        return
    exact = jsonl._line_by_line(SCHEMA, json.JSONDecoder(), block)
    assert exact.bad == ()
    assert str(fast.to_pylist()) == str(exact.rows.to_pylist())  # as text, since NaN is not equal to itself


def test_the_fast_way_is_taken() -> None:
    block = cut(b'{"i": 1, "t": "2013-01-01T10:00:00Z", "n": 1}\n' * 3)
    plain = jsonl._read_as(SCHEMA)
    assert plain is not None
    assert isinstance(jsonl._in_bulk(SCHEMA, plain, block), pa.RecordBatch)
