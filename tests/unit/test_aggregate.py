"""`aggregate`: what it counts and when it says so; that batches, aborts and replays change nothing; what is refused."""

from __future__ import annotations

import math
import statistics
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.aggregates import DISTINCT_HELD_MAX
from headrace.errors import ExpressionError, SchemaError
from headrace.processors.aggregate import Aggregate, AggregateConfig
from tests.unit.statekit import Driven, Row, cut, made, records

pytestmark = pytest.mark.unit
MINUTE = 60_000
SCHEMA = pa.schema([pa.field("at", pa.timestamp("ms", "UTC"), nullable=False), pa.field("k", pa.string()),
                    pa.field("n", pa.int32()), pa.field("x", pa.float64()), pa.field("d", pa.date32())])
COLUMNS = {
    "all": "count(*)", "ns": "count(n)", "kinds": "count(DISTINCT n)", "total": "sum(n)", "mean": "avg(n)",
    "share": "avg(n > 2)", "least": "min(n)", "most": "max(x)", "spread": "stddev(x)", "xs": "sum(x)",
    "began": "first(n)", "ended": "last(k)", "day": "max(d)", "word": "min(k)"}
HOURLY = {"by": ["k"], "window": {"time": "1h", "on": "at"}, "columns": {"n": "count(*)", "s": "sum(n)"}}


def rows(*written: tuple[int, str | None, int | None], partition: int = 0) -> list[Row]:
    """(minute, k, n) each."""
    return [(partition, {"at": m * MINUTE, "k": k, "n": n, "x": None if n is None else n / 3, "d": None})
            for m, k, n in written]


def run(config: dict[str, Any], given_: list[Row], cuts: list[int] | None = None) -> Driven:
    driven = Driven(made(Aggregate, config, SCHEMA), SCHEMA)
    for part in cut(records(given_), cuts or []):
        driven.feed(part)
    return driven


def minute(moment: datetime) -> int:
    return int(moment.timestamp()) // 60


def said(driven: Driven) -> list[tuple[Any, ...]]:
    """(start, end, k, rows, then the columns) of what came, times in minutes."""
    out = []
    for row, *_ in driven.got.get("success", []):
        start, end, *rest = (value for _, value in row)
        out.append((minute(start), minute(end), *rest))
    return out


def test_a_window_is_said_once_it_closes_in_the_order_of_windows_and_groups() -> None:
    driven = run(HOURLY, rows((0, "b", 1), (59, "a", 2), (30, "b", 3), (60, "a", 4), (200, "c", 5)))
    assert said(driven) == [(0, 60, "a", 1, 1, 2), (0, 60, "b", 2, 2, 4), (60, 120, "a", 1, 1, 4)]
    (_, key, stamp, span), (_, other, *_), _ = driven.got["success"]
    assert (key, other, stamp) == (b"a", b"b", 60 * MINUTE)
    assert str(span) == "t/0@1"
    assert str(driven.got["success"][1][3]) == "t/0@0-2"
    assert driven.counts == {"late": 0, "rows": 3}


def test_late_rows_count_until_their_window_closes_and_leave_by_late_after_it() -> None:
    late = {**HOURLY, "window": {"time": "1h", "on": "at", "late": "30m"}}
    given_ = rows((0, "a", 1), (89, "a", 1), (1, "a", 1), (90, "a", 1), (59, "a", 7), (60, "a", 1), (150, "a", 1))
    driven = run(late, given_)
    assert said(driven) == [(0, 60, "a", 2, 2, 2), (60, 120, "a", 3, 3, 3)]
    assert [dict(row)["n"] for row, *_ in driven.got["late"]] == [7]
    assert driven.counts["late"] == 1


def test_windows_that_overlap_share_their_rows() -> None:
    sliding = {"window": {"time": "3h", "every": "1h", "on": "at"}, "columns": {"s": "sum(n)"}}
    driven = run(sliding, rows((10, "a", 1), (70, "a", 2), (130, "b", 4), (600, "a", 8), (900, "a", 0)))
    assert said(driven) == [(-120, 60, 1, 1), (-60, 120, 2, 3), (0, 180, 3, 7), (60, 240, 2, 6), (120, 300, 1, 4),
                            (480, 660, 1, 8), (540, 720, 1, 8), (600, 780, 1, 8)]
    assert {row[1] for row in driven.got["success"]} == {None}
    assert str(driven.got["success"][2][3]) == "t/0@0-2"


def test_a_row_late_for_one_of_its_windows_counts_in_none() -> None:
    sliding = {"window": {"time": "2h", "every": "1h", "on": "at"}}
    driven = run(sliding, rows((0, "a", 1), (60, "a", 1), (59, "a", 1), (400, "a", 1)))
    assert [row[2] for row in said(driven)] == [1, 2, 1]
    assert len(driven.got["late"]) == 1


