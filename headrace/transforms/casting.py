"""A column cast to another of Connect's types, by Java's rules: whole arrays at a time, odd texts one by one."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.records import Column
from headrace.records.shape import PRIMITIVES
from headrace.transforms import dates
from headrace.transforms.base import Bad
from headrace.transforms.fields import canonical, class_of
from headrace.transforms.numbers import BITS, float_text, parse_float, parse_whole, wrapped

DAY_MS = 86_400_000
WHOLES, FLOATS = {"Byte", "Short", "Integer", "Long"}, {"Float", "Double"}
PLAIN = {"int8": 2, "int16": 4, "int32": 9, "int64": 18}
"""Digits that always fit."""


def cast(column: Column, target: str, bad: Bad, what: str) -> pa.Array:
    """The values as `target`: one of Connect's primitives but bytes. What cannot be cast is marked in `bad`, with
    `what` for its name. A column without a shape is schemaless: Java knows no dates or decimals there."""
    column = canonical(column)
    values, found, kind = column.values, class_of(column), PRIMITIVES[target]
    if values.null_count == len(values):
        return pa.nulls(len(values), kind)
    if found in ("List", "Map", "Struct") or (column.shape is None and found in ("Date", "BigDecimal")) or (
            found == "byte[]" and target != "string"):
        bad.add(values.is_valid(), f"{what} is a {found}, which cannot be cast to {target}")
        return pa.nulls(len(values), kind)
    if found == "Date" and not pa.types.is_timestamp(values.type) and target != "string":
        values, found = values.cast(pa.int32()), "Integer"
    elif found == "Date" and target != "string":
        values, found = values.cast(pa.int64()), "Long"
    if target == "string":
        return _text(values, found)
    if found == "String":
        return _parsed(values, target, bad, what)
    if found == "Boolean" and target == "boolean":
        return values
    return _number(values, found, target)


def _number(values: pa.Array, found: str, target: str) -> pa.Array:
    """From numbers and booleans to numbers and booleans."""
    if found == "BigDecimal":
        if target in ("float32", "float64"):
            return _mapped(values, float, pa.float64()).cast(PRIMITIVES[target], safe=False)
        values, found = _low_bits(values), "Long"
    held: Any = (values.fill_null(0 if found != "Boolean" else False) if values.null_count else values
                 ).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore", invalid="ignore"):
        if target in ("float32", "float64"):
            made = held.astype(target)
        else:
            if found in FLOATS:
                held = _saturated(held, 64 if target in ("int64", "boolean") else 32)
            made = held != 0 if target == "boolean" else held.astype(target)
    mask = np.asarray(values.is_null()) if values.null_count else None
    return pa.array(made, PRIMITIVES[target], mask=mask, from_pandas=False)


def _saturated(held: Any, bits: int) -> Any:
    """Java's `(int)` or `(long)` of floats: towards zero, held at the ends, 0 for NaN."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    wide = np.trunc(np.nan_to_num(held.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf))
    inside = np.where((wide > float(low)) & (wide < 2.0 ** (bits - 1)), wide, 0.0).astype(np.int64)
    return np.where(wide <= float(low), low, np.where(wide >= 2.0 ** (bits - 1), high, inside))


def _low_bits(values: pa.Array) -> pa.Array:
    """`BigDecimal.longValue`: the whole part's low 64 bits."""
    if not pa.types.is_decimal128(values.type):
        return _mapped(values, lambda each: wrapped(int(each), 64), pa.int64())
    whole = pc.cast(values, pa.decimal128(38, 0), safe=False)
    raw = np.frombuffer(whole.buffers()[1], "<i8")[2 * whole.offset:2 * (whole.offset + len(whole)):2]
    return pa.array(raw, mask=np.asarray(values.is_null()))


def _parsed(values: pa.Array, target: str, bad: Bad, what: str) -> pa.Array:
    if target == "boolean":
        return pc.equal(pc.utf8_lower(values), "true")
    plain = rf"^-?[0-9]{{1,{PLAIN[target]}}}$" if target in BITS else r"^-?[0-9]+(\.[0-9]+)?$"
    if pc.all(pc.match_substring_regex(values, plain)).as_py():
        return pc.cast(values, PRIMITIVES[target])
    held = values.to_pylist()
    made: list[Any] = [None if each is None else parse_whole(each, target) if target in BITS else parse_float(each)
                       for each in held]
    wrong = np.array([one is None and each is not None for one, each in zip(made, held, strict=True)])
    bad.add(wrong, lambda at: f"{what} is “{held[at]}”, which is no {target}")
    if target == "float32":
        with np.errstate(over="ignore"):
            made = [None if one is None else np.float32(one) for one in made]
    return pa.array(made, PRIMITIVES[target])


def _text(values: pa.Array, found: str) -> pa.Array:
    """What Java's `toString` says; bytes in Base64, dates in ISO 8601."""
    if found == "String":
        return values
    if found == "Boolean":
        return pc.if_else(values, "true", "false")
    if found in WHOLES:
        return pc.cast(values, pa.string())
    if found == "byte[]":
        return _mapped(values, lambda each: base64.b64encode(each).decode(), pa.string())
    if found == "BigDecimal":
        return _mapped(values, str, pa.string())
    if found == "Date":
        return dates.iso(milliseconds(values))
    return _float_text(values)


def _float_text(values: pa.Array) -> pa.Array:
    single = pa.types.is_float32(values.type)
    text, size = pc.cast(values, pa.string()), pc.abs(values)
    text = pc.if_else(pc.match_substring(text, "."), text, pc.binary_join_element_wise(text, "0", "."))
    odd = pc.fill_null(pc.invert(pc.and_(pc.greater_equal(size, 1e-3), pc.less(size, 1e7))), False)
    odd = pc.or_(odd, pc.fill_null(pc.is_nan(values), False))
    if not odd.true_count:
        return text
    made = [float_text(each, single=single) for each in values.filter(odd).to_pylist()]
    return pc.replace_with_mask(text, odd, pa.array(made, pa.string()))


def _mapped(values: pa.Array, made: Callable[[Any], Any], kind: pa.DataType) -> pa.Array:
    return pa.array([None if each is None else made(each) for each in values.to_pylist()], kind)


def milliseconds(values: pa.Array) -> pa.Array:
    """Since 1970, of dates, times of day and timestamps."""
    if pa.types.is_date32(values.type):
        return pc.multiply(values.cast(pa.int32()).cast(pa.int64()), pa.scalar(DAY_MS, pa.int64()))
    if pa.types.is_time32(values.type):
        return values.cast(pa.int32()).cast(pa.int64())
    return values.cast(pa.int64())
