"""Columns as text, a whole column at a time: the one walk over Arrow types that JSON and Java's toString share."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.batch import Index
from headrace.records.converters import java
from headrace.records.converters.faults import Faults
from headrace.records.shape import Shape

is_ = pa.types


def join(*parts: pa.Array | str, by: str = "") -> pa.StringArray:
    """Element by element; text stands for itself in every row, and null makes null."""
    return pc.binary_join_element_wise(*parts, by)


class Texts:
    """How values are written. A subclass says what stands between them; `of` gives null where a value is null."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    def of(self, values: pa.Array, shape: Shape | None, rows: Index) -> pa.StringArray:
        """The text of each value; `rows` says which record each is a part of."""
        if is_.is_dictionary(values.type):
            values = values.dictionary_decode()
        if is_.is_null(values.type):
            return pa.nulls(len(values), pa.string())
        if is_.is_union(values.type):
            return self._union(values, rows)
        if not is_.is_nested(values.type):
            return self.leaf(values, rows)
        if not values.null_count:
            return self._nested(values, shape, rows)
        there = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
        return scatter([(there, self._nested(values.take(pa.array(there)), shape, rows[there]))], len(values))

    def _nested(self, values: pa.Array, shape: Shape | None, rows: Index) -> pa.StringArray:
        if is_.is_struct(values.type):
            return self.struct(values, shape, rows)
        if is_.is_map(values.type):
            return self._map(values, shape, rows)
        if not is_.is_list(values.type):  # (casting a list of nulls to its own type loses some, in Arrow 25)
            values = values.cast(pa.list_(values.type.value_field))
        counts = np.diff(values.offsets.to_numpy())
        items = self.filled(values.flatten(), shape.values if shape else None, np.repeat(rows, counts))
        return self.list(together(items, counts))

    def _map(self, values: pa.Array, shape: Shape | None, rows: Index) -> pa.StringArray:
        offsets = values.offsets.to_numpy()
        low, n, counts = int(offsets[0]), int(offsets[-1] - offsets[0]), np.diff(offsets)
        keys, items = values.keys.slice(low, n), values.items.slice(low, n)
        ordered = java.entries_order(keys, counts)
        if ordered is not None:
            keys, items = keys.take(pa.array(ordered)), items.take(pa.array(ordered))
        each = np.repeat(rows, counts)
        return self.map(self.filled(keys, shape.keys if shape else None, each),
                        self.filled(items, shape.values if shape else None, each),
                        counts, is_.is_string(keys.type) or is_.is_large_string(keys.type))

    def _union(self, values: pa.UnionArray, rows: Index) -> pa.StringArray:
        codes, offsets = values.type_codes.to_numpy(), values.offsets.to_numpy()
        parts = []
        for code in range(values.type.num_fields):
            here = np.flatnonzero(codes == code)
            parts.append((here, self.of(values.field(code).take(pa.array(offsets[here])), None, rows[here])))
        return scatter(parts, len(values))

    def filled(self, values: pa.Array, shape: Shape | None, rows: Index) -> pa.StringArray:
        """The text of a part of a value: nulls are written too."""
        return pc.fill_null(self.of(values, shape, rows), "null")

    def leaf(self, values: pa.Array, rows: Index) -> pa.StringArray:
        for test, write in self.LEAVES:
            if test(values.type):
                found: pa.StringArray = write(self, values, rows)
                return found
        self.faults.mark(values.is_valid().to_numpy(zero_copy_only=False), rows,
                         f"Kafka Connect has no type for Arrow's {values.type}")
        return pa.nulls(len(values), pa.string())

    LEAVES: Sequence[tuple[Callable[[pa.DataType], bool], Callable[[Any, pa.Array, Index], pa.StringArray]]] = ()
    """(does it write this Arrow type, how)"""

    def struct(self, values: pa.StructArray, shape: Shape | None, rows: Index) -> pa.StringArray:
        raise NotImplementedError

    def list(self, items: pa.ListArray) -> pa.StringArray:
        raise NotImplementedError

    def map(self, keys: pa.StringArray, items: pa.StringArray, counts: Index, named: bool) -> pa.StringArray:
        raise NotImplementedError


