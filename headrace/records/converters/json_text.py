"""Columns as JSON, byte for byte as Kafka Connect's JsonConverter writes them (Jackson's escapes, Java's floats)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.batch import Index
from headrace.records.converters import java
from headrace.records.converters.faults import Faults
from headrace.records.converters.text import Texts, encoded, is_bytes, is_text, join, plain, repeated, together
from headrace.records.shape import Shape, constant

is_ = pa.types
ESCAPED = re.compile(r'["\\\x00-\x1f\U00010000-\U0010ffff]')
SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
REQUIRED = "Conversion error: null value for field that is required and has no default value"


def quoted(text: str) -> str:
    """A JSON string as Jackson writes it: hex in capitals, and what is beyond 16 bits as two escapes."""
    return '"' + ESCAPED.sub(_escape, text) + '"'


def _escape(found: re.Match[str]) -> str:
    char = found.group()
    if char in SHORT:
        return SHORT[char]
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02X}{units[at + 1]:02X}" for at in range(0, len(units), 2))


def quote(values: pa.Array) -> pa.StringArray:
    """JSON strings; nulls stay null."""
    values = values.cast(pa.string())
    odd = pc.fill_null(pc.match_substring_regex(values, r'["\\\x00-\x1f]|[\x{10000}-\x{10ffff}]'), False)
    plainly = join('"', values, '"')
    if not pc.any(odd).as_py():
        return plainly
    return pc.replace_with_mask(plainly, odd, pa.array(map(quoted, values.filter(odd).to_pylist()), pa.string()))


def unscaled(value: Any, scale: int) -> bytes:
    """A decimal as Kafka Connect keeps it: its digits as a big-endian number in as few bytes as hold it."""
    sign, digits, exponent = value.as_tuple()
    number = int("".join(map(str, digits))) * 10 ** (exponent + scale) * (-1 if sign else 1)
    raw: bytes = number.to_bytes((number if number >= 0 else ~number).bit_length() // 8 + 1, "big", signed=True)
    return raw


class JsonTexts(Texts):
    """JSON values. `numeric`: decimals as numbers; `defaults`: a null with a default is written as that."""

    def __init__(self, faults: Faults, *, numeric: bool, defaults: bool) -> None:
        super().__init__(faults)
        self.numeric, self.defaults = numeric, defaults

    def filled(self, values: pa.Array, shape: Shape | None, rows: Index) -> pa.StringArray:
        text = self.of(values, shape, rows)
        if not text.null_count:
            return text
        if shape is not None and shape.default is not None and self.defaults:
            return pc.fill_null(text, self.default(shape))
        if shape is not None and not shape.optional:
            self.faults.mark(text.is_null().to_numpy(zero_copy_only=False), rows, REQUIRED)
        return pc.fill_null(text, "null")

    def default(self, shape: Shape) -> str:
        """The text of a shape's default."""
        text: str = self.of(constant(shape, shape.default), shape, np.zeros(1, np.int64))[0].as_py()
        return text

    def struct(self, values: pa.StructArray, shape: Shape | None, rows: Index) -> pa.StringArray:
        names = [each.name for each in values.type]
        columns = values.flatten()
        pieces: list[Any] = []
        for at in java.order(names) if shape is None else range(len(names)):
            pieces.append(f"{',' if pieces else '{'}{quoted(names[at])}:")
            pieces.append(self.filled(columns[at], shape and shape.field(names[at]), rows))
        return join(*pieces, "}") if pieces else repeated("{}", values)

    def list(self, items: pa.ListArray) -> pa.StringArray:
        return join("[", pc.binary_join(items, ","), "]")

    def map(self, keys: pa.StringArray, items: pa.StringArray, counts: Index, named: bool) -> pa.StringArray:
        entries = join(keys, items, by=":") if named else join("[", keys, ",", items, "]")
        first, last = "{}" if named else "[]"
        return join(first, pc.binary_join(together(entries, counts), ","), last)

    def text(self, values: pa.Array, rows: Index) -> pa.StringArray:
        return quote(values)

    def number(self, values: pa.Array, rows: Index) -> pa.StringArray:
        """What is no number is a string."""
        text = java.floats(values)
        odd = pc.fill_null(pc.invert(pc.is_finite(values)), False)
        return pc.if_else(odd, join('"', text, '"'), text)

    def decimal(self, values: pa.Array, rows: Index) -> pa.StringArray:
        if self.numeric:
            return pa.array([None if each is None else str(each) for each in values.to_pylist()], pa.string())
        raw = [None if each is None else unscaled(each, values.type.scale) for each in values.to_pylist()]
        return join('"', encoded(raw), '"')

    def bytes(self, values: pa.Array, rows: Index) -> pa.StringArray:
        return join('"', encoded(values.to_pylist()), '"')

    LEAVES = ((is_text, text), (is_.is_integer, plain), (is_.is_boolean, plain), (is_.is_floating, number),
              (is_.is_decimal, decimal), (is_.is_timestamp, lambda self, values, rows: milliseconds(values)),
              (is_.is_date, lambda self, values, rows: days(values)), (is_.is_time, lambda self, v, rows: of_day(v)),
              (is_bytes, bytes))


def milliseconds(values: pa.Array) -> pa.StringArray:
    """Instants as milliseconds since 1970, rounded down."""
    if values.type.unit in ("us", "ns"):
        values = pc.floor_temporal(values, unit="millisecond")
    return values.cast(pa.timestamp("ms", values.type.tz)).cast(pa.int64()).cast(pa.string())


def days(values: pa.Array) -> pa.StringArray:
    """Dates as days since 1970."""
    return values.cast(pa.date32()).cast(pa.int32()).cast(pa.string())


def of_day(values: pa.Array) -> pa.StringArray:
    """Times as milliseconds since midnight."""
    return values.cast(pa.time32("ms"), safe=False).cast(pa.int32()).cast(pa.string())


def lines(texts: pa.StringArray) -> Sequence[bytes]:
    """Each text in UTF-8."""
    found: Sequence[bytes] = texts.cast(pa.binary()).to_pylist()
    return found
