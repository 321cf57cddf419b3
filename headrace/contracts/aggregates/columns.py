"""A column as pandas would hold it, without pandas: what the verdicts of Great Expectations' pandas engine rest on."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.suite import Expectation

Numbers = np.ndarray[Any, np.dtype[Any]]
NAT = "NaT"
"""What Great Expectations' JSON has for the maximum, mean or median of no timestamps at all."""
_MICROSECONDS = {"s": 10**6, "ms": 10**3, "us": 1}


@dataclass(frozen=True, slots=True)
class Column:
    """A column that aggregates are compiled for. `kind` is whole, float, bool, text, time or date."""

    name: str
    type: pa.DataType
    kind: str

    @property
    def scale(self) -> int:
        """Microseconds in one unit of a timestamp."""
        return _MICROSECONDS[self.type.unit]

    def take(self, rows: pa.RecordBatch) -> tuple[pa.Array, bool]:
        """The column's values, and whether pandas would hold its whole numbers as 64-bit floats: one is missing, or
        they come as floats since a row that a condition left out has none."""
        array = rows.column(self.name)
        return array, array.null_count > 0 or array.type != self.type

    def plain(self, value: Any) -> Any:
        """A metric as plain Python. Timestamps come as whole numbers in the column's unit."""
        if self.kind == "time":
            return self.moment(value)
        return value.item() if isinstance(value, np.generic) else value

    def moment(self, value: int) -> Any:
        """A timestamp; as text, where its year is beyond those Python has."""
        zone = dt.UTC if self.type.tz else None
        try:
            return dt.datetime(1970, 1, 1, tzinfo=zone) + dt.timedelta(microseconds=int(value) * self.scale)
        except OverflowError:
            return str(np.datetime64(int(value), self.type.unit))


def column(e: Expectation, schema: pa.Schema) -> Column | str:
    """The column an expectation is about, or why Great Expectations itself must judge it."""
    field = schema.field(e.columns[0])
    kind = _kind(field.type)
    return f"a column of {field.type}" if kind is None else Column(field.name, field.type, kind)


def _kind(type_: pa.DataType) -> str | None:
    t = pa.types
    if t.is_timestamp(type_):
        return "time" if type_.unit in _MICROSECONDS and type_.tz in (None, "UTC") else None
    for kind, test in (("whole", t.is_integer), ("bool", t.is_boolean), ("text", t.is_string),
                       ("text", t.is_large_string), ("date", t.is_date32), ("float", t.is_float32),
                       ("float", t.is_float64)):
        if test(type_):
            return kind
    return None


def numbers(array: pa.Array) -> tuple[Numbers, int]:
    """Numbers, truths or timestamps in the type pandas holds them in (whole numbers of which one is missing: 64-bit
    floats; truths: 0 and 1), zero where one is missing, and how many there are. The zeros stay in their places since
    the rounding of a sum depends on places."""
    count = len(array) - array.null_count
    if pa.types.is_timestamp(array.type):
        return pc.fill_null(array.view(pa.int64()), 0).to_numpy(zero_copy_only=False), count
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype.kind != "f":
        return values, count
    missing = np.isnan(values)
    if not missing.any():
        return values, count
    values = values.copy()
    values[missing] = 0
    return values, int(len(values) - missing.sum())


def present(array: pa.Array) -> pa.Array:
    """The values that are there, in their own type; NaN is none, and -0.0 is 0.0."""
    if pa.types.is_floating(array.type):
        array = pc.add(array, pa.scalar(0.0, array.type))
        return array.filter(pc.invert(pc.is_null(array, nan_is_null=True)))
    return array.drop_null() if array.null_count else array


def missing(array: pa.Array) -> int:
    """How many values pandas takes for missing."""
    if pa.types.is_floating(array.type):
        return int(pc.is_null(array, nan_is_null=True).true_count)
    return int(array.null_count)
