"""Records as rows of PostgreSQL tables: what is put, what is deleted, in which order, and as text for COPY."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.batch import Index
from headrace.errors import UserError
from headrace.files.jsontext import TEXT, enclosed, texts
from headrace.pg.common import pg_of, quoted, table_name
from headrace.pg.table import Table, Wanted
from headrace.records import Column, Records

KeyFrom = Literal["none", "record_key", "record_value"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one structure for one table, in the order of the poll. With `delete` they are keys only."""

    table: tuple[str, ...]
    columns: pa.RecordBatch
    key: tuple[str, ...]
    index: Index
    """Each row's place in the poll."""
    delete: bool = False

    def __len__(self) -> int:
        return len(self.index)

    def take(self, at: Index | slice) -> Rows:
        if isinstance(at, slice):
            first, last, _ = at.indices(len(self))
            return replace(self, columns=self.columns.slice(first, last - first), index=self.index[at])
        return replace(self, columns=self.columns.take(pa.array(at)), index=self.index[at])

    def without_nulls(self, table: Table | None) -> Rows:
        """Without columns that are null and nothing else, which schemaless records have, where the table lacks them:
        their type is not known yet."""
        keep = [field.name for field in self.columns.schema
                if not pa.types.is_null(field.type) or (table is not None and table.named(field.name))]
        return self if len(keep) == self.columns.num_columns else replace(self, columns=self.columns.select(keep))


def wanted(groups: Sequence[Rows]) -> dict[str, Wanted]:
    """The columns as a table for all of them would have them: NOT NULL is what every row that is put has."""
    schemas = [rows.columns.schema for rows in groups]
    try:
        merged = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowTypeError:  # the first one's types: texts that the others' values do not fit are refused
        merged = pa.schema({field.name: field for schema in reversed(schemas) for field in schema}.values())
    puts = [rows.columns.schema for rows in groups if not rows.delete]
    return {field.name: Wanted(pg_of(field.type), all(
        field.name in schema.names and not schema.field(field.name).nullable for schema in puts))
        for field in merged}


@dataclass(frozen=True, slots=True)
class Layout:
    """How records become rows: the keys of the sink's Config."""

    table: str
    key_from: KeyFrom
    key_fields: tuple[str, ...]
    deletes: bool

    def rows(self, records: Records) -> tuple[list[Rows], dict[int, str]]:
        """Rows to put and rows to delete; why others cannot be either, by place. Raises UserError."""
        table = table_name(self.table, records.topic)
        reasons: dict[int, str] = {}
        live = pc.is_valid(records.value.values).to_numpy(zero_copy_only=False)
        made = []
        if not live.all():
            dead = records.take(np.flatnonzero(~live))
            records = records.take(np.flatnonzero(live))
            if self.deletes:
                made.append(Rows(table, *self._key(dead.key, dead.topic), dead.index, delete=True))
            else:
                why = "it has no value; delete.enabled=true deletes by such records, the transform Filter drops them"
                reasons |= dict.fromkeys(dead.index.tolist(), why)
        if len(records):
            made.append(self._puts(table, records))
        kept = []
        for rows in made:
            rows, refused = _keyed(rows)
            reasons |= refused
            kept += [rows] if len(rows) else []
        return kept, reasons

    def _puts(self, table: tuple[str, ...], records: Records) -> Rows:
        values = records.rows()
        if self.key_from == "none":
            return Rows(table, values, (), records.index)
        if self.key_from == "record_value":
            missing = [name for name in self.key_fields if name not in values.schema.names]
            if missing:
                raise UserError(f"pk.fields: the records of {records.topic} have no field {', '.join(missing)}",
                                hint=f"they have {', '.join(values.schema.names)}")
            return Rows(table, values, self.key_fields, records.index)
        key, names = self._key(records.key, records.topic)
        others = [name for name in values.schema.names if name not in names]
        whole = pa.RecordBatch.from_arrays(
            [*key.columns, *(values.column(name) for name in others)],
            schema=pa.schema([*key.schema, *(values.schema.field(name) for name in others)]))
        return Rows(table, whole, names, records.index)

    def _key(self, key: Column, topic: str) -> tuple[pa.RecordBatch, tuple[str, ...]]:
        """The record's key as columns. Raises UserError where it has no names."""
        values = key.values
        if not pa.types.is_struct(values.type):
            if len(self.key_fields) != 1:
                raise UserError(f"the keys of {topic} are {values.type}, and have no name",
                                hint="say in pk.fields the one column that takes them")
            kind = pa.field(self.key_fields[0], values.type, nullable=False)
            return pa.RecordBatch.from_arrays([values], schema=pa.schema([kind])), self.key_fields
        names = self.key_fields or tuple(values.type.names)
        missing = [name for name in names if name not in values.type.names]
        if missing or not names:
            raise UserError(f"pk.fields: the keys of {topic} have no field {', '.join(missing)}",
                            hint=f"they have {', '.join(values.type.names) or 'none'}")
        columns = [pc.struct_field(values, [name]) for name in names]  # null where the whole key is
        schema = pa.schema([pa.field(name, values.type.field(name).type, nullable=False) for name in names])
        return pa.RecordBatch.from_arrays(columns, schema=schema), names


