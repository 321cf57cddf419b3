"""What a quarantined record says of itself, in headers, beside its own bytes."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.batch import SOURCE_HEADER, Batch, Frames, Meta, Rejects, read_lineage
from headrace.connectors.quarantine import FLOW, REASONS, SOURCE, STEP, TIME, QuarantineSink
from headrace.testing import Record

pytestmark = pytest.mark.unit

SINK = QuarantineSink("held", "f", now_ms=lambda: 1_700_000_000_123)


def batch(n: int, reasons: pa.Array | None, *, topic: str | None = "t", own: bool = False) -> Batch:
    records = [Record(b"v%d" % i, topic or f"t{i % 2}", i % 3, 100 + i, b"k", i,
                      [("x", b"%d" % i), (FLOW, b"earlier"), (SOURCE, b"earlier")] if own else None) for i in range(n)]
    return Batch(pa.RecordBatch.from_arrays([pa.array(range(n))], names=["n"]), Meta(Frames(records, topic)), reasons)


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=3), min_size=1,
                max_size=8), st.integers(0, 3))
def test_reasons_are_json(reasons: list[list[str]], before: int) -> None:
    """Whatever they say, also where the array is a slice of another."""
    array = pa.array([["not ours"]] * before + reasons, pa.list_(pa.string()))[before:]
    said = [dict(headers)[REASONS] for headers in SINK.hold(batch(len(reasons), array), "s").headers]
    assert [json.loads(each or b"") for each in said] == reasons
    assert said == [json.dumps(each, ensure_ascii=False).encode() for each in reasons]
    refused = Rejects(batch(len(reasons), None).meta, reasons, "s")
    assert [dict(headers)[REASONS] for headers in SINK.reject(refused).headers] == said


@pytest.mark.parametrize("topic", ["t", None])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("picked", [[0, 1, 2, 3, 4, 5], [1, 4], [0, 2, 3, 4, 5]])
def test_who_why_and_where_from(topic: str | None, own: bool, picked: list[int]) -> None:
    whole = batch(6, pa.array([[f"a: {i}"] for i in range(6)]), topic=topic, own=own)
    mask = np.isin(np.arange(6), picked)
    out = SINK.hold(whole.take(pa.array(mask)), "check")
    assert list(out.values) == [b"v%d" % i for i in picked]
    assert list(out.keys) == [b"k"] * len(picked)
    assert list(out.timestamps_ms) == picked
    for i, headers in zip(picked, out.headers, strict=True):
        place = f"{topic or f't{i % 2}'}/{i % 3}@{100 + i}"
        expected = {FLOW: b"f", STEP: b"check", TIME: b"2023-11-14T22:13:20.123+00:00", REASONS: b'["a: %d"]' % i,
                    SOURCE: place.encode(), **({"x": b"%d" % i} if own else {})}
        assert {name: value for name, value in headers if name != SOURCE_HEADER} == expected
        assert len(headers) == len(expected) + 1, "a header twice"
        assert str(read_lineage(headers)) == place


def test_without_a_reason() -> None:
    assert [dict(h)[REASONS] for h in SINK.hold(batch(2, None), "s").headers] == [
        b'["unmatched: no reason was given"]'] * 2
