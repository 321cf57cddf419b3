"""From Arrow rows to Kafka values: Confluent's framing around Avro, all records of a batch at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from headrace.batch import Index
from headrace.codec.decoder import HEADER_BYTES, Rejects
from headrace.codec.encode import Compiler, Measure
from headrace.codec.schema import AvroSchema
from headrace.codec.wire import Verdicts
from headrace.codec.wire_write import Out
from headrace.errors import SchemaError


class Encoder:
    """Writes rows of `rows` as records of `schema`; columns that it lacks are dropped, missing ones get their default.

    Raises SchemaError with every reason why such rows do not fit.
    """

    def __init__(self, schema: AvroSchema, rows: pa.Schema, schema_id: int) -> None:
        self.schema = schema
        self.schema_id = schema_id
        self._header = b"\0" + schema_id.to_bytes(4, "big")
        self._plans: list[tuple[pa.Schema, tuple[Measure, list[str]]]] = []
        self._plan(rows)

    def encode(self, rows: pa.RecordBatch) -> list[bytes]:
        """The framed values, one per row. Raises SchemaError for a row that the schema cannot hold."""
        values, _, rejects = self.encode_checked(rows)
        if rejects:
            at, why = rejects[0]
            raise SchemaError(f"row {at} is no {self.schema}: {why}")
        return values

    def encode_checked(self, rows: pa.RecordBatch) -> tuple[list[bytes], Index | None, Rejects]:
        """(values; their positions in `rows`, None for all; (position, "<id>: why") of rows the schema cannot hold)."""
        n = rows.num_rows
        if not n:
            return [], None, []
        measure, texts = self._plan(rows.schema)
        verdicts = Verdicts(n)
        piece = measure(verdicts, rows.to_struct_array(), None)
        end = np.cumsum(np.broadcast_to(np.asarray(piece.size) + HEADER_BYTES, (n,)), dtype=np.int64)
        start = np.concatenate([np.zeros(1, np.int64), end[:-1]])
        out = Out(int(end[-1]))
        for k, byte in enumerate(self._header):
            if byte:
                out.buf[start + k] = byte
        piece.write(out, start + HEADER_BYTES)
        offsets = pa.py_buffer(np.concatenate([start, end[-1:]]))
        values: list[bytes] = pa.Array.from_buffers(
            pa.large_binary(), n, [None, offsets, pa.py_buffer(out.buf)]).to_pylist()
        if not verdicts.fault.any():
            return values, None, []
        good = np.flatnonzero(verdicts.fault == 0)
        rejects = [(i, texts[verdicts.fault[i] - 1]) for i in np.flatnonzero(verdicts.fault).tolist()]
        return [values[i] for i in good.tolist()], good, rejects

    def _plan(self, rows: pa.Schema) -> tuple[Measure, list[str]]:
        """The plan for rows of this schema: a step may turn string into large_string from one batch to the next."""
        for known, plan in self._plans:  # one or two; to compare is quicker than to hash
            if known.equals(rows):
                return plan
        compiler = Compiler()
        measure = compiler.value(pa.struct(list(rows)), self.schema.type, "")
        if compiler.problems:
            raise SchemaError(f"rows cannot be written as {self.schema}: " + "; ".join(compiler.problems))
        self._plans.append((rows, (measure, compiler.texts)))
        return self._plans[-1][1]


def assignable(rows: pa.Schema, target: AvroSchema) -> list[str]:
    """Why rows of this Arrow schema cannot be written as `target`, field by field; [] when they can.

    Extra columns are dropped by name; a missing column takes the field's default, or null where that is allowed;
    integers and floats widen, instants go to finer units. A nullable column may feed a required field: its null rows
    are then rejects.
    """
    compiler = Compiler()
    compiler.value(pa.struct(list(rows.remove_metadata())), target.type, "")
    return compiler.problems
