"""Rows that wait in keyed state: those of one key together as one Avro record, with what sends them on when they leave.

    key  →  {"rows": [{"row": {the row's columns}, "ms", "matched", "offset", "timestamp", "key", "topic", "headers"}]}

The schema they were written with lies beside them, so that a later version of the flow can read them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.batch import SOURCE_HEADER, Batch, Frames, Headers, Meta
from headrace.codec import AvroSchema, Decoder, Encoder, UnknownSchema, from_arrow, parse
from headrace.errors import UserError
from headrace.eventtime import Bools, Ints
from headrace.state import View

ROWS, SCHEMA = b"r", b"s"
FACTS = [pa.field("ms", pa.int64(), False), pa.field("matched", pa.bool_(), False),
         pa.field("offset", pa.int64(), False), pa.field("timestamp", pa.int64(), False),
         pa.field("key", pa.binary()), pa.field("topic", pa.string(), False),
         pa.field("headers", pa.map_(pa.string(), pa.binary()))]
"""`ms` is the event time. `headers` is null where they say no more than the position does."""


class Shelf:
    """Rows of one shape in a view of keyed state."""

    def __init__(self, rows: pa.Schema) -> None:
        """Raises SchemaError for a column that Avro has no type for."""
        self.rows = rows
        item = pa.struct([pa.field("row", pa.struct(list(rows.remove_metadata())), False), *FACTS])
        self.schema = from_arrow(pa.schema([pa.field("rows", pa.list_(pa.field("item", item, False)), False)]),
                                 name="kept")
        entry = self.schema.arrow
        self.item = entry.field("rows").type.value_type  # Avro's types, to which the row's are brought and back
        self.id = zlib.crc32(self.schema.text.encode())
        self._encoder = Encoder(self.schema, entry, self.id)
        self._decoder = Decoder(self.schema, self._writer)
        self._views: Sequence[View] = ()

    def _writer(self, schema_id: int) -> AvroSchema:
        if schema_id == self.id:
            return self.schema
        said = [view.get([SCHEMA + schema_id.to_bytes(4, "big")])[0] for view in self._views]
        text = next(filter(None, said), None)
        if text is None:
            raise UnknownSchema(schema_id)
        return parse(text.decode())

    def get(self, view: View, keys: Sequence[bytes]) -> list[bytes | None]:
        """The entry of each key, None where there is none."""
        return view.get(list(map(ROWS.__add__, keys)))

    def due(self, view: View, now_ms: int, since_ms: int) -> tuple[list[bytes], Ints, pa.StructArray]:
        """Takes out the entries that expire up to `now_ms`: (their keys, which of these each row has, the rows)."""
        gone = view.due(now_ms, since_ms)
        which, items = self.read([value for _, value in gone], [view])
        return [key[len(ROWS):] for key, _ in gone], which, items

    def read(self, entries: Sequence[bytes | None], views: Sequence[View]) -> tuple[Ints, pa.StructArray]:
        """(which of the entries each row is of; the rows, of an entry in the order they were put). `views` are where
        the entries lie. Raises UserError for what another version of the flow wrote and this one cannot read."""
        there = [at for at, value in enumerate(entries) if value is not None]
        if not there:
            return np.zeros(0, np.int64), pa.array([], self.item)
        self._views = views
        decoded = self._decoder.decode([entries[at] for at in there])
        if decoded.rejects:
            raise UserError(f"rows kept by an earlier version of the flow cannot be read: {decoded.rejects[0][1]}",
                            hint="give new columns that may be null, or let the flow begin anew under another name")
        lists = decoded.rows.column(0)
        counts = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
        return np.repeat(np.array(there, np.int64), counts), lists.flatten()

    def encode(self, counts: Ints, items: pa.StructArray) -> list[bytes]:
        """Entries: the first of `counts[0]` rows, and so on."""
        ends = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
        lists = pa.ListArray.from_arrays(ends, items, type=self.schema.arrow.field("rows").type)
        return self._encoder.encode(pa.RecordBatch.from_arrays([lists], schema=self.schema.arrow))

    def put(self, view: View, keys: Sequence[bytes], entries: Sequence[bytes], expire_ms: Sequence[int]) -> None:
        """Set the rows of keys."""
        view.put(list(map(ROWS.__add__, keys)), entries, expire_ms)
        said = SCHEMA + self.id.to_bytes(4, "big")
        if view.get([said])[0] is None:
            view.put([said], [self.schema.text.encode()])

    def delete(self, view: View, keys: Sequence[bytes]) -> None:
        view.delete(list(map(ROWS.__add__, keys)))

    def items(self, batch: Batch, ms: Ints, matched: Bools) -> pa.StructArray:
        """Rows of a batch as they are kept."""
        meta = batch.meta
        plain = type(meta.frames) is Frames and meta.tags is None and not any(meta.source_headers())
        kind = self.item.field("headers").type
        headers = pa.nulls(len(batch), kind) if plain else pa.array(meta.headers(), kind)
        facts = [pa.array(ms), pa.array(matched), pa.array(meta.offsets()), pa.array(meta.timestamps_ms(), pa.int64()),
                 pa.array(meta.keys(), pa.binary()), pa.array(meta.topics(), pa.string()), headers]
        columns = [_as(column, f.type) for column, f in zip(batch.rows.columns, self.item[0].type, strict=True)]
        row = pa.StructArray.from_arrays(columns, fields=list(self.item[0].type))
        return pa.StructArray.from_arrays([row, *facts], fields=list(self.item))

    def marked(self, items: pa.StructArray, matched: Bools) -> pa.StructArray:
        """The same rows, with another say on whether they had a partner."""
        fields = list(self.item)
        columns = [pa.array(matched) if f.name == "matched" else items.field(f.name) for f in fields]
        return pa.StructArray.from_arrays(columns, fields=fields)

    def batch(self, items: pa.StructArray, partitions: Ints) -> Batch:
        """Kept rows as a batch, with the keys, times, headers and positions that they came with."""
        return Batch(self.columns(items), Meta(Kept(items, partitions)))

    def columns(self, items: pa.StructArray) -> pa.RecordBatch:
        """Kept rows as they came in."""
        columns = items.field("row").flatten() if len(items) else [pa.array([], f.type) for f in self.rows]
        return pa.RecordBatch.from_arrays([_as(c, f.type) for c, f in zip(columns, self.rows, strict=True)],
                                          schema=self.rows)


def _as(column: Any, to: pa.DataType) -> Any:
    """What Avro holds in its own types, as the rows have it."""
    return column if column.type == to else pc.cast(column, to)


class Kept(Frames):
    """Frames of rows that were kept. Their payloads were not: a quarantine has nothing to write of them."""

    def __init__(self, items: pa.StructArray, partitions: Ints) -> None:
        super().__init__(())
        self._items = items
        self.values = [None] * len(items)
        self.partitions = partitions.astype(np.int32)
        self.offsets = items.field("offset").to_numpy(zero_copy_only=False)

    def __len__(self) -> int:
        return len(self._items)

    @cached_property
    def keys(self) -> list[bytes | None]:
        found: list[bytes | None] = self._items.field("key").to_pylist()
        return found

    @cached_property
    def topics(self) -> list[str]:
        found: list[str] = self._items.field("topic").to_pylist()
        return found

    @cached_property
    def timestamps_ms(self) -> list[int]:
        found: list[int] = self._items.field("timestamp").to_pylist()
        return found

    @cached_property
    def source_headers(self) -> list[Headers | None]:
        found: list[Headers | None] = self._items.field("headers").to_pylist()
        return found

    @cached_property
    def out_headers(self) -> list[Headers]:
        where = zip(self.source_headers, self.topics, self.partitions.tolist(), self.offsets.tolist(), strict=True)
        return [headers if headers is not None else [(SOURCE_HEADER, partition.to_bytes(4, "big", signed=True)
                                                      + offset.to_bytes(8, "big") + topic.encode())]
                for headers, topic, partition, offset in where]
