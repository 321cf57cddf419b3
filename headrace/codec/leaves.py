"""Writing the values that hold no others: which Arrow types fit which Avro type, and how each becomes bytes.

Only widening casts are made: to a larger integer or float, from dates, times and instants to a finer unit. Polars holds
all times of day in nanoseconds, so these may go to a coarser one, and a value that would lose digits marks its record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.codec import wire_write as ink
from headrace.codec.build import RANGES
from headrace.codec.types import Type
from headrace.codec.wire import I64, Rows, Verdicts
from headrace.codec.wire_write import Piece
from headrace.lean import numbers_of

if TYPE_CHECKING:
    from headrace.codec.encode import Compiler, Measure

is_ = pa.types
UNITS = {"s": 0, "ms": 1, "us": 2, "ns": 3}


def _fits_int(bits: int) -> Callable[[pa.DataType], bool]:
    return lambda t: is_.is_integer(t) and t.bit_width + is_.is_unsigned_integer(t) <= bits


def _fits_text(t: pa.DataType) -> bool:
    return bool(is_.is_string(t) or is_.is_large_string(t) or is_.is_string_view(t))


def _fits_bytes(t: pa.DataType) -> bool:
    return bool(is_.is_binary(t) or is_.is_large_binary(t) or is_.is_binary_view(t) or is_.is_fixed_size_binary(t))


FITS: dict[str, Callable[[pa.DataType], bool]] = {
    "boolean": is_.is_boolean, "int": _fits_int(32), "long": _fits_int(64),
    "float": lambda t: is_.is_float16(t) or is_.is_float32(t) or is_.is_integer(t),
    "double": lambda t: is_.is_floating(t) or is_.is_integer(t),
    "string": _fits_text, "enum": _fits_text, "bytes": lambda t: _fits_bytes(t) or _fits_text(t), "fixed": _fits_bytes,
    "date": lambda t: is_.is_date32(t) or is_.is_date64(t),
    "time-millis": lambda t: is_.is_time32(t) or t == pa.time64("ns"),
    "time-micros": is_.is_time, "uuid": _fits_text,
    "duration": lambda t: is_.is_struct(t) and [f.name for f in t] == ["months", "days", "millis"]
    and all(is_.is_integer(f.type) for f in t),
}
"""Avro kind or logical type → may this Arrow type be written as it."""


def _fits(source: pa.DataType, target: Type) -> bool:
    if target.logical == "decimal":
        return bool(is_.is_decimal(source)) and 0 <= source.scale <= target.scale
    if target.logical and "timestamp" in target.logical:
        zoned = not target.logical.startswith("local-")
        return is_.is_timestamp(source) and bool(source.tz) == zoned and UNITS[source.unit] <= UNITS[target.arrow.unit]
    return FITS[target.logical or target.kind](source)


HINTS = {"int": "cast it to int32", "long": "cast it to int64", "date": "cast it to a date"}


def leaf(plans: Compiler, source: pa.DataType, target: Type, path: str) -> Measure:
    """The plan for a column of `source` as `target`; a type that does not fit is one of the plan's problems."""
    if not _fits(source, target):
        hint = HINTS.get(target.logical or target.kind, f"cast it to {target.arrow}")
        return plans.problem(path, f"{source} does not fit {target.label}: {hint}, or change the schema")
    if target.logical == "decimal":
        return _decimal(plans, source, target, path)
    if target.kind == "fixed":
        return _fixed(plans, source, target, path)
    if target.kind == "enum":
        return _enum(plans, target, path)
    if target.kind == "boolean":
        return lambda v, column, row: ink.bytes_column(_numbers(column.cast(pa.uint8())))
    if target.kind in ("float", "double"):
        wide = numbers_of(target.arrow)
        return lambda v, column, row: ink.wide_column(_numbers(column).astype(wide, copy=False))
    if target.kind in ("string", "bytes"):
        return lambda v, column, row: ink.spans_column(*spans(column))
    if target.logical is None:
        return lambda v, column, row: ink.varint_column(_numbers(column))
    return _temporal(plans, source, target, path)


