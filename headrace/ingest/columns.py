"""Whole columns turned into the Arrow types of a schema's fields, and put together as rows.

Values are cast in bulk. Only where a bulk cast fails is the column halved, over its distinct values, until the values
at fault stand alone: those rows are told apart with a reason, their neighbours go on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.batch import Index
from headrace.codec import AvroSchema
from headrace.codec.types import MISSING, Field, Type, default_array
from headrace.errors import SchemaError
from headrace.ingest.values import Misfit, article, of
from headrace.marked import nearest

ZONE = r"(?i)(z|[+-]\d\d(:?\d\d)?)$"
SHOWN_CHARS = 80


@dataclass(slots=True)
class Column:
    """A field's values, and the rows that have none: row → reason (their value is null)."""

    values: pa.Array
    misfits: Mapping[int, str] = field(default_factory=dict)


def check_columns(schema: AvroSchema, names: Sequence[str], where: str, *, extra: str | None = None) -> None:
    """Raises SchemaError for fields that a file lacks and that have neither null nor a default, and, when `extra`
    says what to do, for columns that the schema lacks."""
    fields = {f.name: f for f in schema.type.fields}
    lacking = [f for f in fields if f not in names and fields[f].default is MISSING and not fields[f].type.nullable]
    if lacking:
        raise SchemaError(f"{where}: there is no column “{lacking[0]}”{nearest(lacking[0], names)}",
                          hint=f"{schema} needs {', '.join(lacking)}: no null and no default there")
    if extra and (unknown := [n for n in names if n not in fields]):
        raise SchemaError(f"{where}: {schema} has no field “{unknown[0]}”{nearest(unknown[0], fields)}", hint=extra)


def assemble(schema: AvroSchema, count: int, column_of: Callable[[Field], Column | None],
             ) -> tuple[pa.RecordBatch, Index | None, dict[int, list[str]]]:
    """Rows of schema.arrow; the index of those kept (None for all); the reasons of the others by row.

    A field whose `column_of` is None is filled with its default, or null.
    """
    reasons: dict[int, list[str]] = {}
    arrays = []
    for one in schema.type.fields:
        column = column_of(one)
        if column is None:
            arrays.append(_filled(one, count))
            continue
        arrays.append(column.values)
        for row, reason in column.misfits.items():
            reasons.setdefault(row, []).append(reason)
        if column.values.null_count and not one.type.nullable:
            for row in np.flatnonzero(column.values.is_null().to_numpy(zero_copy_only=False)).tolist():
                if row not in column.misfits:
                    reasons.setdefault(row, []).append(f"{one.name}: null, where the schema has no null")
    rows = pa.RecordBatch.from_arrays(arrays, schema=schema.arrow) if arrays else _no_columns(schema, count)
    if not reasons:
        return rows, None, reasons
    good = np.ones(count, dtype=bool)
    good[list(reasons)] = False
    kept = np.flatnonzero(good)
    return rows.take(pa.array(kept)), kept, reasons


def _no_columns(schema: AvroSchema, count: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([])))


def _filled(one: Field, count: int) -> pa.Array:
    if one.default is MISSING:
        return pa.nulls(count, one.type.arrow)
    return default_array(one.type, one.default).take(pa.array(np.zeros(count, dtype=np.int64)))


def from_text(one: Field, texts: pa.Array, nulls: pa.Array) -> Column:
    """A column of text, e.g. of a CSV file, as values of the field. `nulls` are the texts that mean null.

    Numbers, dates and times may have spaces around them. What is nested, or a general union, is JSON in its cell.
    """
    type_ = one.type
    if type_.nullable:
        texts = pc.if_else(pc.is_in(texts, nulls), pa.scalar(None, pa.string()), texts)
        if type_.kind == "union" and len(type_.some) == 1:
            type_ = type_.some[0]
    bulk = _BULK.get(type_.logical or type_.kind)
    return cast(one, type_, texts, bulk or (lambda t, _: t), _singly)


def cast(one: Field, type_: Type, values: pa.Array, prepare: Callable[[pa.Array, Type], pa.Array],
         single: Callable[[Type, Any, str], Any]) -> Column:
    """`prepare`, then a safe Arrow cast to the field's type; when either fails, the distinct values one by one."""
    if prepare is not _never:
        try:
            return Column(pc.cast(prepare(values, type_), type_.arrow))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass
    try:
        coded = values.dictionary_encode()
        distinct, codes = coded.dictionary, coded.indices
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # nested values have no dictionary
        distinct, codes = values, None
    made: list[Any] = []
    faults: dict[int, str] = {}
    for at, value in enumerate(distinct):
        try:
            made.append(single(type_, value, one.name) if value.is_valid else None)
        except Misfit as misfit:
            made.append(None)
            faults[at] = str(misfit)
    array = pa.array(made, type_.arrow)
    if codes is None:
        return Column(array, faults)
    at_fault = np.isin(codes.fill_null(-1).to_numpy(zero_copy_only=False), list(faults))
    rows = np.flatnonzero(at_fault).tolist()
    return Column(array.take(codes), {row: faults[codes[row].as_py()] for row in rows})


