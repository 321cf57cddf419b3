"""Parsed JSON and its shape → a column, with the leniency of Java's JsonConverter: text read as a number is 0 there."""

from __future__ import annotations

import base64
import binascii
import decimal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.batch import Index
from headrace.records.converters.faults import Faults
from headrace.records.converters.text import scatter, together
from headrace.records.shape import DATE, DECIMAL, TIME, TIMESTAMP, Shape, arrow_of, constant, zeros

Number = (int, float, decimal.Decimal)
DAY_MS = 86_400_000


class Refused(Exception):
    """A value that its schema does not allow."""


def node(value: Any) -> str:
    """What Jackson calls a value."""
    return {bool: "BOOLEAN", str: "STRING", dict: "OBJECT", list: "ARRAY", type(None): "NULL"}.get(
        type(value), "NUMBER")


def whole(bits: int) -> Callable[[Any, Shape], int]:
    """Jackson's intValue or longValue: what is no number is 0, and what is too large loses its high bits."""
    def read(value: Any, shape: Shape) -> int:
        if isinstance(value, bool) or not isinstance(value, Number):
            return 0
        low = int(value) & (1 << bits) - 1
        return low - (1 << bits) if low >> bits - 1 else low
    return read


def real(value: Any, shape: Shape) -> float:
    return float(value) + 0.0 if isinstance(value, Number) and not isinstance(value, bool) else 0.0


def single(value: Any, shape: Shape) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(str(value))) + 0.0 if isinstance(value, Number) and not isinstance(value, bool) else 0.0


def raw(value: Any, shape: Shape) -> bytes | None:
    if not isinstance(value, str):
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(f"no base64: {error}") from error


def exact(value: Any, shape: Shape) -> decimal.Decimal:
    """A decimal from a number, or from the base64 of its digits."""
    kind = arrow_of(shape)
    if isinstance(value, Number) and not isinstance(value, bool):
        found = decimal.Decimal(value)
    elif isinstance(value, str):
        number = int.from_bytes(raw(value, shape) or b"", "big", signed=True)
        found = decimal.Decimal(number).scaleb(-kind.scale, decimal.Context(prec=1000))
    else:
        raise Refused("Invalid type for Decimal, underlying representation should be numeric or bytes but was "
                      + node(value))
    try:
        return pa.scalar(found, kind).as_py()  # type: ignore[no-any-return]
    except pa.ArrowInvalid as error:
        raise Refused(f"{found} does not fit a decimal of {kind.precision} digits, {kind.scale} of them after the "
                      "point") from error


def small(name: str, low: int, high: int) -> Callable[[Any, Shape], int]:
    """The number of a date or a time."""
    def read(value: Any, shape: Shape) -> int:
        if type(value) is not int or not -(1 << 31) <= value < 1 << 31:
            raise Refused(f"Invalid type for {name}, underlying representation should be integer but was {node(value)}")
        if not low <= value <= high:
            raise Refused("Time values must use number of milliseconds greater than 0 and less than 86400000")
        return value
    return read


def instant(value: Any, shape: Shape) -> int:
    if type(value) is not int:
        raise Refused(
            f"Invalid type for Timestamp, underlying representation should be integral but was {node(value)}")
    return whole(64)(value, shape)


READ: Mapping[str, Callable[[Any, Shape], Any]] = {
    "int8": lambda value, shape: whole(8)(whole(32)(value, shape), shape),
    "int16": lambda value, shape: whole(16)(whole(32)(value, shape), shape),
    "int32": whole(32), "int64": whole(64), "float32": single, "float64": real,
    "boolean": lambda value, shape: value is True,
    "string": lambda value, shape: value if isinstance(value, str) else None,
    "bytes": raw, DECIMAL: exact, DATE: small("Date", -(1 << 31), 1 << 31), TIME: small("Time", 0, DAY_MS),
    TIMESTAMP: instant,
}
"""Connect's type or logical name → what a value that is not null is read as."""
STORED = {DATE: pa.int32(), TIME: pa.int32(), TIMESTAMP: pa.int64()}
AT_ONCE: Mapping[str, tuple[type, ...]] = {
    "int8": (int,), "int16": (int,), "int32": (int,), "int64": (int,), "float64": (float, int),
    "boolean": (bool,), "string": (str,), DATE: (int,), TIMESTAMP: (int,)}
"""Where all values are of these Python types, Arrow reads the column; it refuses what does not fit."""


