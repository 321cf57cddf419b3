"""join: the pairs are those of the two streams as wholes, whatever the interleaving, the batches and the aborts."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.batch import SOURCE_HEADER, SPAN_HEADER, Batch, Emitted, Meta, Span, read_lineage
from headrace.errors import SchemaError, UserError
from headrace.joining.pairs import lateness, one_to_one, within
from headrace.processors.join import Join
from tests.unit.joinkit import LEFT, RIGHT, Bench, Row, batch, join

pytestmark = pytest.mark.unit
WITHIN, BEFORE = 10, 3


def at(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1e3, UTC)


def left(id: str | None, ms: int | None, n: int = 0) -> Row:
    return {"id": id, "scored_at": at(ms), "p": 0.5, "n": n}


def right(id: str | None, ms: int | None, m: int = 0) -> Row:
    return {"id": id, "arrived_at": at(ms), "label": True, "m": m}


# what the streams as wholes say

Event = tuple[int, str | None, int | None]
"""(partition, key, event time)"""
events = st.lists(st.tuples(st.sampled_from([0, 0, 1]), st.sampled_from(["a", "a", "a", "b", "b", None]),
                            st.sampled_from([None, *range(1_000, 1_025)])), max_size=14)


def expected(lefts: list[Event], rights: list[Event], late: int, one: bool) -> dict[str, Counter[Any]]:
    """By brute force: a side at a time, a partition at a time, every pair looked at."""
    names = {0: ("unmatched", "late"), 1: ("unmatched_right", "late_right")}
    out: dict[str, Counter[Any]] = {name: Counter() for name in ("success", *names[0], *names[1])}
    for partition in (0, 1):
        latest: dict[int, int | None] = {}
        joins: dict[int, list[tuple[int, str, int]]] = {}
        for side, stream in enumerate((lefts, rights)):
            unmatched, lates = names[side]
            seen: int | None = None
            joins[side] = []
            for n, (where, key, ms) in enumerate(stream):
                if where != partition:
                    continue
                if key is None or ms is None:
                    out[unmatched][n] += 1
                elif seen is not None and ms < seen - late:
                    out[lates][n] += 1
                else:
                    joins[side].append((n, key, ms))
                    seen = max(ms, seen or ms)
            latest[side] = seen
        partners: dict[int, set[int]] = {0: set(), 1: set()}
        for n, key, ms in joins[0]:
            for m, other, then in joins[1]:
                free = n not in partners[0] and m not in partners[1]
                if key == other and -BEFORE <= then - ms <= WITHIN and (free or not one):
                    out["success"][n, m] += 1
                    partners[0].add(n)
                    partners[1].add(m)
        for side, reach in ((0, WITHIN), (1, BEFORE)):
            limit = latest[1 - side]
            for n, _, ms in joins[side]:
                if n not in partners[side] and limit is not None and limit - late > ms + reach:
                    out[names[side][0]][n] += 1
    return out


def got(bench: Bench) -> dict[str, Counter[Any]]:
    columns = {"success": "nm", "unmatched": "n", "late": "n", "unmatched_right": "m", "late_right": "m"}
    return {name: Counter((row["n"], row["m"]) if name == "success" else row[column] for row in bench.rows(name))
            for name, column in columns.items()}


WHOLE = (None, None, 0, False)
steps = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 1), st.booleans()), max_size=14)
"""(rows from the left, from the right, aborts, whether another worker goes on); after the last, whatever is left."""


@settings(max_examples=200)
@given(events, events, st.sampled_from([0, 4, 100]), st.booleans(), steps)
def test_any_interleaving_any_cuts_any_aborts(lefts: list[Event], rights: list[Event], late: int, one: bool,
                                              steps: list[tuple[int, int, int, bool]]) -> None:
    def make() -> Join:
        return join(within=f"{WITHIN}ms", before=f"{BEFORE}ms", late=f"{late}ms", expect_one=one)

    streams: tuple[list[Any], list[Any]] = ([], [])
    for side, (stream, row) in enumerate(((lefts, left), (rights, right))):
        offsets: Counter[int] = Counter()
        for n, (partition, key, ms) in enumerate(stream):
            streams[side].append((partition, offsets[partition], row(key, ms, n)))
            offsets[partition] += 1
    bench = Bench(make())
    for *counts, aborts, another in (*steps, WHOLE):
        cut = [stream[:count] for stream, count in zip(streams, counts, strict=True)]
        bench.run(cut[0], cut[1], aborts=aborts)
        for stream, taken in zip(streams, cut, strict=True):
            del stream[:len(taken)]
        if another:  # with nothing but the state
            bench = Bench(make(), bottoms=bench.bottoms, out=bench.out)
    assert got(bench) == expected(lefts, rights, late, one)


@pytest.mark.parametrize(("apart", "meet"), [(-BEFORE - 1, False), (-BEFORE, True), (WITHIN, True),
                                             (WITHIN + 1, False)])
@pytest.mark.parametrize("right_first", [False, True])
def test_the_edges_of_the_window(apart: int, meet: bool, right_first: bool) -> None:
    bench = Bench(join(within=f"{WITHIN}ms", before=f"{BEFORE}ms", late="1s"))
    sides = ([(0, 0, left("a", 5_000))], [(0, 0, right("a", 5_000 + apart))])
    for left_now in (not right_first, right_first):
        bench.run(sides[0] if left_now else [], [] if left_now else sides[1])
    assert len(bench.rows("success")) == meet


# what a row is when it leaves

def test_a_pair_is_the_record_that_completed_it() -> None:
    bench = Bench(join())
    bench.run([(1, 7, left("a", 1_000, 5))], [])
    made = bench.run([], [(1, 3, right("a", 1_010, 6))])["success"]
    assert made.rows.to_pylist() == [{**left("a", 1_000, 5), "arrived_at": at(1_010), "label": True, "m": 6}]
    assert read_lineage(made.meta.headers()[0]) == Span("labels", 1, 3, 3)
    assert (made.meta.keys(), made.meta.timestamps_ms()) == ([b"a"], [1_000_003])
    assert bench.run([], [(1, 4, right("a", 1_010, 7))])["success"].rows.column("m").to_pylist() == [7]
    again = bench.run([(1, 8, left("a", 1_005, 8))], [])["success"]  # the later label stands 5 ms after it
    assert again.rows.column("m").to_pylist() == [6, 7]
    assert {str(read_lineage(h)) for h in again.meta.headers()} == {"predictions/1@8"}


def test_one_record_may_complete_many_pairs_in_any_order() -> None:
    bench = Bench(join())
    made = bench.run([(0, n, left(i, 1_000, n)) for n, i in enumerate("abcab")],
                     [(0, n, right(i, 1_001, n)) for n, i in enumerate("cba")])["success"]
    assert [(r["n"], r["m"]) for r in made.rows.to_pylist()] == [(2, 0), (1, 1), (4, 1), (0, 2), (3, 2)]
    assert [str(read_lineage(h)) for h in made.meta.headers()] == [f"labels/0@{m}" for m in (0, 1, 1, 2, 2)]
    assert made.meta.keys() == [b"c", b"b", b"b", b"a", b"a"]


def test_rows_that_waited_in_vain_leave_as_they_came() -> None:
    bench = Bench(join())
    bench.run([(2, 7, left("a", 1_000, 5))], [(2, 1, right("z", 1_010, 1))])
    assert bench.out == {}, "the right side may still bring a partner at 1010"
    out = bench.run([], [(2, 2, right("y", 1_011, 2))])
    assert out["unmatched"].rows.to_pylist() == [left("a", 1_000, 5)]
    assert out["unmatched"].rows.schema == LEFT
    meta = out["unmatched"].meta
    assert read_lineage(meta.headers()[0]) == Span("predictions", 2, 7, 7)
    assert (meta.keys(), meta.timestamps_ms(), meta.topics()) == ([b"a"], [1_000_007], ["predictions"])
    assert [h[0] for h in meta.headers()[0]] == [SOURCE_HEADER]


def test_headers_and_spans_are_carried_past_the_wait() -> None:
    step = join()
    bench = Bench(step)
    span = Span("readings", 0, 10, 20)
    rows = pa.RecordBatch.from_pylist([left("a", 1_000)], schema=LEFT)
    step.process_many([Batch(rows, Meta(Emitted([span], [b"k"], [77]))), None], bench.context)
    out = step.process_many([None, batch(RIGHT, "labels", [(0, 0, right("b", 2_000))])], bench.context)
    meta = out["unmatched"].meta
    assert [h[0] for h in meta.headers()[0]] == [SPAN_HEADER]
    assert (read_lineage(meta.headers()[0]), meta.keys(), meta.timestamps_ms()) == (span, [b"k"], [77])


def test_a_side_far_ahead_waits_for_the_other() -> None:
    """Topics are read at different speeds: a label a year on does not give up a prediction's own side."""
    bench = Bench(join())
    bench.run([], [(0, n, right(f"k{n}", 1_000 + 10 * n, n)) for n in range(1_000)])
    assert bench.out == {}
    for n in range(0, 1_000, 100):
        bench.run([(0, n + i, left(f"k{n + i}", 1_000 + 10 * (n + i), n + i)) for i in range(100)], [])
    assert Counter((r["n"], r["m"]) for r in bench.rows("success")) == Counter((n, n) for n in range(1_000))
    assert "unmatched" not in bench.out