def test_shift_and_times_before_1970() -> None:
    driven = run({**HOURLY, "window": {"time": "1h", "on": "at", "shift": "15m"}},
                 rows((-100, "a", 1), (-46, "a", 2), (-45, "a", 4), (15, "a", 8), (100, "a", 0)))
    assert said(driven) == [(-105, -45, "a", 2, 2, 3), (-45, 15, "a", 1, 1, 4), (15, 75, "a", 1, 1, 8)]
    assert driven.got["success"][0][2] == 0  # Kafka knows no time before


def test_groups_are_told_apart_and_named() -> None:
    config = {**HOURLY, "by": ["k", "n"], "columns": {}}
    driven = run(config, rows((0, "a", 1), (1, None, 1), (2, "", 1), (3, "a", None), (4, None, 1), (99, "z", 1)))
    assert [row[2:] for row in said(driven)] == [("", 1, 1), ("a", 1, 1), ("a", None, 1), (None, 1, 2)]
    assert [row[1] for row in driven.got["success"]] == [b"|1", b"a|1", b"a|", b"|1"]


def test_rows_without_a_time_or_with_a_cast_that_fails_leave_with_the_reason() -> None:
    schema = SCHEMA.set(0, pa.field("at", pa.timestamp("ms", "UTC")))
    config = {**HOURLY, "columns": {"s": "sum(CAST(k AS integer))"}}
    driven = Driven(made(Aggregate, config, schema), schema)
    none = (0, {"at": None, "k": "x", "n": 1, "x": None, "d": None})
    out = driven.feed(records([none, *rows((0, "7", 1), (1, "x", 1), (61, "1", 1))]))
    assert out["failure"].reasons is not None
    assert [len(why) for why in out["failure"].reasons.to_pylist()] == [2, 1]
    assert out["failure"].reasons.to_pylist()[0][0] == "no_time: at is null"
    assert said(driven) == [(0, 60, "7", 1, 7)]


def test_what_is_aborted_was_not_counted() -> None:
    driven = Driven(made(Aggregate, HOURLY, SCHEMA), SCHEMA)
    placed = records(rows((0, "a", 1), (1, "a", 1), (60, "a", 1)))
    driven.feed(placed[:1])
    for _ in range(3):
        driven.feed(placed[1:], commit=False)
    driven.feed(placed[1:])
    assert said(driven) == [(0, 60, "a", 2, 2, 2)]


def test_what_closed_is_forgotten_and_so_is_what_another_definition_left() -> None:
    driven = run(HOURLY, rows(*((m, "a", 1) for m in range(600))), cuts=list(range(0, 600, 7)))
    assert len(list(driven.state.view(0, "step").scan())) == 2  # the open window and the memory
    driven.step = made(Aggregate, {**HOURLY, "by": []}, SCHEMA)
    driven.got.clear()
    placed = records(rows(*((0, "a", 1) for _ in range(600)), (601, "a", 5), (700, "a", 1)))[600:]
    driven.feed(placed)
    assert [row[2:] for row in said(driven)] == [(1, 1, 5)]
    assert len(list(driven.state.view(0, "step").scan())) == 2


