"""Suggested suites against Great Expectations itself: true of their data, and broken by what is planted."""

from __future__ import annotations

import datetime as dt
import json
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from headrace.contracts.suggesting.profile import profile
from headrace.contracts.suggesting.suggest import suggest
from headrace.demo.data import flights
from tests.contract.gx_oracle import Oracle, quiet, raised

pytestmark = pytest.mark.contract

SEEDS = 12
START = dt.datetime(2013, 2, 8, 17, 30)
SUGGESTED: Counter[str] = Counter()
Maker = Callable[[random.Random, int], Any]
"""(random numbers, the row) → a value."""


def _moment(rng: random.Random, at: int) -> dt.datetime:
    return START + dt.timedelta(microseconds=rng.randrange(10**12))


MAKERS: dict[str, tuple[pa.DataType, Maker]] = {
    "small": (pa.int8(), lambda rng, at: rng.choice([-128, -1, 0, 127])),
    "rating": (pa.int32(), lambda rng, at: rng.randint(1, 5)),
    "zeros": (pa.int16(), lambda rng, at: rng.choice([0, 0, 7])),
    "minutes": (pa.int32(), lambda rng, at: int(rng.gauss(20, 50))), "hour": (pa.uint8(), lambda rng, at: at % 24),
    "negative": (pa.int32(), lambda rng, at: -rng.randint(3, 900)),
    "big": (pa.int64(), lambda rng, at: rng.choice([2**53, 2**53 + 1, -(2**63), 2**63 - 1])),
    "u64": (pa.uint64(), lambda rng, at: rng.choice([3, 17, 2**64 - 1])),
    "u": (pa.uint64(), lambda rng, at: rng.randint(2, 99)),
    "row_id": (pa.int64(), lambda rng, at: at), "random_id": (pa.int64(), lambda rng, at: rng.getrandbits(62)),
    "epoch": (pa.int64(), lambda rng, at: 1_360_000_000 + rng.randrange(10**7)),
    "price": (pa.float64(), lambda rng, at: round(rng.lognormvariate(2, 1), 2)),
    "share": (pa.float64(), lambda rng, at: rng.choice([0.0, -0.0, 1.0, rng.random()])),
    "nan": (pa.float64(), lambda rng, at: rng.choice([float("nan"), rng.gauss(0, 1e-7)])),
    "inf": (pa.float64(), lambda rng, at: rng.choice([float("inf"), 1.0, 2.0])),
    "f32": (pa.float32(), lambda rng, at: rng.uniform(0.1, 0.3)),
    "huge": (pa.float64(), lambda rng, at: rng.choice([1e300, -1e300])),
    "kelvin": (pa.float32(), lambda rng, at: rng.uniform(271.3, 303.9)),
    "money": (pa.decimal128(12, 2), lambda rng, at: Decimal(rng.randint(-500, 90000)) / 100),
    "flag": (pa.bool_(), lambda rng, at: rng.random() < 0.3),
    "status": (pa.string(), lambda rng, at: rng.choice(["new", "paid", "lost", "ünklar"])),
    "tail": (pa.string(), lambda rng, at: f"N{rng.randint(1, 99999)}{rng.choice(['', 'AA', 'B'])}"),
    "order": (pa.large_string(), lambda rng, at: f"ORD-{at:06}/{rng.choice('ab')}"),
    "path": (pa.string(), lambda rng, at: f"a.b[{rng.randint(0, 99)}]|c $^{rng.randint(1, 1200)}"),
    "mail": (pa.string(), lambda rng, at: f"{rng.choice(['jo', 'Ännë'])}{at}@example.org"),
    "uuid": (pa.string(), lambda rng, at: str(uuid.UUID(int=rng.getrandbits(128)))),
    "hash": (pa.string(), lambda rng, at: f"{rng.getrandbits(160):040x}"),
    "json": (pa.string(), lambda rng, at: json.dumps({"a": rng.random()})),
    "day_text": (pa.string(), lambda rng, at: _moment(rng, at).date().isoformat()),
    "time_text": (pa.string(), lambda rng, at: _moment(rng, at).strftime("%Y-%m-%dT%H:%M:%S.%fZ")),
    "bad_day": (pa.string(), lambda rng, at: f"2013-02-{rng.randint(25, 31)}"),
    "words": (pa.string(), lambda rng, at: " ".join(rng.choices(["a", "Straße", "日本", "x\ny"], k=rng.randint(1, 9)))),
    "lines": (pa.string(), lambda rng, at: rng.choice(["N1", "N22", "N333"]) + rng.choice(["", "\n"])),
    "kanji": (pa.string(), lambda rng, at: "".join(chr(rng.randint(0x4e00, 0x9000)) for _ in range(5))),
    "base62": (pa.string(), lambda rng, at: "".join(rng.choices("abcXYZ0123456789", k=11))),
    "same": (pa.string(), lambda rng, at: "US"), "empty": (pa.string(), lambda rng, at: rng.choice(["", "a1", "b22"])),
    "digits": (pa.string(), lambda rng, at: rng.choice(["٣", "3", "14"]) + str(rng.randint(0, 500))),
    "at_s": (pa.timestamp("s"), _moment), "at_ms": (pa.timestamp("ms", "UTC"), _moment),
    "at_us": (pa.timestamp("us", "America/New_York"), _moment), "at_ns": (pa.timestamp("ns", "+01:00"), _moment),
    "old": (pa.timestamp("us"), lambda rng, at: dt.datetime(rng.choice([1900, 2013]), 1, 1)),
    "day": (pa.date32(), lambda rng, at: _moment(rng, at).date()),
    "clock": (pa.time64("us"), lambda rng, at: dt.time(at % 24)),
    "far": (pa.date32(), lambda rng, at: rng.choice([dt.date(9999, 12, 31), dt.date(2013, 1, 1)])),
    "bytes": (pa.binary(), lambda rng, at: b"\xff"), "list": (pa.list_(pa.int32()), lambda rng, at: [at]),
    "struct": (pa.struct([("a", pa.int32())]), lambda rng, at: {"a": at}), "nothing": (pa.null(), lambda rng, at: None),
    "half": (pa.float16(), lambda rng, at: 0.5), "span": (pa.duration("us"), lambda rng, at: dt.timedelta(at)),
    "coded": (pa.dictionary(pa.int32(), pa.string()), lambda rng, at: rng.choice("abc"))}