def together(items: pa.Array, counts: Any) -> pa.ListArray:
    """Items of many lists, one after another, as those lists."""
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), items)


def scatter(parts: Sequence[tuple[Index, pa.Array]], n: int) -> pa.Array:
    """One column of n rows from parts and their places; rows of no part are null."""
    where, absent, base = np.zeros(n, np.int64), np.ones(n, np.bool_), 0
    for at, part in parts:
        where[at] = np.arange(base, base + len(part))
        absent[at] = False
        base += len(part)
    return pa.concat_arrays([part for _, part in parts]).take(pa.array(where, mask=absent))


def repeated(text: str, values: pa.Array) -> pa.StringArray:
    """The same text for each value."""
    return pa.array([text] * len(values), pa.string())


def plain(self: Any, values: pa.Array, rows: Index) -> pa.StringArray:
    """As Arrow writes it."""
    return values.cast(pa.string())


def number(self: Any, values: pa.Array, rows: Index) -> pa.StringArray:
    return java.floats(values)


def decimal(self: Any, values: pa.Array, rows: Index) -> pa.StringArray:
    """BigDecimal.toString, which Python's is the same as."""
    return pa.array([None if each is None else str(each) for each in values.to_pylist()], pa.string())


def encoded(values: Sequence[bytes | None]) -> pa.StringArray:
    """Base64."""
    return pa.array([None if each is None else base64.b64encode(each).decode() for each in values], pa.string())


def is_text(kind: pa.DataType) -> bool:
    return bool(is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind))


def is_bytes(kind: pa.DataType) -> bool:
    return bool(is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_fixed_size_binary(kind)
                or is_.is_binary_view(kind))


class JavaTexts(Texts):
    """Object.toString of each value: what StringConverter writes."""

    def struct(self, values: pa.StructArray, shape: Shape | None, rows: Index) -> pa.StringArray:
        names = [each.name for each in values.type]
        columns = values.flatten()
        if shape is None:  # a map; its order is a HashMap's
            fields = [join(f"{names[at]}=", self.filled(columns[at], None, rows)) for at in java.order(names)]
            return join("{", join(*fields, by=", "), "}") if fields else repeated("{}", values)
        fields = [pc.fill_null(join(f",{name}=", self.of(column, shape.field(name), rows)), "")
                  for name, column in zip(names, columns, strict=True)]  # a struct leaves out what is null
        if not fields:
            return repeated("Struct{}", values)
        return join("Struct{", pc.utf8_slice_codeunits(join(*fields), 1), "}")

    def list(self, items: pa.ListArray) -> pa.StringArray:
        return join("[", pc.binary_join(items, ", "), "]")

    def map(self, keys: pa.StringArray, items: pa.StringArray, counts: Index, named: bool) -> pa.StringArray:
        entries = join(keys, items, by="=")
        return join("{", pc.binary_join(together(entries, counts), ", "), "}")

    def date(self, values: pa.Array, rows: Index) -> pa.StringArray:
        """java.util.Date.toString, in UTC."""
        if is_.is_time(values.type):
            values = values.cast(pa.time32("ms"), safe=False).cast(pa.int32()).cast(pa.int64()).cast(pa.timestamp("ms"))
        seconds = pc.floor_temporal(values.cast(pa.timestamp("us"), safe=False), unit="second").cast(pa.timestamp("s"))
        return pc.strftime(seconds, "%a %b %d %H:%M:%S UTC %Y")

    def bytes(self, values: pa.Array, rows: Index) -> pa.StringArray:
        self.faults.mark(values.is_valid().to_numpy(zero_copy_only=False), rows,
                         "bytes have no text: use ByteArrayConverter, or a transform that makes text of them")
        return pa.nulls(len(values), pa.string())

    LEAVES = ((is_text, plain), (is_.is_integer, plain), (is_.is_boolean, plain), (is_.is_floating, number),
              (is_.is_decimal, decimal), (is_.is_temporal, date), (is_bytes, bytes))
