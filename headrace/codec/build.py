"""From positions and numbers to Arrow columns: the last step of reading a leaf.

`builder(writer, reader)` takes what the pass over `writer`'s bytes found (numbers; starts; starts and ends) and makes
the column of `reader`'s Arrow type. Values that the type cannot hold mark their record; the column has all rows anyway.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.codec.types import Type
from headrace.codec.wire import I64, LENGTH, RANGE, TEXT, Payloads, Rows, cut
from headrace.lean import numbers_of

Build = Callable[[Payloads, Any, Rows], pa.Array]

_INT64 = (-(1 << 63), (1 << 63) - 1)
RANGES: dict[str | None, tuple[int, int]] = {
    None: _INT64, "date": (-719_162, 2_932_896),
    "time-millis": (0, 86_399_999), "time-micros": (0, 86_399_999_999),
    **{f"{local}timestamp-{unit}": (-62_135_596_800 * per_second, 253_402_300_800 * per_second - 1)
       for local in ("", "local-") for unit, per_second in (("millis", 10**3), ("micros", 10**6))},
    "timestamp-nanos": _INT64, "local-timestamp-nanos": _INT64,
}
"""What the number of a logical type may be: days and instants of the years 1 to 9999, times within one day."""
NANOS = {"millis": 10**6, "micros": 10**3, "nanos": 1}


def builder(writer: Type, reader: Type) -> Build:
    """What makes the column; the kinds are the same, or the writer's promotes to the reader's."""
    match writer.kind:
        case "null":
            return lambda p, at, row: pa.nulls(len(at))
        case "boolean":
            return lambda p, at, row: pa.array(p.buf[at] == 1)
        case "float" | "double":
            kind, wide = ("<f4" if writer.kind == "float" else "<f8"), numbers_of(reader.arrow)
            return lambda p, at, row: pa.array(p.window(kind)[at].astype(wide, copy=False))
        case "int" | "long" if reader.kind in ("float", "double"):
            target = numbers_of(reader.arrow)
            return lambda p, number, row: pa.array(number.astype(target))
        case "int" | "long":
            return _integers(writer, reader)
        case "fixed":
            return _fixed(reader)
    if reader.kind == "string":
        return lambda p, span, row: text(p, span[0], span[1], row)
    if reader.logical == "decimal":
        return lambda p, span, row: decimals(p, span[0], span[1], row, reader)
    return lambda p, span, row: cut(p, *span)


def _integers(writer: Type, reader: Type) -> Build:
    """Whole numbers, dates and times. Between two units of the same kind of time the value is converted."""
    arrow = reader.arrow
    low, high = RANGES[reader.logical]
    up, down = 1, 1
    if writer.logical and reader.logical and writer.logical != reader.logical:
        family, unit = writer.logical.rpartition("-")[::2]
        if family and family == reader.logical.rpartition("-")[0]:
            ratio = NANOS[unit], NANOS[reader.logical.rpartition("-")[2]]
            up, down = max(1, ratio[0] // ratio[1]), max(1, ratio[1] // ratio[0])
            low, high = max(_INT64[0], -(-low // up) * down), min(_INT64[1], high // up * down + down - 1)
    if arrow.bit_width == 32:
        low, high = max(low, -(1 << 31)), min(high, (1 << 31) - 1)
    storage = np.int32 if arrow.bit_width == 32 else np.int64

    def build(p: Payloads, number: I64, row: Rows) -> pa.Array:
        if len(number) and (int(number.min()) < low or int(number.max()) > high):
            outside = (number < low) | (number > high)
            p.mark(outside, row, RANGE)
            number = np.where(outside, 0, number)
        if up > 1 or down > 1:
            number = number * up // down
        return pa.Array.from_buffers(arrow, len(number), [None, pa.py_buffer(number.astype(storage, copy=False))])
    return build


def text(p: Payloads, start: I64, end: I64, row: Rows) -> pa.Array:
    """UTF-8 strings, checked; one that is not marks its record and reads as empty."""
    raw = cut(p, start, end)
    try:
        return raw.cast(pa.string())
    except pa.ArrowInvalid:
        good = np.fromiter(map(_is_utf8, raw.to_pylist()), np.bool_, len(raw))
        p.mark(~good, row, TEXT)
        return pc.if_else(pa.array(good), raw, pa.scalar(b"")).cast(pa.string())


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _fixed(reader: Type) -> Build:
    """Fixed bytes: as they are, or as the decimal, UUID or duration they are declared to be."""
    size, arrow = reader.size, reader.arrow
    match reader.logical:
        case "decimal":
            return lambda p, at, row: decimals(p, at, at + size, row, reader)
        case "uuid":
            return lambda p, at, row: _uuids(p, at)
        case "duration":
            names = list(arrow)
            return lambda p, at, row: pa.StructArray.from_arrays(
                [pa.array(p.window("<u4")[at + 4 * k]) for k in range(3)], fields=names)
    return lambda p, at, row: pa.Array.from_buffers(arrow, len(at), [None, cut(p, at, at + size).buffers()[2]])


_HEX = np.frombuffer(b"".join(f"{b:02x}".encode() for b in range(256)), np.uint16)
_DASHES = (8, 13, 18, 23)
_DIGITS = np.array([k for k in range(36) if k not in _DASHES])


def _uuids(p: Payloads, at: I64) -> pa.Array:
    """Sixteen bytes as the usual 36 characters."""
    out = np.full((len(at), 36), ord("-"), np.uint8)
    out[:, _DIGITS] = _HEX[p.buf[at[:, None] + np.arange(16)]].view(np.uint8)
    offsets = np.arange(0, 36 * len(at) + 1, 36, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(at), [None, pa.py_buffer(offsets), pa.py_buffer(out)])


def decimals(p: Payloads, start: I64, end: I64, row: Rows, reader: Type) -> pa.Array:
    """Big-endian two's complement of any length, as Arrow's little-endian words."""
    arrow = reader.arrow
    width = arrow.bit_width // 8
    size = end - start
    if len(size) and not size.all():
        p.mark(size == 0, row, LENGTH)
    sign: npt.NDArray[np.uint8] = np.where(p.buf[start] > 127, 255, 0).astype(np.uint8)
    longest = int(size.max()) if len(size) else 0
    if longest > width:
        for i in np.flatnonzero(size > width).tolist():  # legal only with leading bytes that say nothing
            number = int.from_bytes(p.buf[start[i]:end[i]].tobytes(), "big", signed=True)
            if abs(number) >= 10**reader.precision:
                p.mark(np.array([i]), row, RANGE)
    words = np.empty((len(size), width), np.uint8)
    for k in range(width):
        words[:, k] = np.where(k < size, p.buf[np.maximum(end - 1 - k, 0)], sign) if k < longest else sign
    column = pa.Array.from_buffers(arrow, len(size), [None, pa.py_buffer(words)])
    most = decimal.Decimal(10**reader.precision - 1).scaleb(-reader.scale, decimal.Context(prec=100))
    low, high = pa.scalar(most.copy_negate(), arrow), pa.scalar(most, arrow)
    fits = pc.and_(pc.less_equal(column, high), pc.greater_equal(column, low))
    if not pc.all(fits, min_count=0).as_py():
        p.mark(~fits.to_numpy(zero_copy_only=False), row, RANGE)
    return column