def generated(rng: random.Random) -> pa.RecordBatch:
    """Some columns of each kind, some with nulls; copies, later moments and greater numbers beside them."""
    n = rng.choice([1, 99, 100, 150, 400, 1200])
    columns: dict[str, pa.Array] = {}
    for name, (type_, make) in MAKERS.items():
        nulls = rng.choice([0.0, 0.0, 0.01, 0.3, 0.995, 1.0])
        columns[name] = pa.array([None if rng.random() < nulls else make(rng, at) for at in range(n)], type_)
    later: dict[str, Callable[[Any], Any]] = {
        "at_us": lambda v: v + dt.timedelta(hours=rng.randrange(9)), "price": lambda v: v * 2,
        "minutes": lambda v: v + rng.randint(0, 3), "day": lambda v: v, "status": lambda v: v}
    for name, more in later.items():
        lost = rng.choice([0.0, 0.1])
        values = [None if v is None or rng.random() < lost else more(v) for v in columns[name].to_pylist()]
        columns[f"{name}_after"] = pa.array(values, columns[name].type)
    return pa.record_batch(columns)


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with quiet() as made:
        yield made


def wrong(oracle: Oracle, rows: pa.RecordBatch, suite: dict[str, Any]) -> dict[str, Any]:
    """The ids that fail on rows, with Great Expectations' result. What it refuses or raises on fails the test."""
    written = [{"type": e["type"], "kwargs": e["kwargs"], "meta": e["meta"], "severity": e["severity"]}
               for e in suite["expectations"]]
    results = oracle.judge(rows, written)
    assert len(results) == len(written), [e for at, e in enumerate(written) if at not in results]
    for at, result in results.items():
        assert not raised(result), f"{written[at]}: {result.exception_info}"
    return {suite["expectations"][at]["id"]: r.result for at, r in results.items() if not r.success}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_suite_is_true_of_its_data(oracle: Oracle, seed: int) -> None:
    rng = random.Random(seed)
    rows = generated(rng)
    suite = suggest(profile([rows], rows.schema), name="s", source="generated", margin=rng.choice([0, 0.25, 3]),
                    strictness=rng.choice(["loose", "normal", "strict"]))
    json.dumps(suite, allow_nan=False)
    SUGGESTED.update(e["type"] for e in suite["expectations"])
    assert wrong(oracle, rows, suite) == {}


def test_the_suites_above_had_every_type() -> None:
    if sum(SUGGESTED.values()) < 20 * SEEDS:
        pytest.skip("needs the whole module")
    assert set(SUGGESTED) == {f"expect_{t}" for t in (
        "column_values_to_not_be_null", "column_proportion_of_non_null_values_to_be_between",
        "column_values_to_be_between", "column_values_to_be_in_set", "column_values_to_match_regex",
        "column_values_to_match_strftime_format", "column_values_to_be_json_parseable",
        "column_value_lengths_to_be_between", "column_value_lengths_to_equal", "column_values_to_be_unique",
        "column_pair_values_to_be_equal", "column_pair_values_a_to_be_greater_than_b")}
    assert min(SUGGESTED.values()) >= 3, SUGGESTED


@pytest.mark.parametrize("stream", ["departures", "arrivals"])
def test_the_suite_of_20_000_flights(oracle: Oracle, stream: str) -> None:
    rows = getattr(flights(last=dt.date(2013, 1, 23)), stream).slice(0, 20_000)
    assert rows.num_rows > 19_000
    suite = suggest(profile([rows], rows.schema), name=stream, source="flights of January")
    assert wrong(oracle, rows, suite) == {}