def _temporal(plans: Compiler, source: pa.DataType, target: Type, path: str) -> Measure:
    """Dates, times and instants; what no calendar has is not written, since it would not be read."""
    cast = _caster(plans, source, target.arrow, path)
    outside = plans.fault(f"out_of_range: {path} is no {target.logical} of the years 1 to 9999")
    low, high = RANGES[target.logical]

    def measure(v: Verdicts, column: pa.Array, row: Rows) -> Piece:
        column = cast(v, column, row)
        number = _numbers(column)
        if len(number) and (int(number.min()) < low or int(number.max()) > high):
            wrong = (number < low) | (number > high)
            if column.null_count:
                wrong &= column.is_valid().to_numpy(zero_copy_only=False)
            v.mark(wrong, row, outside)
        return ink.varint_column(number)
    return measure


def _numbers(column: pa.Array) -> npt.NDArray[Any]:
    """A column of fixed width as its stored numbers; what stands under a null is arbitrary, and not looked at."""
    raw = column.buffers()[1]
    kind = _storage(column.type)
    if raw is None:
        return np.zeros(len(column), kind)
    return np.frombuffer(raw, kind, len(column), column.offset * kind.itemsize)


def _storage(arrow: pa.DataType) -> np.dtype[Any]:
    if is_.is_temporal(arrow):
        return np.dtype(np.int32 if arrow.bit_width == 32 else np.int64)
    return numbers_of(arrow)


def spans(column: pa.Array) -> tuple[npt.NDArray[np.uint8], I64, I64]:
    """The bytes of a string or binary column, with each value's start and size."""
    if is_.is_fixed_size_binary(column.type) or is_.is_string_view(column.type) or is_.is_binary_view(column.type):
        column = column.cast(pa.large_binary())
    wide = np.dtype(np.int64 if is_.is_large_string(column.type) or is_.is_large_binary(column.type) else np.int32)
    _, offsets, data = column.buffers()
    if offsets is None:
        return np.zeros(8, np.uint8), np.zeros(len(column), np.int64), np.zeros(len(column), np.int64)
    at = np.frombuffer(offsets, wide, len(column) + 1, column.offset * wide.itemsize).astype(np.int64, copy=False)
    raw = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return raw if raw.size >= 8 else np.concatenate([raw, np.zeros(8, np.uint8)]), at[:-1], np.diff(at)


def _caster(plans: Compiler, source: pa.DataType, target: pa.DataType,
            path: str) -> Callable[[Verdicts, pa.Array, Rows], pa.Array]:
    """A safe cast; the values that it refuses mark their records and become null."""
    if source == target:
        return lambda v, column, row: column
    refused = plans.fault(f"out_of_range: {path} does not fit {target}")

    def cast(v: Verdicts, column: pa.Array, row: Rows) -> pa.Array:
        try:
            return column.cast(target)
        except pa.ArrowInvalid:
            bad = np.array(_refused(column, target, 0), np.int64)
            v.mark(bad, row, refused)
            keep = np.ones(len(column), np.bool_)
            keep[bad] = False
            return pc.if_else(pa.array(keep), column, pa.scalar(None, column.type)).cast(target)
    return cast


def _refused(column: pa.Array, target: pa.DataType, base: int) -> list[int]:
    """The positions that cannot be cast, found by halving."""
    try:
        column.cast(target)
    except pa.ArrowInvalid:
        half = len(column) // 2
        if not half:
            return [base]
        return _refused(column.slice(0, half), target, base) + _refused(column.slice(half), target, base + half)
    return []


def _enum(plans: Compiler, target: Type, path: str) -> Measure:
    symbols = pa.array(target.symbols, pa.string())
    unknown = plans.fault(f"unknown_symbol: {path} is not one of {', '.join(target.symbols)}"[:300])

    def measure(v: Verdicts, column: pa.Array, row: Rows) -> Piece:
        index = pc.fill_null(pc.index_in(column.cast(pa.string()), value_set=symbols), -1)
        number = index.to_numpy(zero_copy_only=False)
        if len(number) and int(number.min()) < 0:
            v.mark(number < 0, row, unknown)
            number = np.maximum(number, 0)
        return ink.varint_column(number)
    return measure


