"""Profiles: what is said of data, held to what is counted here by other means, however the data is cut into batches."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import random
import re
import statistics
from collections import Counter
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.suggesting import relations, shapes, tallies
from headrace.contracts.suggesting.profile import ColumnProfile, Profile, profile
from headrace.contracts.suggesting.shapes import Form, Shapes
from headrace.errors import UserError

pytestmark = pytest.mark.unit

NAN = float("nan")


def of(values: list[Any], type_: pa.DataType, *cuts: int) -> ColumnProfile:
    """The profile of one column, cut into batches at `cuts`."""
    edges = [0, *cuts, len(values)]
    schema = pa.schema([("c", type_)])
    batches = [pa.record_batch([pa.array(values[a:b], type_)], schema=schema)
               for a, b in pairwise(edges)]
    return profile(batches, schema).column("c")


def whole(**columns: pa.Array) -> Profile:
    rows = pa.record_batch(columns)
    return profile([rows], rows.schema)


def form(*texts: str) -> Form | None:
    return of(list(texts), pa.string()).form


def test_numbers() -> None:
    c = of([3, None, 1, 7, 7, None, 2], pa.int32(), 2, 2, 5)
    assert (c.rows, c.nulls, c.nans, c.missing, c.values) == (7, 2, 0, 2, 5)
    assert (c.distinct, c.distinct_exact, c.least, c.greatest) == (4, True, 1, 7)
    assert c.common == ((7, 2), (3, 1), (1, 1), (2, 1))
    assert c.last_new == 6, "the 2 in the last row had not been seen"
    assert c.mean == 4.0
    assert c.stdev == pytest.approx(statistics.stdev([3, 1, 7, 7, 2]))
    assert (c.quantiles[0.5], c.quantiles[0.99], c.increasing, c.unique) == (3, 7, "", False)


def test_a_value_is_new_once_in_whatever_batch() -> None:
    assert of([5, 6, 5, 6, 5], pa.int32(), 2, 4).last_new == 1


def test_nan_is_missing_and_zero_has_no_sign() -> None:
    c = of([0.0, -0.0, NAN, None, 1.5], pa.float32(), 1)
    assert (c.nulls, c.nans, c.missing, c.distinct) == (1, 1, 2, 2)
    assert c.common[0] == (0.0, 2)
    assert (c.least, c.greatest, c.mean) == (0.0, 1.5, 0.5)


def test_an_infinite_mean_is_none() -> None:
    c = of([float("inf"), -float("inf"), 1.0], pa.float64())
    assert (c.least, c.greatest, c.mean, c.stdev) == (-float("inf"), float("inf"), None, None)


def test_the_ends_of_64_bits_are_exact() -> None:
    c = of([2**63 - 1, 2**53 + 1, -(2**63)], pa.int64())
    assert (c.least, c.greatest, c.unique) == (-(2**63), 2**63 - 1, True)
    assert of([2**64 - 1, 0], pa.uint64()).greatest == 2**64 - 1
    assert of([Decimal("0.10"), Decimal("-7.00")], pa.decimal128(5, 2)).least == Decimal("-7.00")


def test_times() -> None:
    at = dt.datetime(2013, 2, 8, 17, 30, tzinfo=dt.UTC)
    c = of([at, at + dt.timedelta(hours=1)], pa.timestamp("ns", "+01:00"), 1)
    assert (c.least, c.increasing, c.unique, c.mean) == (at, "strictly", True, None)
    assert of([253402300800], pa.timestamp("s")).greatest is None, "the year 10000 is beyond Python's calendar"


def test_text() -> None:
    c = of(["b", "", None, "äö日"], pa.large_string())
    assert (c.least, c.greatest, c.lengths, c.mean, c.quantiles) == ("", "äö日", (0, 3), None, {})


@pytest.mark.parametrize("type_", [pa.null(), pa.binary(), pa.list_(pa.int32()), pa.struct([("a", pa.int32())]),
                                   pa.float16(), pa.duration("s"), pa.time32("s"), pa.decimal256(40, 2),
                                   pa.dictionary(pa.int32(), pa.string()), pa.string_view()])
def test_of_other_types_only_nulls_are_counted(type_: pa.DataType) -> None:
    c = of([None, None], type_, 1)
    assert (c.rows, c.nulls, c.distinct, c.least, c.form, c.unique) == (2, 2, 0, None, None, None)


@pytest.mark.parametrize(("values", "kind"), [
    ([1, 2, 5], "strictly"), ([1, 1, 2], "weakly"), ([2, 1, 3], ""), ([1], ""), ([None, 1, None, 2, None], "strictly")])
@pytest.mark.parametrize("cuts", [(), (1,), (1, 2)])
def test_order_over_the_ends_of_batches(values: list[int | None], kind: str, cuts: tuple[int, ...]) -> None:
    assert of(values, pa.int64(), *cuts).increasing == kind


def test_more_values_than_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "VALUES_MAX", 100)
    values = [at % 7 if at % 2 else at for at in range(2000)]
    c = of(values, pa.int64(), 90, 500, 501)
    assert (c.distinct, c.distinct_exact, c.unique) == (100, False, False)
    truth = Counter(values)
    assert {v for v, _ in c.common[:7]} == set(range(7))
    assert all(n <= truth[v] for v, n in c.common), "what is kept past the bound is a lower bound"
    assert of(list(range(101)), pa.int64(), 50).distinct_exact is False
    assert of([at % 100 for at in range(999)], pa.int64(), 50).distinct_exact is True


def test_long_texts_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "VALUES_BYTES_MAX", 10_000)
    c = of([f"{at:05}" * 400 for at in range(200)], pa.string(), 50, 120)
    assert not c.distinct_exact
    assert c.distinct < 200
    assert c.unique is True, "hashes are enough for that"
    assert sum(len(v) for v, _ in c.common) <= 10_000


def test_unique_beyond_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "VALUES_MAX", 10)
    values = random.Random(1).sample(range(10**6), 3000)
    assert of(values, pa.int64(), 100, 1000).unique is True
    assert of([*values, values[0]], pa.int64(), 100, 1000).unique is False
    assert of([str(v) for v in [*values, values[0]]], pa.string(), 100, 1000).unique is False
    monkeypatch.setattr(relations, "UNIQUE_ROWS_MAX", 500)
    assert of(values, pa.int64(), 100, 1000).unique is None
    assert of(sorted(values), pa.int64(), 100, 1000).unique is True, "strictly increasing is proof enough"


def test_a_sample_is_spread_and_the_same_for_any_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "SAMPLE_MAX", 500)
    values = list(range(20_000))
    one, many = of(values, pa.int64()).quantiles, of(values, pa.int64(), *range(700, 20_000, 700)).quantiles
    assert one == many
    assert all(abs(value - q * 20_000) < 1500 for q, value in one.items())


POOL = st.sampled_from([None, 0, 1, 2, 3, 10, -5])
TEXT = st.sampled_from([None, "", "N1", "N22", "X1", "a", "2013-02-08", "{}", "Ä"])


@settings(max_examples=40)
@given(st.lists(st.tuples(POOL, POOL, TEXT), min_size=1, max_size=40), st.lists(st.integers(0, 40), max_size=4))
def test_batches_make_no_difference(rows: list[tuple[Any, Any, Any]], cuts: list[int]) -> None:
    names = ("a", "b", "t")
    schema = pa.schema([("a", pa.int32()), ("b", pa.int32()), ("t", pa.string())])
    arrays = [pa.array(column, schema.field(n).type) for n, column in zip(names, zip(*rows, strict=True), strict=True)]
    batch = pa.record_batch(arrays, schema=schema)
    edges = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    one = profile([batch], schema)
    many = profile([batch.slice(a, b - a) for a, b in pairwise(edges)], schema)
    for a, b in zip(one.columns, many.columns, strict=True):
        assert a.mean == pytest.approx(b.mean)
        assert a.stdev == pytest.approx(b.stdev, abs=1e-9)
        assert dataclasses.replace(a, mean=None, stdev=None) == dataclasses.replace(b, mean=None, stdev=None)
    assert dataclasses.replace(one, columns=()) == dataclasses.replace(many, columns=())


@pytest.mark.parametrize(("texts", "written"), [
    (["AB12", "CD3", "XY1234"], r"^[A-Z]{2}\d{1,4}$"), (["EWR", "JFK"], "^[A-Z]{3}$"),
    (["9E", "AA", "B6"], r"^([A-Z]\d|[A-Z]{2}|\d[A-Z])$"), (["10115", "80331"], r"^\d{5}$"),
    (["SW1A 1AA", "EC2V 7HN"], r"^[A-Z]{2}\d[A-Z] \d[A-Z]{2}$"),
    (["A1B2", "12AB", "ABC2", "ABCD", "1ABC"], r"^[A-Z\d]{4}$"), (["aB3x", "Zz90", "0aA9", "bbbb"], r"^[A-Za-z\d]{4}$"),
    (["1.5", "22.75", "3.0"], r"^\d{1,2}\.\d{1,2}$")])
def test_patterns(texts: list[str], written: str) -> None:
    assert form(*texts, *texts) == Form("shape", written, 2 * len(texts))


def test_what_all_begin_with_is_written_out_and_ids_may_grow() -> None:
    tails = [f"N{at}AA" for at in range(5, 900)]
    assert form(*tails) == Form("shape", r"^N\d+[A-Z]{2}$", 895)
    codes = of([*[f"AC{at}" for at in range(100)], *[f"AB{at}" for at in range(100)]], pa.string(), 100).form
    assert codes == Form("shape", r"^A[A-Z]\d+$", 200), "over the ends of batches, too"
    assert form(*tails, *tails) == Form("shape", r"^N\d{1,3}[A-Z]{2}$", 2 * 895)
    assert form(*[f"ORD-2013-{at:04}" for at in range(300)]) == Form("shape", r"^ORD-\d{4}-\d{4}$", 300)
    assert form(*[f"(a|b)$ {at}." for at in range(100, 300)]) == Form("shape", r"^\(a\|b\)\$ \d{3}\.$", 200)


def test_a_rare_shape_is_left_out_of_the_pattern() -> None:
    tails = [f"N{at % 1000:03}AA" for at in range(20_000)]
    assert form(*tails, "D942DN") == Form("shape", r"^N\d{3}[A-Z]{2}$", 20_000)
    found = form(*tails, *["D942DN"] * 5)
    assert found == Form("shape", r"^[A-Z]\d{3}[A-Z]{2}$", 20_005), "no longer rare"
    several = form(*tails, *[f"{letter}942DN" for letter in "ABCDEFGHIJKLMOPQRSTUVWXYZ"])
    assert several is not None
    assert several.matching == 20_025, "each is rare, and together they are not"


@pytest.mark.parametrize("texts", [
    ["Anna", "Bo", "Christopher"], ["so it goes", "and on"], ["", "A1"], ["A1\n", "B2\n"], ["usd", "eur"],
    ["A" * 70, "B" * 70], ["ABCDEFGHIJ", "AB"]])
def test_words_and_the_like_have_no_pattern(texts: list[str]) -> None:
    assert form(*texts, *texts) is None


@pytest.mark.parametrize(("kind", "written", "good", "bad"), [
    ("time", "%Y-%m-%d", ["2013-02-08", "2012-02-29"], "2013-02-29"),
    ("time", "%Y-%m-%dT%H:%M:%S", ["2013-02-08T17:30:00"], "2013-02-08T24:30:00"),
    ("time", "%Y-%m-%d %H:%M:%S", ["2013-02-08 17:30:00"], "2013-02-08 17:30"),
    ("time", "%Y-%m-%dT%H:%M:%S.%fZ", ["2013-02-08T17:30:00.5Z", "2013-02-08T17:30:00.123456Z"],
     "0000-01-01T00:00:00.0Z"),
    ("UUID", shapes._UUID, ["6ba7b810-9dad-11d1-80b4-00c04fd430c8"], "6ba7b810-9dad-11d1-80b4-00c04fd430cX"),
    ("e-mail", shapes._MAIL, ["jo@example.org", "Ä.b+c@x.co.uk"], "jo@example"),
    ("JSON", "", ["{\"a\": [1]}", " [1, 2]"], "{\"a\": }"),
    ("hexadecimal", "^[0-9a-f]{12}$", ["da39a3ee5e6b", "0123456789ab", "a0b1c2d3e4f5", "1a2b3c4d5e6f"],
     "da39a3ee5e6g")])
def test_kinds_of_text_and_what_ends_them(kind: str, written: str, good: list[str], bad: str) -> None:
    assert form(*good) == Form(kind, written, len(good))
    other = of([*good, bad], pa.string(), len(good)).form
    assert other is None or other.kind not in (kind,)


@settings(max_examples=100)
@given(st.lists(st.text(alphabet="ABNaz019-.ÄK\u0663\n", max_size=6), min_size=1, max_size=30),
       st.integers(1, 30))
def test_a_pattern_matches_all_that_it_says(texts: list[str], times: int) -> None:
    counts = [times * (at % 3 + 1) for at in range(len(texts))]
    for literal in (False, True):
        for grows in (False, True):
            kept = Shapes()
            half = len(texts) // 2
            for part in (slice(0, half), slice(half, None)):
                kept.add(pa.array(texts[part], pa.large_string()), pa.array(counts[part], pa.int64()))
            found = kept.form(grows=grows, literal=literal)
            if found is not None and found.written and "%" not in found.written:
                matching = sum(n for t, n in zip(texts, counts, strict=True) if re.search(found.written, t))
                assert found.matching == matching
                assert matching >= 0.999 * sum(counts)
            elif found is not None and found.kind == "time":
                assert all(dt.datetime.strptime(t, found.written) for t in texts)
            elif found is not None:
                assert [json.loads(t) for t in texts]


def test_pairs() -> None:
    at = [dt.datetime(2013, 1, 1) + dt.timedelta(hours=h) for h in random.Random(2).sample(range(9000), 400)]
    begun = pa.array(at, pa.timestamp("ms"))
    later = [None if n % 9 == 0 else t + dt.timedelta(hours=n % 5) for n, t in enumerate(at)]
    ended = pa.array(later, pa.timestamp("ms"))
    paid = pa.array([t + dt.timedelta(hours=9) for t in at], pa.timestamp("ms"))
    found = whole(begun=begun, ended=ended, paid=paid, again=begun, number=pa.array(range(400)))
    assert {(o.low, o.high) for o in found.ordered} == {("begun", "ended"), ("again", "ended"), ("ended", "paid")}
    assert {o.rows for o in found.ordered} == {355}
    assert all(0.4 < o.chance < 0.6 for o in found.ordered)
    assert [(s.a, s.b, s.rows, s.nulls_alike) for s in found.equal] == [("begun", "again", 400, True)]


def test_one_row_ends_an_order() -> None:
    low, high = list(range(500)), [v + v % 3 for v in range(500)]
    assert [(o.low, o.high) for o in whole(a=pa.array(low), b=pa.array(high)).ordered] == [("a", "b")]
    high[77] = 76
    assert whole(a=pa.array(low), b=pa.array(high)).ordered == ()


def test_equal_where_both_are_there() -> None:
    found = whole(a=pa.array(["x", None, "y", None]), b=pa.array(["x", "z", "y", None]),
                  c=pa.array(["x", "z", "y", "w"]))
    assert {(s.a, s.b): (s.rows, s.nulls_alike) for s in found.equal} == {
        ("a", "b"): (2, False), ("a", "c"): (2, False), ("b", "c"): (3, False)}
    assert whole(a=pa.array([None, NAN]), b=pa.array([1.0, 2.0])).equal == (), "nothing to compare"


def test_keys() -> None:
    """Each of 30 days, 40 shops and 2 tills once; the combinations of two repeat, and the notes are nothing."""
    rows = [(day, shop, till) for day in range(30) for shop in range(40) for till in range(2)]
    random.Random(3).shuffle(rows)
    day, shop, till = (pa.array(c) for c in zip(*rows, strict=True))
    ids = pa.array(random.Random(3).sample(range(10**9), len(rows)))
    found = whole(day=day, shop=pa.array([str(s) for s in shop.to_pylist()]), till=till, id=ids)
    assert [k.columns for k in found.keys] == [("day", "shop", "till")], "id is a key alone, and part of no other"
    assert found.keys[0].chance == pytest.approx(2400 * 2399 / 2 * 79 / 2399 * 59 / 2399 * 1199 / 2399, rel=0.01)
    assert whole(day=day, till=till).keys == ()
    with_null = pa.array([None, *day.to_pylist()[1:]])
    assert whole(day=with_null, shop=shop, till=till).keys == ()


def test_what_chance_alone_gives_is_no_key() -> None:
    rng = random.Random(4)
    n = 300
    columns = {c: pa.array([rng.randrange(1000) for _ in range(n)]) for c in "ab"}
    assert len(set(zip(*(c.to_pylist() for c in columns.values()), strict=True))) == n, "unique, by accident"
    assert whole(**columns).keys == ()


def test_errors() -> None:
    with pytest.raises(UserError, match="no columns"):
        profile([], pa.schema([]))
    with pytest.raises(UserError, match="two columns are called “a”"):
        profile([], pa.schema([("a", pa.int32()), ("a", pa.int32())]))
    with pytest.raises(UserError, match="batch 2 has no column “b”"):
        profile([pa.record_batch({"b": pa.array([1])}), pa.record_batch({"c": pa.array([1])})],
                pa.schema([("b", pa.int64())]))
    assert profile([], pa.schema([("a", pa.int32())])).rows == 0
