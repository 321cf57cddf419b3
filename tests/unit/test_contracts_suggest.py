"""Suites suggested: what is in them, what is left out, and what of January's flights holds for the rest of the year."""

from __future__ import annotations

import datetime as dt
import json
import math
import random
import uuid
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts import compile_suite, kinds, parse
from headrace.contracts.suggesting.profile import profile
from headrace.contracts.suggesting.sensible import at_most, between, share
from headrace.contracts.suggesting.suggest import suggest
from headrace.demo.data import Flights, flights
from headrace.errors import UserError

pytestmark = pytest.mark.unit

N = 2000


def suggested(rows: pa.RecordBatch, **options: Any) -> dict[str, dict[str, Any]]:
    """Expectations by id."""
    suite = suggest(profile([rows], rows.schema), **{"name": "s", "source": "f.csv", **options})
    json.dumps(suite, allow_nan=False)
    return {e["id"]: e for e in suite["expectations"]}


def column(make: Callable[[random.Random, int], Any], type_: pa.DataType | None = None, name: str = "c", rows: int = N,
           **options: Any) -> dict[str, dict[str, Any]]:
    """What is suggested of one generated column."""
    rng = random.Random(6)
    return suggested(pa.record_batch({name: pa.array([make(rng, at) for at in range(rows)], type_)}), **options)


@pytest.fixture(scope="module")
def year() -> Flights:
    return flights()


WITHIN_JANUARY = {
    "flight_id_given", "flight_id_unique", "scheduled_at_given", "scheduled_at_not_before_2012", "sched_dep_time_given",
    "sched_dep_time_plausible", "sched_arr_time_given", "sched_arr_time_plausible", "carrier_given", "carrier_known",
    "flight_given", "flight_plausible", "tailnum_mostly_given", "tailnum_form", "origin_given", "origin_known",
    "dest_given", "dest_form", "distance_given", "distance_plausible"}


def test_the_flights_of_january_find_the_errors_of_the_year(year: Flights) -> None:
    """A suite of the first 20,000 flights is true of them, and on the other 316,776 breaks on what the suite written by
    hand names: the one at 01:06, number 8500, the 17 miles to LaGuardia, the plane D942DN, and SkyWest's 32 flights."""
    seen, rest = year.departures.slice(0, 20_000), year.departures.slice(20_000)
    made = suggested(seen)
    assert set(made) == WITHIN_JANUARY
    rows_alone = [e for e in made.values() if e["type"] in kinds.ROWS]
    contract = compile_suite(parse({"expectations": rows_alone}, "suggested"), seen.schema)
    assert {tier for _, tier, _ in contract.tiers} == {"compiled"}
    assert not any(contract.check(seen).counts.values())
    assert {id_: n for id_, n in contract.check(rest).counts.items() if n} == {
        "sched_dep_time_plausible": 1, "flight_plausible": 1, "distance_plausible": 1, "tailnum_form": 4,
        "carrier_known": 32}


def test_the_flights_of_the_year(year: Flights) -> None:
    made = suggested(year.departures, source="flights.csv", name="departure")
    assert set(made) == WITHIN_JANUARY, "the same expectations, with other numbers"
    assert made["tailnum_form"] == {
        "id": "tailnum_form", "type": "expect_column_values_to_match_regex", "severity": "warning",
        "kwargs": {"column": "tailnum", "regex": r"^(N\d{1,4}[A-Z]{1,4}|N\d{4,5})$", "mostly": 0.999},
        "meta": {"headrace": {"evidence": "334,264 values in 336,776 rows of flights.csv: 4 do not match",
                              "values": 334_264, "not_matching": 4}}}
    assert made["distance_plausible"]["kwargs"] == {"column": "distance", "min_value": 12, "max_value": 7000}
    assert made["sched_dep_time_plausible"]["kwargs"]["max_value"] == 2400
    assert made["tailnum_mostly_given"]["kwargs"] == {"column": "tailnum", "min_value": 0.985}
    assert made["carrier_given"]["meta"] == {"headrace": {
        "evidence": "336,776 rows of flights.csv: 0 null", "rows": 336_776, "null": 0}}
    assert made["carrier_known"]["meta"]["headrace"]["evidence"] == (
        "336,776 rows of flights.csv: 16 values, the last new one in row 25,507, the rarest ('OO') 32 times")


