"""Columns as keys of state: bytes that are equal exactly when the values are, and a number for each distinct row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.codec import Encoder, from_arrow
from headrace.errors import SchemaError
from headrace.eventtime import Ints

FRAMING_BYTES = 5
CODES_MAX = 1 << 62
_KEYS: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean, pa.types.is_date,
    pa.types.is_timestamp, pa.types.is_decimal)


def check(columns: Sequence[str], schema: pa.Schema, what: str) -> None:
    """Whether these columns can be a key: there, and of text, whole or decimal numbers, booleans or times.

    Raises SchemaError; `what` names the setting in it.
    """
    for name in columns:
        if name not in schema.names:
            raise SchemaError(f"`{what}` names “{name}”, which is no column of the rows; they have "
                              f"{', '.join(schema.names)}")
        held = schema.field(name).type
        if not any(is_kind(held) for is_kind in _KEYS):
            raise SchemaError(f"`{what}` names “{name}”, which is {held}: a key is text, a whole or decimal number, a "
                              "boolean, a date or a timestamp", hint="make one with a `derive` step")


def physical(column: pa.Array) -> pa.Array:
    """Dates and times as the numbers they are, which no bound of Avro's refuses; others as they come."""
    if pa.types.is_temporal(column.type):
        return column.view(pa.int32() if column.type.bit_width == 32 else pa.int64())
    return column


def physical_type(held: pa.DataType) -> pa.DataType:
    """The type of `physical`'s arrays."""
    if pa.types.is_temporal(held):
        return pa.int32() if held.bit_width == 32 else pa.int64()
    return pa.string() if pa.types.is_large_string(held) else held


class Keys:
    """Rows' columns as bytes: Avro's, which tell null from empty, and where one column ends and the next begins."""

    def __init__(self, columns: Sequence[str], schema: pa.Schema) -> None:
        self.columns = tuple(columns)
        plain = pa.schema([pa.field(f"k{at}", physical_type(schema.field(name).type))
                           for at, name in enumerate(columns)])
        self._names = plain.names
        self._encoder = Encoder(from_arrow(plain, name="key"), plain, 0) if columns else None

    def of(self, rows: pa.RecordBatch) -> list[bytes]:
        """A key a row."""
        if self._encoder is None:
            return [b""] * rows.num_rows
        arrays = [physical(rows.column(name)) for name in self.columns]
        framed = self._encoder.encode(pa.RecordBatch.from_arrays(arrays, names=self._names))
        return list(map(itemgetter(slice(FRAMING_BYTES, None)), framed))


def distinct(columns: Sequence[pa.Array | Ints]) -> tuple[Ints, Ints]:
    """(a number from 0 on for each row, the same for equal rows; the first row of each number). Null equals null.

    Columns are Arrow arrays, or numpy integers, of one length above 0.
    """
    codes: Any = np.zeros(len(columns[0]), np.int64)
    width = 1
    for column in columns:
        each, n = _codes(column)
        if width * n > CODES_MAX:
            codes = np.unique(codes, return_inverse=True)[1]
            width = len(codes)
        codes, width = codes * n + each, width * n
    _, first, which = np.unique(codes, return_index=True, return_inverse=True)
    return which, first


def _codes(column: pa.Array | Ints) -> tuple[Ints, int]:
    if isinstance(column, np.ndarray):
        low, high = int(column.min()), int(column.max())
        if high - low < 1 << 31:
            return column - low, high - low + 1
        found, which = np.unique(column, return_inverse=True)
        return which, len(found)
    encoded: Any = pc.dictionary_encode(column, null_encoding="encode")
    return encoded.indices.to_numpy().astype(np.int64), max(len(encoded.dictionary), 1)