def _never(texts: pa.Array, type_: Type) -> pa.Array:
    raise AssertionError


def _plain(texts: pa.Array, type_: Type) -> pa.Array:
    return texts


def _number(texts: pa.Array, type_: Type) -> pa.Array:
    if pc.any(pc.match_substring(texts, "x")).as_py() or pc.any(pc.match_substring(texts, "X")).as_py():
        raise pa.ArrowInvalid("hexadecimal digits, which Arrow would take")
    return texts


def _timestamp(texts: pa.Array, type_: Type) -> pa.Array:
    """Text without a zone is UTC; Arrow wants it said."""
    if type_.arrow.tz is None or pc.all(pc.ends_with(texts, "Z")).as_py():
        return texts
    zoned = pc.match_substring_regex(pc.utf8_slice_codeunits(texts, 11), ZONE)
    whole = pc.if_else(pc.equal(pc.utf8_length(texts), 10), pc.binary_join_element_wise(texts, "T00:00:00", ""), texts)
    return pc.if_else(zoned, texts, pc.binary_join_element_wise(whole, "Z", ""))


_BULK: Mapping[str, Callable[[pa.Array, Type], pa.Array]] = {
    "boolean": _never, "bytes": _never, "fixed": _never, "enum": _never, "uuid": _never, "duration": _never,
    "array": _never, "map": _never, "record": _never, "union": _never, "null": _never,
    "time-millis": _never, "time-micros": _never, "decimal": _never,
    "string": _plain, "int": _number, "long": _number, "float": _plain, "double": _plain, "date": _plain,
    **{f"{local}timestamp-{unit}": _timestamp for local in ("", "local-") for unit in ("millis", "micros", "nanos")},
}
"""How a column of text is made ready for Arrow's own cast; `_never` where Arrow's reading of text is not Avro's."""


def _singly(type_: Type, cell: pa.Scalar, path: str) -> Any:
    """One cell of text as a value. Raises Misfit."""
    kind, logical, text = type_.kind, type_.logical, cell.as_py()
    if logical in (None, "uuid") and kind in ("string", "enum", "bytes", "fixed"):
        return of(type_, text, path)
    bare = text.strip()
    value: Any = bare
    if kind == "boolean":
        value = {"true": True, "false": False, "1": True, "0": False}.get(bare.lower(), bare)
    elif logical == "decimal":
        value = bare
    elif kind in ("int", "long", "float", "double") and not (logical and not _integral(bare)):
        value = _parsed(bare, float if kind in ("float", "double") else _whole)
    elif kind in ("array", "map", "record", "union", "null") or logical == "duration":
        value = _parsed(bare, json.loads)
    if value is bare and logical is None and kind not in ("union",):
        raise Misfit(f"{path}: “{text[:SHOWN_CHARS]}” is not {article(type_)}")
    try:
        return of(type_, value, path)
    except Misfit as misfit:
        if isinstance(value, str | int | float):
            raise Misfit(f"{path}: “{text[:SHOWN_CHARS]}” is not {article(type_)}") from misfit
        raise


def _integral(text: str) -> bool:
    return text.lstrip("+-").isdigit() and text.isascii()


def _whole(text: str) -> int:
    """“517”, “+517” and “517.0”."""
    head, _, tail = text.partition(".")
    if not _integral(head) or tail.strip("0"):
        raise ValueError
    return int(head)


def _parsed(text: str, parse: Callable[[str], Any]) -> Any:
    if "_" in text and parse is not json.loads:
        return text  # Python's digits groups are nobody else's
    try:
        return parse(text)
    except ValueError:
        return text


def from_arrow(one: Field, values: pa.Array) -> Column:
    """A typed column, e.g. of a Parquet file, as values of the field; text is read as in CSV, with null as null."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    type_ = one.type.some[0] if one.type.kind == "union" and len(one.type.some) == 1 else one.type
    if values.type == type_.arrow:
        return Column(values)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
        return from_text(one, pc.cast(values, pa.string()), pa.array([], pa.string()))
    if pa.types.is_timestamp(values.type) and pa.types.is_timestamp(type_.arrow) and values.type.tz is None and \
            type_.arrow.tz is not None:
        values = pc.assume_timezone(values, "UTC")
    if pa.types.is_null(values.type):
        return Column(pa.nulls(len(values), type_.arrow))
    return cast(one, type_, values, _plain, _arrow_singly)


def _arrow_singly(type_: Type, value: pa.Scalar, path: str) -> Any:
    """One typed value that Arrow would not cast in bulk. Raises Misfit."""
    try:
        return pc.cast(value, type_.arrow).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, OverflowError):
        raise Misfit(f"{path}: {str(value)[:SHOWN_CHARS]} is not {article(type_)}") from None