def test_a_suite_file() -> None:
    rows = pa.record_batch({"a": pa.array(range(N))})
    suite = suggest(profile([rows], rows.schema), name="mine", source="f.csv", margin=0.5, strictness="strict")
    assert suite["name"] == "mine"
    assert suite["meta"] == {"great_expectations_version": "1.24.1", "headrace": {
        "suggested_from": "f.csv", "rows": N, "margin": 0.5, "strictness": "strict"}}
    assert [e.id for e in parse(suite, "mine").expectations] == ["a_given", "a_unique"]


def test_nulls() -> None:
    assert column(lambda rng, at: rng.random(), rows=N)["c_given"]["severity"] == "critical"
    assert column(lambda rng, at: rng.random(), rows=50)["c_given"]["severity"] == "warning", "50 rows prove little"
    schema = pa.schema([pa.field("c", pa.int32(), nullable=False)])
    sure = suggested(pa.record_batch([pa.array([1], pa.int32())], schema=schema), strictness="loose")["c_given"]
    assert (sure["severity"], sure["meta"]["headrace"]["evidence"]) == (
        "critical", "1 rows of f.csv: 0 null, and the schema allows none")
    some = column(lambda rng, at: float("nan") if at % 100 == 0 else None if at % 100 == 1 else rng.random())
    assert some["c_mostly_given"]["kwargs"] == {"column": "c", "min_value": 0.96}
    assert some["c_mostly_given"]["severity"] == "warning"
    assert column(lambda rng, at: None, pa.int32()) == {}
    assert column(lambda rng, at: None if at % 50 else 1) == {}, "a window may well have none"


def test_sets_are_closed_sets() -> None:
    codes = column(lambda rng, at: rng.choice(["a", "b", "c"]))
    assert codes["c_known"]["kwargs"]["value_set"] == ["a", "b", "c"]
    assert column(lambda rng, at: rng.choice([0, 1]))["c_known"]["kwargs"]["value_set"] == [0, 1]
    still_growing = column(lambda rng, at: f"week {at // 200}")
    assert set(still_growing) == {"c_given", "c_form"}, "its last value came in the last tenth"
    rare = column(lambda rng, at: "z" if at == 3 else rng.choice(["a", "b"]))
    assert "c_known" not in rare, "a value that came once is no evidence that there are no more"
    many = column(lambda rng, at: rng.randrange(12))
    assert (set(many), many["c_plausible"]["kwargs"]["max_value"]) == ({"c_given", "c_plausible"}, 13), "a quantity"
    assert "c_known" not in column(lambda rng, at: "US"), "a constant says nothing of what else there may be"
    assert set(column(lambda rng, at: rng.random() < 0.5)) == {"c_given"}, "of a boolean, the type says it"


