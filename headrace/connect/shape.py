"""Rows read from a file as records of a topic: encoded, with key and time. What cannot be a record is told apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.batch import Headers, Index, Outgoing
from headrace.codec import AvroSchema, Encoder
from headrace.connectors.kafka import RECORD_OVERHEAD_BYTES, keys_of
from headrace.errors import UserError
from headrace.ingest import Bad, Piece
from headrace.marked import nearest

NO_HEADERS: Headers = []


@dataclass(slots=True)
class Shape:
    """How the rows of one schema become records of one topic. `bytes_max` is the topic's max.message.bytes."""

    topic: str
    encoder: Encoder
    key: str | None
    timestamp: str | None
    bytes_max: int

    def records(self, piece: Piece) -> tuple[Outgoing, Index, list[Bad]]:
        """What to produce; the line (or number) of each record; all that is bad in the piece, in its order.

        A record without a time has timestamp 0, which the producer reads as now.
        """
        rows, at, bad = piece.rows, piece.at, list(piece.bad)
        values, kept, rejects = self.encoder.encode_checked(rows)
        index = np.arange(rows.num_rows) if kept is None else kept
        bad += [Bad(int(at[i]), piece.raw(i), (reason,)) for i, reason in rejects]
        times = milliseconds(rows.column(self.timestamp)) if self.timestamp else np.zeros(rows.num_rows, np.int64)
        early = f"{self.timestamp}: before 1970, which the time of a Kafka record cannot be"
        faults = dict.fromkeys(np.flatnonzero(times < 0).tolist(), early)
        most = self.bytes_max - RECORD_OVERHEAD_BYTES
        if values and max(map(len, values)) > most:
            faults |= {i: f"{len(value):,} bytes, and max.message.bytes of {self.topic} is {self.bytes_max:,}"
                       for i, value in zip(index.tolist(), values, strict=True) if len(value) > most}
        if faults:
            good = ~np.isin(index, list(faults))
            bad += [Bad(int(at[i]), piece.raw(i), (faults[i],)) for i in index[~good].tolist()]
            values = list(map(values.__getitem__, np.flatnonzero(good).tolist()))
            index = index[good]
        if len(index) < rows.num_rows:
            rows, times = rows.take(pa.array(index)), times[index]
        keys = keys_of(rows, self.key) if self.key else [None] * len(values)
        sent = Outgoing(self.topic, values, keys, times.tolist(), [NO_HEADERS] * len(values))
        return sent, at[index], sorted(bad, key=lambda one: one.at)


def milliseconds(column: pa.Array, nothing: int = 0) -> Index:
    """Milliseconds since 1970 of a column of times; null is `nothing`."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = pc.cast(column, pa.timestamp("ms"), safe=False)
    times: Index = pc.fill_null(pc.cast(column, pa.int64()), nothing).to_numpy(zero_copy_only=False)
    return times


def shape(topic: str, schema: AvroSchema, schema_id: int, key: str | None, timestamp: str | None,
          bytes_max: int) -> Shape:
    """Raises UserError for a key or a time that is no field, or of no fitting type."""
    check_fields(schema, key, timestamp)
    return Shape(topic, Encoder(schema, schema.arrow, schema_id), key, timestamp, bytes_max)


def check_fields(schema: AvroSchema, key: str | None, timestamp: str | None) -> None:
    """Raises UserError when the key or the time is no field of the schema, or of no fitting type."""
    names = schema.arrow.names
    for what, name in (("key", key), ("time", timestamp)):
        if name is not None and name not in names:
            raise UserError(f"{schema} has no field “{name}” to take the {what} from{nearest(name, names)}")
    if timestamp is not None:
        check_time(timestamp, schema.arrow.field(timestamp).type)
    if key is not None and pa.types.is_nested(schema.arrow.field(key).type):
        raise UserError(f"{key} is {schema.arrow.field(key).type}, which is no key", hint="take text or a number")


def check_time(name: str, of: pa.DataType) -> None:
    """Raises UserError when a column is no time."""
    if not (pa.types.is_timestamp(of) or pa.types.is_date(of) or pa.types.is_int64(of)):
        raise UserError(f"{name} is {of}, which is no time",
                        hint="take a timestamp, a date, or a long of milliseconds since 1970")
