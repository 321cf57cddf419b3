"""Arrow values as JSON texts, all at once: what `headrace.ingest` reads from JSON Lines as the same values.

Dates and times are ISO 8601, decimals text, bytes text with one character a byte (as in Avro's own JSON encoding). What
JSON lacks (NaN, infinite numbers) is null.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from operator import methodcaller
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ESCAPED = r'["\\\x00-\x1f]'
TEXT = pa.large_string()
is_ = pa.types


def texts(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A JSON text for each value: "null" for null. Large strings, none of them null."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    plain = next(write(values) for test, write in _WAYS if test(values.type))
    return pc.fill_null(plain, "null")


def lines(values: pa.Array) -> bytes:
    """JSON Lines: every value, with a line end behind it."""
    return _bytes(_joined([texts(values)], "", "\n"))


def array(values: pa.Array) -> bytes:
    """One JSON array of all values."""
    return b"[" + _bytes(_joined([texts(values)], "", ","))[:-1] + b"]" if len(values) else b"[]"


def _bytes(made: pa.Array) -> bytes:
    """The texts of an array, one behind the other: they are that already."""
    if not len(made):
        return b""
    _, ends, data = made.buffers()
    at = np.frombuffer(ends, np.int64)[made.offset:made.offset + len(made) + 1]
    return bytes(memoryview(data)[at[0]:at[-1]]) if data is not None else b""


def _joined(columns: Iterable[pa.Array], before: str, behind: str) -> pa.Array:
    """Texts of a row, with something before the first and behind the last."""
    return pc.binary_join_element_wise(_lit(before), *columns, _lit(behind), _lit(""))


def _lit(text: str) -> pa.Scalar:
    return pa.scalar(text, TEXT)


def _plain(values: pa.Array) -> pa.Array:
    return pc.cast(values, TEXT)


def _quoted(values: pa.Array) -> pa.Array:
    """As a JSON string, which is its text in quotes unless a character in it has to be escaped."""
    values = pc.cast(values, TEXT)
    quoted = _joined([values], '"', '"')
    raw = np.frombuffer(_bytes(values), np.uint8)
    if not (raw < 0x20).any() and not ((raw == ord('"')) | (raw == ord("\\"))).any():
        return quoted
    odd = pc.fill_null(pc.match_substring_regex(values, ESCAPED), False)
    escaped = [json.dumps(text, ensure_ascii=False) for text in values.filter(odd).to_pylist()]
    return pc.replace_with_mask(quoted, odd, pa.array(escaped, TEXT))


def _real(values: pa.Array) -> pa.Array:
    if is_.is_float16(values.type):
        values = values.cast(pa.float32())
    written = _plain(pc.if_else(pc.is_finite(values), values, pa.scalar(None, values.type)))
    whole = pc.fill_null(pc.equal(values, pc.trunc(values)), False)  # 1.0 stays a real number, for those who infer
    bare = pc.and_(whole, pc.invert(pc.fill_null(pc.match_substring(written, "e"), False)))
    return pc.if_else(bare, _joined([written], "", ".0"), written)


def _timestamp(values: pa.Array) -> pa.Array:
    return _quoted(pc.replace_substring(_plain(_utc(values)), " ", "T", max_replacements=1))


def _utc(values: pa.Array) -> pa.Array:
    return values.cast(pa.timestamp(values.type.unit, "UTC")) if values.type.tz else values


def _bytes_text(values: pa.Array) -> pa.Array:
    """One character a byte."""
    values = pc.cast(values, pa.binary())
    decoded = map(methodcaller("decode", "latin-1"), values.drop_null().to_pylist())
    filled = pc.fill_null(values, b"")
    made = pc.replace_with_mask(pa.nulls(len(filled), TEXT), pc.is_valid(values), pa.array(list(decoded), TEXT))
    return _quoted(made)


def _struct(values: pa.Array) -> pa.Array:
    kind = values.type
    parts: list[Any] = []
    for at, field in enumerate(kind):
        name = json.dumps(field.name, ensure_ascii=False)
        parts += [_lit(f"{',' if at else ''}{name}:"), texts(pc.struct_field(values, [at]))]
    made = _joined(parts, "{", "}") if parts else pa.array(["{}"] * len(values), TEXT)
    return _null_as(made, values)


def _list(values: pa.Array) -> pa.Array:
    return enclosed(values, texts(pc.list_flatten(values)), "[", "]")


def _map(values: pa.Array) -> pa.Array:
    spans = values.cast(pa.list_(pa.struct([values.type.key_field, values.type.item_field])))
    pairs = pc.list_flatten(spans)
    keys, items = pc.struct_field(pairs, [0]), pc.struct_field(pairs, [1])
    return enclosed(spans, _joined([_quoted(keys), _lit(":"), texts(items)], "", ""), "{", "}")


def enclosed(values: pa.Array, items: pa.Array, before: str, behind: str) -> pa.Array:
    """The items' texts, gathered as the lists in `values` have them, null where those are."""
    lengths = pc.fill_null(pc.list_value_length(values), 0).cast(pa.int64())
    ends = np.concatenate([[0], np.cumsum(lengths.to_numpy(zero_copy_only=False))])
    lists = pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), items)
    return _null_as(_joined([pc.binary_join(lists, _lit(","))], before, behind), values)


def _null_as(made: pa.Array, values: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_valid(values), made, pa.scalar(None, TEXT)) if values.null_count else made


_WAYS: tuple[tuple[Any, Any], ...] = (
    (is_.is_null, _plain),
    (lambda kind: is_.is_boolean(kind) or is_.is_integer(kind), _plain),
    (is_.is_floating, _real),
    (is_.is_timestamp, _timestamp),
    (lambda kind: is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_fixed_size_binary(kind), _bytes_text),
    (is_.is_struct, _struct),
    (is_.is_map, _map),
    (lambda kind: is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind), _list),
    (is_.is_dictionary, lambda values: _quoted(values.dictionary_decode())),
    (lambda kind: True, _quoted),
)