@pytest.mark.parametrize(("name", "make", "type_"), [
    ("c", lambda rng, at: at // 3, pa.int64()), ("customer_id", lambda rng, at: rng.randrange(900), pa.int64()),
    ("customerId", lambda rng, at: rng.randrange(900), pa.int32()),
    ("c", lambda rng, at: rng.getrandbits(60), pa.int64()),
    ("c", lambda rng, at: 1_360_000_000_000 + rng.randrange(10**9) // 1000 * 1000, pa.int64()),
    ("c", lambda rng, at: rng.choice([math.inf, rng.random()]), pa.float64())])
def test_what_time_would_break_has_no_bound(name: str, make: Any, type_: pa.DataType) -> None:
    assert set(column(make, type_, name)) == {f"{name}_given"}


def test_times_have_a_lower_bound() -> None:
    start = dt.datetime(2013, 2, 8, 17, 30)
    at = column(lambda rng, at: start + dt.timedelta(minutes=rng.randrange(9**6)), pa.timestamp("us"))
    assert at["c_not_before_2013"]["kwargs"] == {"column": "c", "min_value": "2013-01-01T00:00:00"}
    day = column(lambda rng, at: (start - dt.timedelta(days=9 + rng.randrange(20))).date())
    assert day["c_not_before_2012"]["kwargs"] == {"column": "c", "min_value": "2012-01-01"}
    placeholders = column(lambda rng, at: dt.datetime(1970, 1, 1) if at == 5 else start)
    assert set(placeholders) == {"c_given"}


def test_keys_are_no_accident() -> None:
    def key(name: str, make: Callable[[random.Random, int], Any], **options: Any) -> bool:
        return f"{name}_unique" in column(make, name=name, **options)

    assert key("c", lambda rng, at: at * 7 % N), "all of the first 2,000 numbers, each once"
    assert not key("c", lambda rng, at: rng.getrandbits(60)), "so few of so many would not meet anyway"
    assert key("order_id", lambda rng, at: rng.getrandbits(60))
    assert not key("order_id", lambda rng, at: rng.getrandbits(60), rows=200)
    assert key("c", lambda rng, at: str(uuid.UUID(int=rng.getrandbits(128))))
    assert key("c", lambda rng, at: f"ORD-{at:06}")
    assert not key("c", lambda rng, at: f"{rng.getrandbits(60):020}")
    assert not key("c", lambda rng, at: rng.random())
    assert not key("c", lambda rng, at: dt.datetime(2013, 1, 1) + dt.timedelta(seconds=at))
    assert not key("order_id", lambda rng, at: at or None), "a key has no nulls"


def test_texts_without_a_form_have_lengths() -> None:
    notes = column(lambda rng, at: "ä " * rng.randint(1, 300), margin=0.25)
    assert notes["c_length"]["kwargs"] == {"column": "c", "min_value": 1, "max_value": 800}
    assert notes["c_length"]["severity"] == "warning"
    empty = column(lambda rng, at: "ä " * rng.randint(0, 300))
    assert "min_value" not in empty["c_length"]["kwargs"]
    fixed = column(lambda rng, at: "".join(chr(rng.randint(0x4e00, 0x9000)) for _ in range(5)))
    assert fixed["c_length"]["kwargs"] == {"column": "c", "value": 5}


def test_pairs_are_no_accident() -> None:
    rng = random.Random(7)
    least = [rng.randrange(100) for _ in range(N)]
    rows = pa.record_batch({
        "min_price": pa.array(least), "max_price": pa.array([v + rng.randrange(30) for v in least]),
        "far": pa.array([1000 + rng.randrange(99) for _ in range(N)]), "copy": pa.array(least),
        "sparse": pa.array([v if at % 2 else None for at, v in enumerate(least)]),
        "x_id": pa.array([v + 1 for v in least])})
    made = {id_: e for id_, e in suggested(rows).items() if "pair" in e["type"]}
    assert set(made) == {"min_price_equals_copy", "min_price_equals_sparse", "copy_equals_sparse",
                         "min_price_at_most_max_price", "copy_at_most_max_price", "sparse_at_most_max_price"}
    assert "ignore_row_if" not in made["min_price_equals_copy"]["kwargs"]
    assert made["min_price_equals_sparse"]["kwargs"]["ignore_row_if"] == "either_value_is_missing"
    assert made["min_price_at_most_max_price"]["kwargs"] == {
        "column_A": "max_price", "column_B": "min_price", "or_equal": True, "ignore_row_if": "either_value_is_missing"}


def test_a_compound_key_where_there_is_no_other() -> None:
    rows = [(day, shop) for day in range(50) for shop in range(40)]
    random.Random(3).shuffle(rows)
    day, shop = (pa.array(c, pa.int32()) for c in zip(*rows, strict=True))
    made = suggested(pa.record_batch({"day": day, "shop": shop}))
    assert made["day_shop_unique"]["type"] == "expect_compound_columns_to_be_unique"
    assert made["day_shop_unique"]["severity"] == "warning"
    with_id = suggested(pa.record_batch({"day": day, "shop": shop, "id": pa.array(range(2000))}))
    assert [id_ for id_ in with_id if id_.endswith("unique")] == ["id_unique"]


def test_strictness_decides_what_holds_records_back() -> None:
    rng = random.Random(8)
    rows = pa.record_batch({"a": pa.array([rng.choice("xyz") for _ in range(N)]),
                            "b": pa.array([rng.gauss(0, 1) for _ in range(N)]),
                            "d": pa.array([None if rng.random() < 0.1 else rng.gauss(0, 1) for _ in range(N)])})
    wanted = {"loose": [], "normal": ["a_given", "a_known", "b_given"],
              "strict": ["a_given", "a_known", "b_given", "b_plausible", "d_plausible"]}
    for strictness, critical in wanted.items():
        made = suggested(rows, strictness=strictness)
        assert [id_ for id_, e in made.items() if e["severity"] == "critical"] == critical


def test_ids_differ() -> None:
    """“x” with “_mostly” in its name and “x” itself may want the same id."""
    values = [1.5 if at % 9 else None for at in range(N)]
    others = [float(at % 90) for at in range(N)]
    made = suggested(pa.record_batch({"x": pa.array(values), "x_mostly": pa.array(others)}))
    assert set(made) == {"x_mostly_given", "x_mostly_given_2", "x_mostly_plausible"}


def test_errors() -> None:
    schema = pa.schema([("a", pa.int32())])
    with pytest.raises(UserError, match="flights: there are no rows"):
        suggest(profile([], schema), name="s", source="flights")
    rows = pa.record_batch([pa.array([1], pa.int32())], schema=schema)
    for options, message in (({"margin": -1}, "margin is -1"), ({"margin": math.nan}, "margin is nan"),
                             ({"margin": math.inf}, "margin is inf"), ({"margin": "1"}, "margin is '1'"),
                             ({"strictness": "mild"}, "“mild” is no strictness")):
        with pytest.raises(UserError, match=message):
            suggested(rows, **options)


@pytest.mark.parametrize(("seen", "wanted"), [
    ((17, 872, 4983), (12, 7000)), ((-43, -2, 1301), (-60, 1800)), ((1, 1492, 8500), (1, 11000)), ((0, 3, 9), (0, 11)),
    ((0, 11, 23), (0, 23)), ((1, 6, 12), (1, 12)), ((106, 1359, 2359), (80, 2400)), ((0, 50, 100), (0, 100)),
    ((0.02, 0.4, 0.99), (0, 1)), ((271.3, 290.0, 303.9), (266, 308)), ((-900, -450, -3), (-1100, -2)),
    ((0.37, 7.48, 145.32), (0.25, 180)), ((-5, -3, 0), (-6, 0)), ((7, 7, 90), (5, 120))])
def test_sensible_bounds(seen: tuple[float, float, float], wanted: tuple[float, float]) -> None:
    assert between(*seen, margin=0.25) == wanted
    assert between(*seen, margin=0)[0] <= seen[0]


@given(st.lists(st.integers(-10**15, 10**15) | st.integers(-20, 20), min_size=3, max_size=3).map(sorted),
       st.booleans(), st.sampled_from([0, 0.01, 0.25, 1, 10]))
def test_bounds_hold_what_was_seen(seen: list[int], whole: bool, margin: float) -> None:
    least, median, greatest = seen if whole else [v / 997 for v in seen]
    low, high = between(least, median, greatest, margin)
    assert low <= least
    assert high >= greatest
    assert least < 0 or low >= 0
    assert greatest > 0 or high <= 0
    assert not whole or (isinstance(low, int) and isinstance(high, int))


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from([0, 0.25, 1, 50]))
def test_shares_hold_what_was_seen(values: int, nulls: int, margin: float) -> None:
    seen = values / (values + nulls)
    assert 0 <= share(values, values + nulls, margin) <= seen


def test_shares_and_lengths() -> None:
    assert [share(values, 10**6, 0.25) for values in (992_540, 500_000, 100_000, 1, 999_999)] == [
        0.985, 0.25, 0.05, 5e-7, 0.999998]
    assert [at_most(n, 0.25) for n in (1, 40, 600)] == [2, 50, 800]