def _fixed(plans: Compiler, source: pa.DataType, target: Type, path: str) -> Measure:
    if target.logical == "uuid":
        return _uuid(plans, path)
    if target.logical == "duration":
        casts = [_caster(plans, f.type, pa.uint32(), f"{path}.{f.name}") for f in source]
        absent = plans.fault(f"null_value: {path} has a part that is null")

        def duration(v: Verdicts, column: pa.Array, row: Rows) -> Piece:
            parts = [cast(v, part, row) for cast, part in zip(casts, column.flatten(), strict=True)]
            for part in parts:
                if part.null_count:
                    v.mark(pc.is_null(part).to_numpy(zero_copy_only=False), row, absent)
            return ink.chain([ink.wide_column(_numbers(part)) for part in parts])
        return duration
    if is_.is_fixed_size_binary(source) and source.byte_width != target.size:
        return plans.problem(path, f"{source} does not fit {target.label} of {target.size} bytes")
    wrong = plans.fault(f"wrong_size: {path} has not the {target.size} bytes of {target.label}")

    def measure(v: Verdicts, column: pa.Array, row: Rows) -> Piece:
        data, start, size = spans(column)
        off = size != target.size
        if off.any():
            v.mark(off, row, wrong)
            if data.size < target.size:
                data = np.zeros(target.size + 8, np.uint8)
            start = np.where(off, 0, start)
        return ink.fixed_column(data, start, target.size)
    return measure


_NIBBLE = np.full(256, 255, np.uint8)
_NIBBLE[[ord(c) for c in "0123456789abcdef"]] = np.arange(16)
_NIBBLE[[ord(c) for c in "ABCDEF"]] = np.arange(10, 16)


def _uuid(plans: Compiler, path: str) -> Measure:
    """36 characters, or 32 without dashes, as 16 bytes."""
    wrong = plans.fault(f"not_a_uuid: {path} is not a UUID of 36 characters")

    def measure(v: Verdicts, column: pa.Array, row: Rows) -> Piece:
        bare = pc.replace_substring(column.cast(pa.string()), "-", "")
        data, start, size = spans(bare)
        off = size != 32
        if data.size < 40:
            data = np.concatenate([data, np.zeros(40, np.uint8)])
        digits = _NIBBLE[data[np.where(off, 0, start)[:, None] + np.arange(32)]]
        off |= (digits > 15).any(axis=1)
        if off.any():
            v.mark(off, row, wrong)
        packed = np.ascontiguousarray((digits[:, ::2] << 4) | (digits[:, 1::2] & 15)).reshape(-1)
        data = packed if packed.size >= 8 else np.zeros(16, np.uint8)
        return ink.fixed_column(data, np.arange(len(column), dtype=np.int64) * 16, 16)
    return measure


def _decimal(plans: Compiler, source: pa.DataType, target: Type, path: str) -> Measure:
    """The unscaled number, big-endian two's complement, in as few bytes as hold it, or in the size of the fixed."""
    cast = _caster(plans, source, target.arrow, path)
    large = plans.fault(f"out_of_range: {path} does not fit {target.label}")

    def measure(v: Verdicts, column: pa.Array, row: Rows) -> Piece:
        column = cast(v, column, row)
        width = column.type.bit_width // 8
        raw = column.buffers()[1]
        words = np.zeros((len(column), width), np.uint8) if raw is None else \
            np.frombuffer(raw, np.uint8, len(column) * width, column.offset * width).reshape(len(column), width)
        size = _bytes_needed(words)
        if target.kind == "fixed":
            if (size > target.size).any():
                v.mark(size > target.size, row, large)
            return Piece(target.size, lambda out, at: _write_big_endian(out, at, words, np.full(len(at), target.size)))
        length = ink.varint_column(size)

        def write(out: ink.Out, at: I64) -> None:
            length.write(out, at)
            _write_big_endian(out, at + length.size, words, size)
        return Piece(size + length.size, write)
    return measure


def _bytes_needed(words: npt.NDArray[np.uint8]) -> I64:
    """The fewest bytes that hold each little-endian two's complement number."""
    groups = np.ascontiguousarray(words).view(np.uint64)
    flip = np.where(words[:, -1] > 127, np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0))
    size = np.ones(len(words), np.int64)
    for g in range(groups.shape[1]):
        bits = groups[:, g] ^ flip
        here = np.ones(len(words), np.int64)
        for k in range(1, 9):
            here += bits >= np.uint64(1 << (8 * k - 1))
        size = np.where(bits != 0, 8 * g + here, size)
    return size


def _write_big_endian(out: ink.Out, at: I64, words: npt.NDArray[np.uint8], size: I64) -> None:
    sign = np.where(words[:, -1] > 127, 255, 0).astype(np.uint8)
    for k in range(int(size.max()) if len(size) else 0):
        which = np.flatnonzero(size > k)
        out.buf[at[which] + size[which] - 1 - k] = words[which, k] if k < words.shape[1] else sign[which]
