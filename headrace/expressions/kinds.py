"""What enters Polars and what comes back: Arrow types, their kinds, and the conversions at the border."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

NUMBER, TEXT, BOOLEAN, TIME, BYTES, OTHER, NULL = "number", "text", "boolean", "time", "bytes", "other", "null"
"""Kinds of value. A null fits everywhere; `other` (lists, records) may be named, compared to null and coalesced."""


def kind(dtype: pl.DataType) -> str:
    """The kind of a Polars type."""
    if dtype.is_numeric():
        return NUMBER
    if dtype == pl.String:
        return TEXT
    if dtype == pl.Boolean:
        return BOOLEAN
    if dtype in (pl.Date, pl.Time) or isinstance(dtype, pl.Datetime):
        return TIME
    if dtype == pl.Binary:
        return BYTES
    return NULL if dtype == pl.Null else OTHER


def told(dtype: pl.DataType) -> str:
    """A type as a person would say it."""
    names = {pl.String: "text", pl.Boolean: "boolean", pl.Date: "date", pl.Time: "time", pl.Null: "null",
             pl.Binary: "bytes", pl.Int64: "whole number", pl.Int32: "whole number", pl.Float64: "number",
             pl.Float32: "number"}
    if isinstance(dtype, pl.Datetime):
        return "timestamp with time zone" if dtype.time_zone else "timestamp"
    if dtype.is_integer():
        return "whole number"
    return names.get(type(dtype), str(dtype).lower())


def _walk(type_: pa.DataType) -> list[pa.DataType]:
    out = [type_]
    for at in range(type_.num_fields):
        out += _walk(type_.field(at).type)
    return out


def refused(type_: pa.DataType) -> str | None:
    """Why a column of this type cannot enter an expression, or None if it can."""
    for part in _walk(type_):
        if pa.types.is_map(part):
            return "a map cannot enter an expression"
        if pa.types.is_union(part):
            return "a union of several types cannot enter an expression"
        if pa.types.is_decimal256(part):
            return "a decimal of more than 38 digits cannot enter an expression"
        if pa.types.is_interval(part):
            return "an interval of months, days and nanoseconds cannot enter an expression"
    return None


def entering(array: pa.Array) -> pa.Array:
    """A column as Polars takes it: dictionaries become their values, 16-bit floats 32-bit ones."""
    type_ = array.type
    if pa.types.is_dictionary(type_):
        return pc.cast(array, type_.value_type)
    if pa.types.is_float16(type_):
        return pc.cast(array, pa.float32())
    return array


def leaving(type_: pa.DataType) -> pa.DataType:
    """The type a result has in headrace, for the type Polars gives it: no `large_*`, no nanosecond times."""
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_):
        return pa.binary()
    if pa.types.is_time64(type_):
        return pa.time64("us")
    if pa.types.is_large_list(type_):
        return pa.list_(type_.value_field.with_type(leaving(type_.value_type)))
    if pa.types.is_struct(type_):
        return pa.struct([f.with_type(leaving(f.type)) for f in type_])
    if pa.types.is_uint32(type_) or pa.types.is_uint64(type_):
        return pa.int64()
    if pa.types.is_integer(type_) and type_ != pa.int64():
        return pa.int32()
    return type_