def test_left_join_gives_rows_without_partner_nulls() -> None:
    step = join(kind="left", take=["label"])
    assert step.outputs_of((LEFT, RIGHT))["success"].field("label").nullable
    bench = Bench(step)
    bench.run([(0, 0, left("a", 1_000, 1)), (0, 1, left(None, 1_000, 2))], [])
    bench.run([], [(0, 0, right("b", 5_000))])
    assert [(r["n"], r["label"]) for r in bench.rows("success")] == [(2, None), (1, None)]
    assert set(bench.out) == {"success"}


def test_nothing_is_kept_of_what_is_done() -> None:
    bench = Bench(join(expect_one=True))
    for n in range(200):
        bench.run([(0, n, left(f"k{n}", 1_000 + n, n))], [(0, n, right(f"k{n}", 1_001 + n, n))])
    held = [key for key in bench.bottoms[0]._held if b"\0vr" in key]
    assert (len(bench.rows("success")), held) == (200, [])


# what it is made of

@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-50, 50)), max_size=12),
       st.lists(st.tuples(st.integers(0, 2), st.integers(-50, 50)), max_size=12), st.integers(0, 20),
       st.integers(0, 20))
def test_within_is_every_pair(lefts: list[tuple[int, int]], rights: list[tuple[int, int]], before: int,
                              after: int) -> None:
    columns = [np.array([row[c] for row in side], dtype=np.int64) for side in (lefts, rights) for c in (0, 1)]
    i, j = within(columns[0], columns[1], columns[2], columns[3], before, after)
    wanted = [(a, b) for a, (k, t) in enumerate(lefts) for b, (o, u) in enumerate(rights)
              if k == o and -before <= u - t <= after]
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == wanted