def _keyed(rows: Rows) -> tuple[Rows, dict[int, str]]:
    """Without those that have no key, and in the order of the poll."""
    order = np.argsort(rows.index, kind="stable")
    if not np.array_equal(order, np.arange(len(rows))):
        rows = rows.take(order)
    reasons: dict[int, str] = {}
    for name in rows.key:
        null = pc.is_null(rows.columns.column(name)).to_numpy(zero_copy_only=False)
        if null.any():
            reasons |= dict.fromkeys(rows.index[null].tolist(), f"{name}: a key cannot be null")
            rows = rows.take(np.flatnonzero(~null))
    return rows, reasons


def rounds(groups: Sequence[Rows]) -> Iterator[Rows]:
    """Groups in an order that keeps, for each key, the order of the poll; each key at most once in each but the last.

    Records of several structures (or deletes among them) may alternate. What has the same key goes into a later round
    whenever its structure changes; a round has all of a structure's rows at once.
    """
    tables = dict.fromkeys(rows.table for rows in groups)
    for table in tables:
        mine = [rows for rows in groups if rows.table == table]
        if len(mine) == 1 or not mine[0].key:
            yield from mine
            continue
        depths = _depths(mine)
        for depth in range(int(max(found.max() for found in depths)) + 1):
            for rows, found in zip(mine, depths, strict=True):
                chosen = np.flatnonzero(found == depth)
                if len(chosen):
                    yield rows if len(chosen) == len(rows) else rows.take(chosen)


def _depths(groups: Sequence[Rows]) -> list[Index]:
    """For each row, how often the structure changed among the rows of its key before it."""
    keys = [pc.binary_join_element_wise(*(_text(rows.columns.column(name)) for name in rows.key),
                                        pa.scalar("\x1f", TEXT))
            for rows in groups]
    codes = pa.chunked_array(keys).combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    index = np.concatenate([rows.index for rows in groups])
    group = np.concatenate([np.full(len(rows), at) for at, rows in enumerate(groups)])
    order = np.lexsort((index, codes))
    code, of = codes[order], group[order]
    same = np.concatenate([[False], code[1:] == code[:-1]])
    changed = np.concatenate([[False], of[1:] != of[:-1]]) & same
    total = np.cumsum(changed)
    begun = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    depth = np.empty(len(order), np.int64)
    depth[order] = total - total[begun]
    return np.split(depth, np.cumsum([len(rows) for rows in groups])[:-1])


def copy_text(rows: Rows, types: Mapping[str, str], *, numbered: bool) -> bytes:
    """CSV as COPY reads it: null is nothing, an empty text is "". `types` are the table's. The first column of
    `numbered` rows counts them."""
    from pyarrow import csv

    columns = [_cell(rows.columns.column(at), types[name]) for at, name in enumerate(rows.columns.schema.names)]
    numbers = [pa.array(np.arange(len(rows)))] if numbered else []
    out = io.BytesIO()
    names = [str(at) for at in range(len(columns) + len(numbers))]
    csv.write_csv(pa.table([*numbers, *columns], names=names), out, csv.WriteOptions(include_header=False))
    return out.getvalue()


def _cell(values: pa.Array, type_: str) -> pa.Array:
    """A column as something whose CSV text PostgreSQL reads as the same value."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _cell(values.dictionary_decode(), type_)
    if type_.endswith("[]") and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return _array_text(values)
    if pa.types.is_nested(kind):
        return _null_where(texts(values), values)
    if pa.types.is_float32(kind) and type_ == "double precision":
        return values.cast(pa.float64())  # the value it has, not the shortest text that means it
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return _hex(values)
    if pa.types.is_timestamp(kind) and kind.tz:
        return values.cast(pa.timestamp(kind.unit, "UTC"))
    return values


def _array_text(values: pa.Array) -> pa.Array:
    """PostgreSQL's array literal, {1,2,NULL} or {"a","b"}: a backslash in it is of the quotes only, not of \\n."""
    items = pc.list_flatten(values)
    if pa.types.is_nested(items.type):
        raise UserError(f"an array of {items.type} has no column type in PostgreSQL", hint="make the column jsonb")
    bare = pa.types.is_integer(items.type) or pa.types.is_floating(items.type) or pa.types.is_boolean(items.type)
    written = pc.cast(_cell(items, ""), TEXT)
    if not bare:
        for odd in ("\\", '"'):
            written = pc.replace_substring(written, odd, "\\" + odd)
        quote = pa.scalar('"', TEXT)
        written = pc.binary_join_element_wise(quote, written, quote, pa.scalar("", TEXT))
    return enclosed(values, pc.fill_null(written, "NULL"), "{", "}")


def _null_where(made: pa.Array, values: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_valid(values), made, pa.scalar(None, made.type))


def _hex(values: pa.Array) -> pa.Array:
    """bytea's hex text, from the bytes of all values at once."""
    values = pc.cast(values, pa.large_binary())
    _, ends, data = values.buffers()
    at = np.frombuffer(ends, np.int64)[values.offset:values.offset + len(values) + 1]
    raw = bytes(memoryview(data)[at[0]:at[-1]]) if data is not None else b""
    hexed = pa.LargeStringArray.from_buffers(len(values), pa.py_buffer(np.ascontiguousarray(2 * (at - at[0]))),
                                             pa.py_buffer(raw.hex().encode()))
    return _null_where(pc.binary_join_element_wise(pa.scalar("\\x", TEXT), hexed,
                                                   pa.scalar("", TEXT)), values)


def _text(values: pa.Array) -> pa.Array:
    binary: Any = pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)
    return pc.cast(_hex(values) if binary else values, TEXT)


def column_list(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names))
