"""The suite of ten by pandera on polars: `validate(lazy=True)`, and the failure cases of what it raises, counted. Pairs
and the form of a time are checks of a column in polars' expressions: a check of the frame would be slower, as pandera
writes whole rows as JSON for it."""

from __future__ import annotations

import contracts_polars
import contracts_suite as ten
import pandera
import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors


def time(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col(data.key).str.to_datetime(ten.TIME, strict=False).is_not_null())


def lands_later(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col("arr_time") > pl.col("dep_time"))


def goes_elsewhere(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col("origin") != pl.col("dest"))


schema = pa.DataFrameSchema({
    "dep_time": pa.Column(pl.Int32, nullable=False),
    "distance": pa.Column(pl.Int32, pa.Check.in_range(50, 5000, error="distance"), nullable=True),
    "dep_delay": pa.Column(pl.Int32, pa.Check.in_range(-30, 480, error="delay"), nullable=True),
    "carrier": pa.Column(pl.String, pa.Check.isin(ten.CARRIERS, error="carrier"), nullable=True),
    "tailnum": pa.Column(pl.String, [pa.Check.str_matches(ten.TAIL, error="tailnum"),
                                     pa.Check.str_length(6, 6, error="tailnum_length")], nullable=True),
    "arr_time": pa.Column(pl.Int32, pa.Check(lands_later, error="lands_later"), nullable=True),
    "origin": pa.Column(pl.String, pa.Check(goes_elsewhere, error="goes_elsewhere"), nullable=True),
    "dest": pa.Column(pl.String, pa.Check.notin(ten.FAR, error="not_far"), nullable=True),
    "time_hour": pa.Column(pl.String, pa.Check(time, error="hour"), nullable=True)})


def check(frame: pl.DataFrame) -> dict[str, int]:
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as raised:
        return {"departed" if one.check == "not_nullable" else one.check.error: len(one.failure_cases)
                for one in raised.schema_errors}
    return {}


ten.tell("pandera", pandera.__version__, *contracts_polars.frames(), check)
