"""CAST: the types there are, and how a value of one becomes a value of another. A failure is a null."""

from __future__ import annotations

import polars as pl
from sqlglot import exp

_T = exp.DataType.Type
_TARGETS: dict[exp.DataType.Type, pl.DataType] = {
    _T.INT: pl.Int32(), _T.BIGINT: pl.Int64(), _T.FLOAT: pl.Float32(), _T.DOUBLE: pl.Float64(),
    _T.VARCHAR: pl.String(), _T.TEXT: pl.String(), _T.CHAR: pl.String(), _T.BOOLEAN: pl.Boolean(), _T.DATE: pl.Date(),
    _T.TIMESTAMP: pl.Datetime("us"), _T.TIMESTAMPNTZ: pl.Datetime("us"), _T.TIMESTAMPTZ: pl.Datetime("us", "UTC")}
NAMES = "integer, bigint, float, double, decimal(p, s), varchar, boolean, date, timestamp, timestamptz"


def target(written: exp.DataType) -> pl.DataType | None:
    """The Polars type of a type written in SQL; None when there is none here."""
    sizes = [int(p.name) for p in written.expressions if p.name.isdigit()]
    if written.this == _T.DECIMAL:
        precision, scale = [*sizes, 0][:2] if sizes else (18, 3)
        return pl.Decimal(precision, scale) if scale <= precision <= 38 else None
    return None if written.expressions else _TARGETS.get(written.this)


def total(source: pl.DataType, to: pl.DataType) -> bool:
    """Whether every value of one type has its like in the other, so that a CAST cannot fail."""
    if source == to or source in (pl.Null, pl.Boolean) or (to == pl.String and source != pl.Binary):
        return True
    if source.is_integer():
        return to in (pl.Float32, pl.Float64, pl.Boolean) or (to == pl.Int64 and source != pl.UInt64) or (
            to == pl.Int32 and source in (pl.Int8, pl.Int16, pl.UInt8, pl.UInt16))
    return (source.is_float() and to.is_float()) or source == pl.Date or (
        isinstance(source, pl.Datetime) and source.time_unit == "us")


def cast(value: pl.Expr, source: pl.DataType, to: pl.DataType) -> pl.Expr | None:
    """The value as another type, null where it cannot be; None when no value of one can become the other."""
    if source == to or source == pl.Null:
        return value.cast(to)
    if source == pl.String:
        return _from_text(value, to)
    if source.is_numeric():
        return _from_number(value, source, to)
    if source == pl.Boolean:
        return value.cast(to) if to == pl.String or to.is_integer() else None
    if isinstance(source, pl.Datetime):
        return _from_timestamp(value, source, to)
    if source == pl.Date:
        if isinstance(to, pl.Datetime):
            return value.cast(pl.Datetime("us")).dt.replace_time_zone(to.time_zone)
        return value.cast(pl.String) if to == pl.String else None
    if source in (pl.Time, pl.Binary):
        return value.cast(pl.String, strict=False) if to == pl.String else None
    return None


def _from_text(value: pl.Expr, to: pl.DataType) -> pl.Expr | None:
    trimmed = value.str.strip_chars()
    if to == pl.Boolean:
        lower = trimmed.str.to_lowercase()
        return (pl.when(lower.is_in(["true", "t", "yes", "y", "1"])).then(True)
                .when(lower.is_in(["false", "f", "no", "n", "0"])).then(False).otherwise(None))
    if to == pl.Date:
        return trimmed.str.to_date("%Y-%m-%d", strict=False)
    if isinstance(to, pl.Datetime):
        spaced = trimmed.str.replace("[tT]", " ")
        plain = [spaced.str.strip_suffix("Z").str.to_datetime(f, strict=False, time_unit="us")
                 for f in ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")]
        day = trimmed.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
        zoned = spaced.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", strict=False, time_unit="us", time_zone="UTC")
        utc = pl.coalesce([*plain, day, zoned.dt.replace_time_zone(None)])
        return utc.dt.replace_time_zone(to.time_zone) if to.time_zone else utc
    return trimmed.cast(to, strict=False)


def _from_number(value: pl.Expr, source: pl.DataType, to: pl.DataType) -> pl.Expr | None:
    if to.is_integer():
        whole = value if source.is_integer() else value.round(0, mode="half_away_from_zero")
        return whole.cast(to, strict=False)
    if to == pl.Boolean:
        return value != 0 if source.is_integer() else None
    return value.cast(to, strict=False) if to.is_numeric() or to == pl.String else None


def _from_timestamp(value: pl.Expr, source: pl.Datetime, to: pl.DataType) -> pl.Expr | None:
    utc = value.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if source.time_zone else value
    if isinstance(to, pl.Datetime):
        return utc.cast(pl.Datetime("us")).dt.replace_time_zone(to.time_zone) if to.time_zone else utc.cast(to)
    if to == pl.Date:
        return utc.dt.date()
    if to == pl.String:
        return utc.dt.to_string("%Y-%m-%d %H:%M:%S%.f") + ("+00" if source.time_zone else "")
    return None