def test_distinct_values_are_counted_while_few_and_estimated_when_many() -> None:
    config = {"window": {"time": "1h", "on": "at"}, "columns": {"u": "count(DISTINCT n)"}}
    for n, near in ((DISTINCT_HELD_MAX - 1, 0.0), (50_000, 0.08)):
        driven = run(config, rows(*((0, "a", i % n) for i in range(2 * n)), (60, "a", 1)), cuts=[n // 3, n, n + 7])
        assert abs(said(driven)[0][3] / n - 1) <= near


def literally(given_: list[Row], size: int, every: int, late: int) -> tuple[dict[Any, Any], int]:
    """Rows of each (partition, window end, k), a record at a time, and how many were late."""
    windows: dict[Any, list[dict[str, Any]]] = {}
    highest: dict[int, int] = {}
    dropped = 0
    for partition, columns in given_:
        at = columns["at"]
        highest[partition] = max(at, highest.get(partition, at))
        first = (at // every + 1) * every
        if first + late <= highest[partition]:
            dropped += 1
            continue
        for end in range(first, first + size, every):
            windows.setdefault((partition, end, columns["k"]), []).append(columns)
    return {at: found for at, found in windows.items() if at[1] + late <= highest[at[0]]}, dropped


ROWS = st.lists(st.builds(
    lambda p, m, k, n, x: (p, {"at": m * MINUTE, "k": k, "n": n, "x": x, "d": None if n is None else n}),
    st.integers(0, 1), st.integers(-200, 600), st.sampled_from(["a", "b", None]),
    st.one_of(st.none(), st.integers(-5, 5)), st.one_of(st.none(), st.floats(-1e6, 1e6))), max_size=50)
WINDOWS = st.sampled_from([(60, 60, 0), (60, 60, 90), (180, 60, 30), (60, 20, 0), (240, 60, 1000)])


@given(ROWS, st.lists(st.integers(0, 50), max_size=8), WINDOWS)
def test_any_batches_give_the_same_and_that_is_the_rules(given_: list[Row], cuts: list[int], window: Any) -> None:
    size, every, late = window
    config = {"by": ["k"], "columns": COLUMNS,
              "window": {"time": f"{size}m", "every": f"{every}m", "late": f"{late}m", "on": "at"}}
    whole, parts = run(config, given_), run(config, given_, cuts)
    assert parts.by_partition() == whole.by_partition()  # to the last bit
    wanted, dropped = literally(given_, size * MINUTE, every * MINUTE, late * MINUTE)
    assert len(whole.got.get("late", [])) == dropped
    got = {(span.partition, int(dict(row)["window_end"].timestamp() * 1e3), dict(row)["k"]): dict(row)
           for row, _, _, span in whole.got.get("success", [])}
    assert got.keys() == wanted.keys()
    assert len(got) == len(whole.got.get("success", []))
    for at, found in wanted.items():
        _compare(got[at], found)


def _compare(got: dict[str, Any], rows_: list[dict[str, Any]]) -> None:
    ns = [row["n"] for row in rows_ if row["n"] is not None]
    xs = [row["x"] for row in rows_ if row["x"] is not None]
    in_time = sorted((row for row in rows_), key=lambda row: row["at"])
    assert (got["rows"], got["all"], got["ns"]) == (len(rows_), len(rows_), len(ns))
    assert got["kinds"] == len(set(ns))
    assert got["total"] == (sum(ns) if ns else None)
    assert got["mean"] == (pytest.approx(sum(ns) / len(ns)) if ns else None)
    assert got["share"] == (pytest.approx(sum(n > 2 for n in ns) / len(ns)) if ns else None)
    assert got["least"] == min(ns, default=None)
    assert got["most"] == max(xs, default=None)
    assert got["xs"] == (pytest.approx(math.fsum(xs), abs=1e-6) if xs else None)
    assert got["spread"] == (pytest.approx(statistics.stdev(xs), rel=1e-6, abs=1e-3) if len(xs) > 1 else None)
    assert got["began"] == next((row["n"] for row in in_time if row["n"] is not None), None)
    assert got["ended"] == next((row["k"] for row in reversed(in_time) if row["k"] is not None), None)
    assert got["day"] == max((datetime.fromtimestamp(n * 86_400, UTC).date() for n in ns), default=None)
    assert got["word"] == min((row["k"] for row in rows_ if row["k"] is not None), default=None)


@pytest.mark.parametrize(("window", "told"), [
    ({"time": "1h", "every": "7m", "on": "at"}, "multiple"), ({"time": "0h", "on": "at"}, "above zero"),
    ({"time": "1h", "every": "0s", "on": "at"}, "above zero"), ({"time": "1d", "every": "1s", "on": "at"}, "longer"),
    ({"time": "1h"}, "Field required"), ({"time": 3, "on": "at"}, "no duration"),
])
def test_windows_that_are_refused(window: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        AggregateConfig.model_validate({"window": window})


@pytest.mark.parametrize(("changed", "told"), [
    ({"by": ["q"]}, "no column"), ({"by": ["x"]}, "a key is text"),
    ({"window": {"time": "1h", "on": "k"}}, "must be a"),
    ({"columns": {"a": "n + 1"}}, "not one aggregate"), ({"columns": {"a": "sum(k)"}}, "sum takes numbers"),
    ({"columns": {"a": "max(n, 2)"}}, "takes one expression"), ({"columns": {"a": "sum(sum(n))"}}, "aggregate"),
    ({"columns": {"a": "sum(*)"}}, "star"), ({"columns": {"a": "count(DISTINCT k, n)"}}, "DISTINCT"),
    ({"columns": {"a": "sum(nope)"}}, "nope"), ({"columns": {"a": "first(n ORDER BY x)"}}, "ORDER"),
    ({"columns": {"a": "sum(n) OVER ()"}}, "not one aggregate"),
])
def test_definitions_that_do_not_fit(changed: dict[str, Any], told: str) -> None:
    with pytest.raises((SchemaError, ExpressionError), match=told):
        made(Aggregate, {**HOURLY, **changed}, SCHEMA)


@pytest.mark.parametrize("columns", [{"rows": "count(*)"}, {"k": "count(*)"}, {"a b": "count(*)"}])
def test_names_that_clash(columns: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        AggregateConfig.model_validate({**HOURLY, "columns": columns})