def test_a_compound_key_of_flights(oracle: Oracle) -> None:
    """Without their id, flights are known by schedule, carrier and flight number; a flight that comes twice fails."""
    rows = flights().departures.select(["scheduled_at", "carrier", "flight", "origin", "dest"])
    suite = suggest(profile([rows], rows.schema), name="s", source="flights")
    key = next(e for e in suite["expectations"] if e["type"] == "expect_compound_columns_to_be_unique")
    assert key["kwargs"] == {"column_list": ["scheduled_at", "carrier", "flight"]}
    assert wrong(oracle, rows.slice(0, 2000), {"expectations": [key]}) == {}
    twice = pa.concat_batches([rows.slice(0, 2000), rows.slice(7, 1)])
    assert set(wrong(oracle, twice, {"expectations": [key]})) == {key["id"]}


def _set(rows: pa.RecordBatch, column: str, at: int, value: Any) -> pa.RecordBatch:
    values = rows.column(column).to_pylist()
    values[at] = value
    index = rows.schema.get_field_index(column)
    return rows.set_column(index, rows.schema.field(column), pa.array(values, rows.schema.field(column).type))


def _swapped(rows: pa.RecordBatch, a: str, b: str) -> pa.RecordBatch:
    names = [{a: b, b: a}.get(n, n) for n in rows.schema.names]
    return rows.rename_columns(names).select(rows.schema.names)


def _trips() -> pa.RecordBatch:
    rng = random.Random(20)
    n = 2000
    begun = [START + dt.timedelta(seconds=rng.randrange(10**6)) for _ in range(n)]
    return pa.record_batch({
        "trip_id": pa.array(rng.sample(range(n), n), pa.int64()),
        "begun_at": pa.array(begun, pa.timestamp("us")),
        "ended_at": pa.array([b + dt.timedelta(seconds=rng.randrange(9000)) for b in begun], pa.timestamp("us")),
        "from": pa.array([rng.choice(["EWR", "JFK", "LGA"]) for _ in range(n)]),
        "to": pa.array([rng.choice(["EWRX", "JFKX", "LGAX"]) for _ in range(n)]),
        "plane": pa.array([f"N{rng.randint(100, 99999)}" for _ in range(n)]),
        "miles": pa.array([rng.randint(30, 4000) for _ in range(n)], pa.int32()),
        "note": pa.array([" ".join(rng.choices(["so", "it", "goes"], k=rng.randint(1, 20)))
                          if rng.random() < 0.98 else None for _ in range(n)])})


PLANTED: list[tuple[str, Callable[[pa.RecordBatch], pa.RecordBatch], set[str]]] = [
    ("a null", lambda rows: _set(rows, "plane", 9, None), {"plane_given"}),
    ("a new category", lambda rows: _set(rows, "from", 9, "HPN"), {"from_known"}),
    ("a number far out", lambda rows: _set(rows, "miles", 9, 40_000), {"miles_plausible"}),
    ("a negative number", lambda rows: _set(rows, "miles", 9, -1), {"miles_plausible"}),
    ("another form", lambda rows: _set(rows, "plane", 9, "n 17"), {"plane_form"}),
    ("an endless text", lambda rows: _set(rows, "note", 9, "so " * 90), {"note_length"}),
    ("a double", lambda rows: _set(rows, "trip_id", 9, rows.column("trip_id")[8].as_py()), {"trip_id_unique"}),
    ("the year 1970", lambda rows: _set(rows, "begun_at", 9, dt.datetime(1970, 1, 1)), {"begun_at_not_before_2013"}),
    ("an end before the beginning", lambda rows: _set(rows, "ended_at", 9, dt.datetime(2013, 1, 1)),
     {"begun_at_at_most_ended_at"}),
    ("two moments swapped", lambda rows: _swapped(rows, "begun_at", "ended_at"), {"begun_at_at_most_ended_at"}),
    ("two texts swapped", lambda rows: _swapped(rows, "from", "to"), {"from_known", "to_known"}),
    ("a column half empty", lambda rows: rows.set_column(
        rows.schema.get_field_index("note"), "note", pa.array([None if at % 2 else "so" for at in range(2000)])),
     {"note_mostly_given"})]


@pytest.mark.parametrize(("plant", "fails"), [p[1:] for p in PLANTED], ids=[p[0] for p in PLANTED])
def test_what_is_planted_is_found(oracle: Oracle, plant: Callable[[pa.RecordBatch], pa.RecordBatch],
                                  fails: set[str]) -> None:
    rows = _trips()
    suite = suggest(profile([rows], rows.schema), name="trips", source="trips")
    assert set(wrong(oracle, plant(rows), suite)) == fails