@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6))))
def test_one_to_one_leaves_no_two_that_would_rather_have_each_other(edges: set[tuple[int, int]]) -> None:
    pairs = sorted(edges)
    keep = one_to_one(*(np.array([p[c] for p in pairs], dtype=np.int64) for c in (0, 1)))
    chosen = [p for p, kept in zip(pairs, keep, strict=True) if kept]
    of_left, of_right = dict(chosen), {j: i for i, j in chosen}
    assert len(of_left) == len(of_right) == len(chosen)
    assert not [(i, j) for i, j in pairs if j < of_left.get(i, 99) and i < of_right.get(j, 99)]


@given(st.lists(st.integers(0, 50)), st.integers(0, 10), st.integers(0, 30))
def test_lateness_does_not_see_batches(times: list[int], late: int, cut: int) -> None:
    def run(*parts: list[int]) -> tuple[list[bool], int]:
        out, latest = [], -(1 << 62)
        for part in parts:
            found, latest = lateness(np.array(part, dtype=np.int64), latest, late)
            out += found.tolist()
        return out, latest

    assert run(times) == run(times[:cut], times[cut:])


def test_rows_of_an_earlier_version_are_read() -> None:
    """A column is added to the left side while rows wait."""
    bench = Bench(join())
    bench.run([(0, 0, left("a", 1_000, 1))], [])
    wider = pa.schema([*LEFT, pa.field("extra", pa.int32())])
    later = Bench(join((wider, RIGHT)), schemas=(wider, RIGHT), bottoms=bench.bottoms)
    later.run([], [(0, 0, right("a", 1_001, 9))])
    assert [(r["n"], r["extra"], r["m"]) for r in later.rows("success")] == [(1, None, 9)]
    narrow = pa.schema([*list(LEFT)[:3], pa.field("n", pa.int64(), False), pa.field("must", pa.int32(), False)])
    bench.run([(0, 1, left("b", 1_000, 1))], [])
    broken = Bench(join((narrow, RIGHT)), schemas=(narrow, RIGHT), bottoms=bench.bottoms)
    with pytest.raises(UserError, match="earlier version"):
        broken.run([], [(0, 1, right("b", 1_001, 9))])


