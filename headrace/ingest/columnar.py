"""Parquet and Avro container files: typed records, positions are record numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace.codec import AvroSchema, Decoder
from headrace.codec.container import FRAME, open_container
from headrace.codec.types import Field
from headrace.errors import SchemaError, UserError
from headrace.ingest.columns import Column, assemble, check_columns, from_arrow
from headrace.ingest.piece import Bad, Piece, Position


class Parquet:
    """A Reader of a Parquet file."""

    def __init__(self, path: Path, schema: AvroSchema, position: Position | None) -> None:
        import pyarrow.parquet as pq

        try:
            self.file = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise UserError(f"{path} is not a Parquet file: {error}") from error
        names = self.file.schema_arrow.names
        try:
            check_columns(schema, names, str(path))
        except SchemaError:
            self.file.close()
            raise
        self.schema, self.total, self.record = schema, self.file.metadata.num_rows, (position or {}).get("record", 0)
        if self.record > self.total:
            raise UserError(f"{path} has {self.total:,} records, and {self.record:,} were read before: it is another "
                            "file", hint="--reset begins at its start")
        self._batches = self._from(self.record, [n for n in names if n in schema.arrow.names])
        self._left: pa.RecordBatch | None = None
        self.unused = [name for name in names if name not in schema.arrow.names]

    def _from(self, skip: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        for group in range(self.file.num_row_groups):
            rows = self.file.metadata.row_group(group).num_rows
            if skip >= rows:
                skip -= rows
                continue
            for batch in self.file.iter_batches(row_groups=[group], columns=columns):
                if skip < len(batch):
                    yield batch.slice(skip)
                skip = max(0, skip - len(batch))

    def read(self, records_max: int) -> Piece | None:
        batch = self._left if self._left is not None else next(self._batches, None)
        if batch is None:
            return None
        rows, self._left = batch.slice(0, records_max), batch.slice(records_max) if len(batch) > records_max else None
        numbers = np.arange(self.record + 1, self.record + 1 + len(rows))
        self.record += len(rows)

        def column(one: Field) -> Column | None:
            return from_arrow(one, rows.column(one.name)) if one.name in rows.schema.names else None

        made, kept, reasons = assemble(self.schema, len(rows), column)
        bad = tuple(Bad(int(numbers[i]), _as_json(rows, i), tuple(why)) for i, why in sorted(reasons.items()))
        of_row = np.arange(len(rows)) if kept is None else kept
        return Piece(made, numbers[of_row], lambda i: _as_json(rows, int(of_row[i])), bad, {"record": self.record})

    def share(self) -> float:
        return self.record / self.total if self.total else 1.0

    def close(self) -> None:
        self.file.close()


class Avro:
    """A Reader of an Avro container. Records are resolved to the schema as Avro says: names, aliases, promotions."""

    unused = ()

    def __init__(self, path: Path, schema: AvroSchema, position: Position | None) -> None:
        self.container = open_container(path, schema)
        self.record = (position or {}).get("record", 0)
        self.decoder = Decoder(schema, lambda _: self.container.schema)
        self._payloads = self.container.payloads(self.record)
        self._left: list[bytes] = []

    def read(self, records_max: int) -> Piece | None:
        while not self._left:
            block = next(self._payloads, None)
            if block is None:
                return None
            self._left = block
        taken, self._left = self._left[:records_max], self._left[records_max:]
        first = self.record + 1
        self.record += len(taken)
        decoded = self.decoder.decode(taken)
        index = np.arange(len(taken)) if decoded.index is None else decoded.index
        bad = tuple(Bad(first + i, taken[i].removeprefix(FRAME), (why,)) for i, why in decoded.rejects)
        return Piece(decoded.rows, index + first, lambda i: _as_json(decoded.rows, i), bad, {"record": self.record})

    def share(self) -> float:
        return self.container.share()

    def close(self) -> None:
        self.container.stream.close()


def _as_json(rows: pa.RecordBatch, i: int) -> bytes:
    """One record, to show and to keep."""
    return json.dumps(rows.slice(i, 1).to_pylist()[0], default=str, ensure_ascii=False).encode()