class Reader:
    """Makes columns of values as json parses them. `defaults`: null is read as the default, where there is one."""

    def __init__(self, faults: Faults, *, defaults: bool) -> None:
        self.faults, self.defaults = faults, defaults

    def of(self, values: Sequence[Any], shape: Shape, rows: Index) -> pa.Array:
        """A column of `arrow_of(shape)`; records with faults have an arbitrary value."""
        if None not in values:
            return self._there(values, shape, rows)
        absent = np.fromiter((each is None for each in values), np.bool_, len(values))
        there, n = np.flatnonzero(~absent), len(values)
        parts = [(there, self._there([values[at] for at in there.tolist()], shape, rows[there]))]
        if shape.default is not None and self.defaults:
            parts.append((np.flatnonzero(absent), _repeat(constant(shape, shape.default), n - len(there))))
        elif not shape.optional:
            self.faults.mark(absent, rows, f"Invalid null value for required {shape.type.upper()} field")
            parts.append((np.flatnonzero(absent), zeros(arrow_of(shape), n - len(there))))
        return scatter(parts, n)

    def _there(self, values: Sequence[Any], shape: Shape, rows: Index) -> pa.Array:
        if shape.name not in READ:
            match shape.type:
                case "struct":
                    return self._struct(values, shape, rows)
                case "array":
                    return self._array(values, shape, rows)
                case "map":
                    return self._map(values, shape, rows)
        return self._leaf(values, shape, rows)

    def _leaf(self, values: Sequence[Any], shape: Shape, rows: Index) -> pa.Array:
        name = shape.name if shape.name in READ else shape.type
        assert name is not None
        kind, stored = arrow_of(shape), STORED.get(name, arrow_of(shape))
        if name in AT_ONCE and set(map(type, values)) <= set(AT_ONCE[name]):
            try:
                return pa.array(values, stored).cast(kind)
            except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
                pass  # one of them; each is read by itself
        made: list[Any] = []
        for at, value in enumerate(values):
            try:
                found = READ[name](value, shape)
                if isinstance(found, str):
                    found.encode()
                if found is None and not shape.optional:
                    raise Refused(f'Invalid value: null used for required field, schema type: {shape.type.upper()}')
            except (Refused, UnicodeEncodeError) as error:
                self.faults.mark(np.array([at]), rows, str(error))
                found = zeros(stored, 1)[0].as_py()
            made.append(found)
        return pa.array(made, stored).cast(kind)

    def _struct(self, values: Sequence[Any], shape: Shape, rows: Index) -> pa.Array:
        values = self._only(dict, values, rows, {}, "Structs should be encoded as JSON objects, but found ")
        fields = list(arrow_of(shape))
        if not fields:
            return pa.array([{}] * len(values), pa.struct([]))
        columns = [self.of([value.get(name) for value in values], each, rows) for name, each in shape.fields]
        return pa.StructArray.from_arrays(columns, fields=fields)

    def _array(self, values: Sequence[Any], shape: Shape, rows: Index) -> pa.Array:
        assert shape.values is not None
        lists = [_items(each) for each in values]
        counts = np.fromiter(map(len, lists), np.int64, len(lists))
        items = self.of([each for one in lists for each in one], shape.values, np.repeat(rows, counts))
        return pa.ListArray.from_arrays(together(items, counts).offsets, items, type=arrow_of(shape))

    def _map(self, values: Sequence[Any], shape: Shape, rows: Index) -> pa.Array:
        assert shape.keys is not None
        assert shape.values is not None
        if shape.keys.type == "string":
            objects = self._only(dict, values, rows, {},
                                 "Maps with string fields should be encoded as JSON objects, but found ")
            pairs: list[list[Any]] = [list(each.items()) for each in objects]
        else:
            listed = self._only(list, values, rows, [],
                                "Maps with non-string fields should be encoded as JSON array of tuples, but found ")
            pairs = [self._pairs(each, at, rows) for at, each in enumerate(listed)]
        counts = np.fromiter(map(len, pairs), np.int64, len(pairs))
        each = np.repeat(rows, counts)
        keys = self.of([key for one in pairs for key, _ in one], shape.keys, each)
        items = self.of([item for one in pairs for _, item in one], shape.values, each)
        if keys.null_count:
            self.faults.mark(keys.is_null().to_numpy(zero_copy_only=False), each, "a null key, which Arrow cannot hold")
            keys = keys.fill_null(zeros(keys.type, 1)[0])
        return pa.MapArray.from_arrays(together(items, counts).offsets, keys, items, type=arrow_of(shape))

    def _pairs(self, entries: list[Any], at: int, rows: Index) -> list[Any]:
        """The entries of a map that is written as a list of pairs."""
        for each in entries:
            if not isinstance(each, list) or len(each) != 2:
                why = (f"expected length 2 but found :{len(each)}" if isinstance(each, list)
                       else f"instead of array tuple: {node(each)}")
                self.faults.mark(np.array([at]), rows, f"Found invalid map entry, {why}")
                return []
        return entries

    def _only(self, wanted: type, values: Sequence[Any], rows: Index, instead: Any, why: str) -> Sequence[Any]:
        if set(map(type, values)) <= {wanted}:
            return values
        for at, value in enumerate(values):
            if type(value) is not wanted:
                self.faults.mark(np.array([at]), rows, why + node(value))
        return [value if type(value) is wanted else instead for value in values]


def _items(value: Any) -> list[Any]:
    """What Java goes over in a value: the items of a list, the values of an object, nothing in others."""
    return value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []


def _repeat(one: pa.Array, n: int) -> pa.Array:
    return one.take(pa.array(np.zeros(n, np.int64)))


