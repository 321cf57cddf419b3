"""Values of a column as Great Expectations lists them: as `RecordBatch.to_pandas()` would hold them, without pandas."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NAN = float("nan")
"""The one NaN that pandas puts for every text that is not there: `Counter` counts it as one value, other NaN apart."""


class NotATime:
    """A time that is not there, as pandas' NaT: one value, neither before nor after any time."""

    def __lt__(self, other: object) -> bool:
        return False if isinstance(other, dt.datetime | dt.timedelta | NotATime) else NotImplemented

    __gt__ = __lt__

    def __repr__(self) -> str:
        return "NaT"


NAT = NotATime()
_T = pa.types


def listed(column: pa.Array, at: pa.Array, whole: pa.Array, form: Literal["series", "numpy"] = "series") -> list[Any]:
    """The values at some places, in plain Python values.

    `whole` is the column of the whole batch, whose nulls settle what pandas makes of it: whole numbers beside a null
    are floats. What is null is NaN among numbers and texts, NaT among times, None elsewhere. Form "numpy" has times as
    `numpy.datetime64` in UTC and durations as `numpy.timedelta64`: so they are in pairs of columns, and nowhere else.
    """
    taken, type_ = column.take(at), held(whole)
    if taken.type != type_:
        taken = pc.cast(taken, type_, safe=False)
    times = _T.is_timestamp(type_) or _T.is_duration(type_)
    if times and form == "numpy":
        return list(taken.to_numpy(zero_copy_only=False))
    values = _python(taken)
    if times:
        return [NAT if v is None else v for v in values]
    if _T.is_floating(type_):
        return [float("nan") if v is None else v for v in values]
    texts = _T.is_string(type_) or _T.is_large_string(type_) or _T.is_dictionary(type_)
    return [NAN if v is None else v for v in values] if texts else values


def held(array: pa.Array) -> pa.DataType:
    """The type whose values pandas would hold: with a null among them, whole numbers are 64-bit floats. Nested ones,
    too, where a null anywhere in the column counts, and times in lists lose their zone."""
    type_ = array.type
    if _T.is_integer(type_):
        return pa.float64() if array.null_count else type_
    if _T.is_struct(type_):
        return pa.struct([(f.name, held(array.field(at))) for at, f in enumerate(type_)])
    if _T.is_map(type_):
        return pa.map_(type_.key_type, held(array.items))
    if _T.is_list(type_) or _T.is_large_list(type_) or _T.is_fixed_size_list(type_):
        item = held(array.flatten())
        return pa.list_(pa.timestamp(item.unit) if _T.is_timestamp(item) else item)
    return type_


def _python(array: pa.Array) -> list[Any]:
    try:
        return array.to_pylist()  # type: ignore[no-any-return]
    except ValueError:
        # Python holds no nanoseconds; pandas does, and pyarrow uses it where it is installed.
        coarse = pa.timestamp("us", array.type.tz) if _T.is_timestamp(array.type) else pa.duration("us")
        return array.cast(coarse, safe=False).to_pylist()  # type: ignore[no-any-return]


def as_json(value: Any) -> Any:
    """A value as Great Expectations serialises it: NaN as null, times as ISO 8601, decimals as floats, bytes as Python
    writes them. Infinities stay floats, which Python's json reads and writes. What it cannot serialise (durations) is
    text here; and 32-bit floats in pairs are not rounded in 32 bits first, which makes those above 3.4e23 infinite."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if value != value else float(value)
    if isinstance(value, dict):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(v) for v in value]
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, np.datetime64):
        return str(np.datetime_as_string(value))
    if isinstance(value, np.ndarray):
        return as_json(value.tolist())
    if isinstance(value, np.generic) and not isinstance(value, np.timedelta64):
        return as_json(value.item())
    return float(value) if isinstance(value, decimal.Decimal) else str(value)
