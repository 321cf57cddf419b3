"""`aggregate` against Polars on a whole year: all flights from New York in 2013, tumbling and sliding, any batches."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import polars.testing
import pyarrow as pa
import pytest

from headrace.batch import Batch, Frames, Meta
from headrace.demo.data import flights
from headrace.processor import Context
from headrace.processors.aggregate import Aggregate, AggregateConfig
from headrace.state import KeyedState
from headrace.state.bottom import Memory
from headrace.testing import Record

pytestmark = [pytest.mark.contract, pytest.mark.timeout(180)]
COLUMNS = {
    "flights": "count(*)", "arrived": "count(arr_delay)", "late_share": "avg(arr_delay > 15)",
    "worst": "max(arr_delay)",
    "best": "min(arr_delay)", "minutes": "sum(arr_delay)", "mean": "avg(arr_delay)", "spread": "stddev(arr_delay)",
    "tight": "avg(CASE WHEN arr_delay > 0 THEN arr_delay / 3.7 END)", "carriers": "count(DISTINCT carrier)",
    "first_dest": "first(dest)", "last_dest": "last(dest)", "last_in_name": "max(dest)"}
BY_POLARS = [
    pl.len().cast(pl.Int64).alias("rows"), pl.len().cast(pl.Int64).alias("flights"),
    pl.col("arr_delay").count().cast(pl.Int64).alias("arrived"), (pl.col("arr_delay") > 15).mean().alias("late_share"),
    pl.col("arr_delay").max().alias("worst"), pl.col("arr_delay").min().alias("best"),
    pl.when(pl.col("arr_delay").count() > 0).then(pl.col("arr_delay").cast(pl.Int64).sum()).alias("minutes"),
    pl.col("arr_delay").mean().alias("mean"), pl.col("arr_delay").std().alias("spread"),
    pl.col("arr_delay").filter(pl.col("arr_delay") > 0).truediv(3.7).mean().alias("tight"),
    pl.col("carrier").n_unique().cast(pl.Int64).alias("carriers"), pl.col("dest").first().alias("first_dest"),
    pl.col("dest").last().alias("last_dest"), pl.col("dest").max().alias("last_in_name")]
SHIFT = timedelta(hours=5)
LATE = timedelta(hours=2)


@pytest.fixture(scope="module")
def year() -> tuple[pa.RecordBatch, list[Record]]:
    rows = flights().arrivals
    return rows, [Record(b"", "flights", 0, at, None, 0) for at in range(rows.num_rows)]


def aggregated(year: tuple[pa.RecordBatch, list[Record]], config: dict[str, Any], sizes: list[int]) -> pl.DataFrame:
    """The year through the step, in batches of these sizes in turn."""
    rows, records = year
    step = Aggregate(AggregateConfig.model_validate(config), project=Path())
    schema = step.outputs(rows.schema)["success"]
    state = KeyedState()
    state.assign(0, Memory())
    ctx = Context("flow", "step", Path(), store=lambda at: state.view(at[1], "step"))
    out, at, turn = [], 0, 0
    while at < rows.num_rows:
        size = sizes[turn % len(sizes)]
        found = step.process(Batch(rows.slice(at, size), Meta(Frames(records[at:at + size], "flights"))), ctx)
        assert set(found) <= {"success"}
        out += [batch.rows for batch in found.values()]
        state.seal()
        state.commit({})
        at, turn = at + size, turn + 1
    made = pl.from_arrow(pa.Table.from_batches(out, schema))
    assert isinstance(made, pl.DataFrame)
    return made


def by_polars(rows: pa.RecordBatch, by: list[str], size: timedelta, every: timedelta) -> pl.DataFrame:
    """Each row once for each of its windows, grouped; of windows that closed by the last row's time."""
    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    end = (pl.col("scheduled_at") - SHIFT).dt.truncate(every) + SHIFT + every
    whole = (frame.with_columns(window_end=pl.concat_list([end + every * n for n in range(size // every)]))
             .explode("window_end").filter(pl.col("window_end") + LATE <= frame["scheduled_at"].max())
             .with_columns(window_start=pl.col("window_end") - size)
             .sort("scheduled_at", maintain_order=True)
             .group_by("window_start", "window_end", *by, maintain_order=True).agg(BY_POLARS))
    return whole.sort("window_end", *by)


@pytest.mark.parametrize(("by", "size", "every"), [
    (["origin"], "1d", "1d"), (["origin"], "7d", "1d"), (["carrier", "origin"], "30d", "10d"), ([], "6h", "1h")])
def test_the_year(year: tuple[pa.RecordBatch, list[Record]], by: list[str], size: str, every: str) -> None:
    spans = {"1d": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30), "10d": timedelta(days=10),
             "6h": timedelta(hours=6), "1h": timedelta(hours=1)}
    config = {"by": by, "columns": COLUMNS,
              "window": {"time": size, "every": every, "on": "scheduled_at", "late": "2h", "shift": "5h"}}
    got = aggregated(year, config, [20_000])
    wanted = by_polars(year[0], by, spans[size], spans[every])
    assert len(got) > 300
    polars.testing.assert_frame_equal(got, wanted.select(got.columns), rel_tol=1e-9, abs_tol=1e-9)
    chance = random.Random(len(by))
    again = aggregated(year, config, [chance.choice([1, 17, 500, 9_000, 30_000]) for _ in range(64)])
    assert again.equals(got, null_equal=True), "to the last bit, whatever the batches"


def test_rows_out_of_order_within_the_lateness(year: tuple[pa.RecordBatch, list[Record]]) -> None:
    """As labels come: shuffled by up to two hours, nothing is late, and sums are the same but for their order."""
    rows, records = year
    rows = rows.slice(0, 100_000)
    chance = random.Random(7)
    at_ms = rows.column("scheduled_at").view(pa.int64()).to_pylist()
    order = sorted(range(len(at_ms)), key=lambda n: at_ms[n] + chance.randrange(7_200_000))
    shuffled = rows.take(pa.array(order))
    config = {"by": ["origin"], "columns": {name: text for name, text in COLUMNS.items() if "_dest" not in name},
              "window": {"time": "7d", "every": "1d", "on": "scheduled_at", "late": "2h", "shift": "5h"}}
    got = aggregated((shuffled, records[:100_000]), config, [7_000])
    wanted = by_polars(rows, ["origin"], timedelta(days=7), timedelta(days=1))
    polars.testing.assert_frame_equal(got, wanted.select(got.columns), rel_tol=1e-9, abs_tol=1e-9)