def test_columns_of_every_kind_come_back_as_they_were() -> None:
    kinds: dict[str, tuple[pa.DataType, Any]] = {
        "small": (pa.int8(), 3), "long_text": (pa.large_string(), "ü"), "word": (pa.dictionary(pa.int32(), pa.string()),
        "x"), "seconds": (pa.timestamp("s"), datetime(2013, 1, 1)), "parts": (pa.list_(pa.int32()), [1, None]),
        "money": (pa.decimal128(9, 2), None), "raw": (pa.binary(), b"\0\xff"),
        "place": (pa.struct([pa.field("lat", pa.float32())]), {"lat": 1.5})}
    wide = pa.schema([*LEFT, *(pa.field(name, kind) for name, (kind, _) in kinds.items())])
    bench = Bench(join((wide, RIGHT)), schemas=(wide, RIGHT))
    row = {**left("a", 1_000, 1), **{name: value for name, (_, value) in kinds.items()}}
    bench.run([(0, 0, row), (0, 1, {**row, "id": "b"})], [])
    bench.run([], [(0, 0, right("a", 1_001))])
    out = bench.run([], [(0, 1, right("c", 9_000))])
    assert bench.batches[1]["success"].rows.schema.names[:len(wide)] == wide.names
    assert {k: bench.rows("success")[0][k] for k in row} == row
    assert out["unmatched"].rows.schema == wide
    assert out["unmatched"].rows.to_pylist() == [{**row, "id": "b"}]


def test_keys_of_several_columns_and_of_two_names() -> None:
    one = pa.schema([pa.field("carrier", pa.string()), pa.field("flight", pa.int32()), *list(LEFT)[1:]])
    two = pa.schema([pa.field("airline", pa.large_string()), pa.field("number", pa.int64()), *list(RIGHT)[1:]])
    step = join((one, two), on={"left": ["carrier", "flight"], "right": ["airline", "number"]})
    bench = Bench(step, schemas=(one, two))
    rows = [(0, n, {**left(None, 1_000, n), "carrier": c, "flight": f}) for n, (c, f) in
            enumerate([("U", 11), ("U1", 1), ("U", None)])]
    for _, _, row in rows:
        del row["id"]
    labels = [(0, n, {"airline": c, "number": f, "arrived_at": at(1_001), "label": False, "m": n})
              for n, (c, f) in enumerate([("U1", 1), ("U", 11)])]
    bench.run(rows, labels)
    assert sorted((r["n"], r["m"], r["number"]) for r in bench.rows("success")) == [(0, 1, 11), (1, 0, 1)]
    assert [r["n"] for r in bench.rows("unmatched")] == [2]


# what lint says

@pytest.mark.parametrize(("config", "said"), [
    ({"on": "nowhere"}, "“nowhere”, which is no column"),
    ({"on": {"left": "id", "right": "m"}}, "compares id, which is string, with m, which is int64"),
    ({"on": "p"}, "a key is text"),
    ({"time": "scored_at"}, "no column of the rows"),
    ({"time": {"left": "id", "right": "arrived_at"}}, "must be a timestamp"),
    ({"take": ["nowhere"]}, "no column there"),
    ({"take": {"p": "label"}}, "both sides have a column “p”"),
    ({"take": ["id"]}, "suffix: _right")])
def test_what_cannot_be_joined_is_said(config: dict[str, Any], said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        join(**config)


@pytest.mark.parametrize(("config", "said"), [
    ({"on": {"left": ["id", "n"], "right": "id"}}, "as many columns"), ({"within": "soon"}, "is no duration"),
    ({"suffix": "_r", "take": {"x": "label"}}, "renames columns that"), ({"on": ()}, "as many columns")])
def test_settings_that_do_not_fit_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        join(**config)


def test_columns_of_a_pair() -> None:
    twins = pa.schema([*RIGHT, pa.field("p", pa.float64())])
    assert join((LEFT, twins), suffix="_right")._pair.names == [*LEFT.names, "arrived_at", "label", "m", "p_right"]
    assert join(take={"truth": "label"})._pair.names == [*LEFT.names, "truth"]
    assert join(take=["m"])._pair.names == [*LEFT.names, "m"]
