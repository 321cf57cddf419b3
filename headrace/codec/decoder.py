"""From Kafka values to Arrow rows: Confluent's framing, the writer's schema by id, and the verdict on each record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.batch import Index
from headrace.codec.decode import Compiler, Incompatible
from headrace.codec.schema import AvroSchema
from headrace.codec.wire import FAULTS, OWN_FAULTS, PAD, TRAILING, TRUNCATED, Bool, Payloads
from headrace.errors import SchemaError, UserError

HEADER_BYTES = 5
"""A zero byte, and the schema's id in four bytes, big-endian."""

Rejects = list[tuple[int, str]]


class UnknownSchema(UserError):
    """The registry does not know this id, and says so: its records are rejects. (Unreachable is another thing.)"""

    def __init__(self, schema_id: int) -> None:
        super().__init__(f"the registry has no schema {schema_id}")
        self.schema_id = schema_id


@dataclass(frozen=True)
class Decoded:
    """`rows` in input order; `index`: their positions in the input, None when all were accepted; `rejects`:
    (position, "<id>: why") for the others, in order of position; `groups`: (writer's schema id, positions of its
    records, None for all), of all that were framed."""

    rows: pa.RecordBatch
    index: Index | None = None
    rejects: Rejects = field(default_factory=list)
    groups: Sequence[tuple[int, Index | None]] = ()


class Decoder:
    """Reads values written with any schema of a subject as rows of `reader`.

    `writers(id)` gives the schema of an id. It raises UnknownSchema when there is none, and RegistryError or Retriable
    when it cannot tell, which `decode` lets through: these records must wait.
    """

    def __init__(self, reader: AvroSchema, writers: Callable[[int], AvroSchema]) -> None:
        self.reader = reader
        self.writers = writers
        self._plans: dict[int, Plan | str] = {}

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """All that can be read, as rows; a reason for each of the others. Raises only what `writers` raises."""
        n = len(values)
        if not n:
            return Decoded(_no_rows(self.reader))
        packed = pa.array([*values, bytes(PAD)], pa.binary())
        assert isinstance(packed, pa.Array), "a batch of 2 GiB: poll fewer records"
        offsets = np.frombuffer(packed.buffers()[1], np.int32, n + 2)
        start, end = offsets[:n].astype(np.int64), offsets[1:n + 1].astype(np.int64)
        data = packed.buffers()[2]
        rejects = _unframed(packed, start, end, n)
        if rejects:
            framed = np.ones(n, np.bool_)
            framed[[at for at, _ in rejects]] = False
            which = np.flatnonzero(framed)
        else:
            which = None
        return self._by_schema(data, start, end, which, rejects)

    def _by_schema(self, data: pa.Buffer, start: Index, end: Index, which: Index | None, rejects: Rejects) -> Decoded:
        """Group the framed records by schema id; one id in the whole batch is the usual case and costs nothing."""
        inside = start if which is None else start[which]
        if not len(inside):
            return Decoded(_no_rows(self.reader), np.zeros(0, np.int64), rejects)
        buf = np.frombuffer(data, np.uint8)
        ids = np.ndarray((buf.size - 3,), ">u4", data, 0, (1,))[inside + 1]
        if (ids == ids[0]).all():
            groups = [(int(ids[0]), which)]
        else:
            which = np.arange(len(start)) if which is None else which
            groups = [(int(i), which[ids == i]) for i in np.unique(ids)]
        parts = [self._read(schema_id, data, start, end, rows) for schema_id, rows in groups]
        rejects = sorted([*rejects, *(r for part in parts for r in part.rejects)])
        if len(parts) == 1:
            return Decoded(parts[0].rows, parts[0].index, rejects, groups)
        index = np.concatenate([p.index if p.index is not None else np.arange(len(start)) for p in parts])
        order = np.argsort(index, kind="stable")
        together = pa.concat_batches([p.rows for p in parts]).take(pa.array(order))
        return Decoded(together, index[order] if len(index) < len(start) else None, rejects, groups)

    def _read(self, schema_id: int, data: pa.Buffer, start: Index, end: Index, which: Index | None) -> Decoded:
        """The records at `which` (None: all), which one schema wrote."""
        plan = self._plan(schema_id)
        if isinstance(plan, str):
            positions = range(len(start)) if which is None else which.tolist()
            return Decoded(_no_rows(self.reader), np.zeros(0, np.int64), [(i, plan) for i in positions])
        if which is not None:
            start, end = start[which], end[which]
        rows, good, reasons = plan.read(data, start + HEADER_BYTES, end)
        if good is None:
            return Decoded(rows, which)
        positions = np.arange(len(start)) if which is None else which
        return Decoded(rows, positions[good], list(zip(positions[~good].tolist(), reasons, strict=True)))

    def _plan(self, schema_id: int) -> Plan | str:
        """How to read an id's records, or why they are rejects. Unknown ids are asked for again: they may come."""
        if schema_id not in self._plans:
            try:
                writer = self.writers(schema_id)
            except UnknownSchema as error:
                return f"unknown_schema: {error.what}"
            except SchemaError as error:
                self._plans[schema_id] = f"incompatible_schema: {error.what}"
                return self._plans[schema_id]
            try:
                self._plans[schema_id] = Plan(writer, self.reader)
            except Incompatible as error:
                self._plans[schema_id] = f"incompatible_schema: schema {schema_id}: {error}"
        return self._plans[schema_id]


class Plan:
    """How records of one writer's schema are read as rows of the reader's. Raises Incompatible."""

    def __init__(self, writer: AvroSchema, reader: AvroSchema) -> None:
        compiler = Compiler()
        self._schema = reader.arrow
        self._run = compiler.read(writer.type, reader.type)
        self._texts = compiler.texts

    def read(self, data: pa.Buffer, start: Index, end: Index) -> tuple[pa.RecordBatch, Bool | None, list[str]]:
        """The rows that are whole; which these are (None: all); and the reasons of the others, in order."""
        p = Payloads(data, data.size - PAD, end)
        column, after = self._run(p, start, None)
        assert column is not None
        p.mark(after > end, None, TRUNCATED)
        p.mark(after < end, None, TRAILING)
        rows = pa.RecordBatch.from_struct_array(column)
        if not p.fault.any():
            return rows, None, []
        good = p.fault == 0
        return rows.filter(pa.array(good)), good, [self._reason(f) for f in p.fault[~good].tolist()]

    def _reason(self, fault: int) -> str:
        return FAULTS[fault] if fault < OWN_FAULTS else self._texts[fault - OWN_FAULTS]


def _no_rows(schema: AvroSchema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema.arrow], schema=schema.arrow)


def _unframed(packed: pa.Array, start: Index, end: Index, n: int) -> Rejects:
    """Values that are null, too short for a header, or begin with another byte than zero."""
    size = end - start
    magic = np.frombuffer(packed.buffers()[2], np.uint8)[start]
    wrong = (size < HEADER_BYTES) | (magic != 0)
    if not wrong.any():
        return []
    null = pc.is_null(packed).to_numpy(zero_copy_only=False)
    return [(i, "null_value: the record has no value" if null[i] else _frame_fault(int(size[i]), int(magic[i])))
            for i in np.flatnonzero(wrong).tolist()]


def _frame_fault(size: int, magic: int) -> str:
    if size and magic:
        return f"wrong_magic: the first byte is {magic}, not 0: not written with a schema registry's serializer"
    return f"truncated_header: {size} bytes, fewer than the {HEADER_BYTES} of magic byte and schema id"
