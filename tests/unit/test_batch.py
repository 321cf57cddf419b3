"""Frames, Meta and Batch: positions stay with their rows, lineage is written and read back."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.batch import Batch, Emitted, Frames, Meta, Span, read_lineage
from headrace.testing import Record, records

pytestmark = pytest.mark.unit


def batch(n: int) -> Batch:
    made = [Record(b"%d" % i, "t", i % 3, i, b"k%d" % i, 1000 + i) for i in range(n)]
    return Batch(pa.RecordBatch.from_pydict({"n": pa.array(range(n), pa.int64())}), Meta(Frames(made)))


@given(st.lists(st.one_of(st.none(), st.booleans()), min_size=1, max_size=40), st.data())
def test_take_keeps_rows_and_positions_together(mask: list[bool | None], data: st.DataObject) -> None:
    whole = batch(len(mask))
    kept = whole.take(pa.array(mask, pa.bool_()))
    want = [i for i, m in enumerate(mask) if m]
    assert kept.rows["n"].to_pylist() == want
    assert kept.meta.offsets().tolist() == want
    assert kept.meta.keys() == [b"k%d" % i for i in want]
    assert kept.meta.timestamps_ms() == [1000 + i for i in want]
    again = data.draw(st.lists(st.booleans(), min_size=len(want), max_size=len(want)))
    twice = kept.take(pa.array(again, pa.bool_()))
    assert twice.meta.values() == [b"%d" % i for i, m in zip(want, again, strict=True) if m]
    assert [read_lineage(h) for h in twice.meta.headers()] == [
        Span("t", i % 3, i, i) for i, m in zip(want, again, strict=True) if m]


def test_headers_are_carried_and_the_parent_position_replaced() -> None:
    parent = Span("up", 0, 5, 9).header()
    made = [Record(b"", "mid", 1, 70, headers_=[("traceparent", b"00-1"), parent]), Record(b"", "mid", 1, 71)]
    first, second = Frames(made).out_headers
    assert [name for name, _ in first] == ["traceparent", "headrace.src"]
    assert read_lineage(first) == Span("mid", 1, 70, 70)
    assert read_lineage(second) == Span("mid", 1, 71, 71)


def test_lineage_of_several_topics_and_of_many_records() -> None:
    made = [*records([b"a"], "one", 3, 8), *records([b"b"], "the other", 0, 2**40)]
    assert [str(read_lineage(h)) for h in Frames(made).out_headers] == ["one/3@8", f"the other/0@{2**40}"]
    made_of_many = Emitted([Span("t", 2, 10, 19)], [b"id"], [77])
    assert read_lineage(made_of_many.out_headers[0]) == Span("t", 2, 10, 19)
    assert len(made_of_many) == 1
    assert read_lineage(None) is None
    assert read_lineage([("headrace.src", b"short")]) is None


def test_spans_are_one_a_partition() -> None:
    made = [*records([b""] * 3, "t", 0, 5), *records([b""] * 2, "t", 1, 9), *records([b""], "u", 0, 1)]
    assert Frames(made).spans() == [Span("t", 0, 5, 7), Span("t", 1, 9, 10), Span("u", 0, 1, 1)]
