"""A file as one batch: the whole of it, or its first records, with the line each row stood on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.batch import Index
from headrace.codec import AvroSchema
from headrace.codec.written import written_with
from headrace.errors import UserError
from headrace.ingest import FORMATS, Bad, Options, Piece, Reader, format_of, open_reader

PIECE_RECORDS = 50_000
UNREAD_MAX = 1_000
"""Unreadable records kept for showing; the others are counted."""
Progress = Callable[[float, int], Any]
"""Called with the share of the file that is read, 0 … 1, and the records so far."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A file about to be read. `schema` is what its rows will have, `unit` what `at` counts: line or record."""

    path: Path
    reader: Reader
    schema: pa.Schema
    unit: str


@dataclass(frozen=True, slots=True)
class Whole:
    """What was read. `at` is the line (text) or the number (Parquet, Avro) of each row, from 1."""

    rows: pa.RecordBatch
    at: Index
    unread: tuple[Bad, ...]
    """The first UNREAD_MAX records that are no row of the schema."""
    unread_count: int

    def numbered(self, failures: pa.Table) -> pa.Table:
        """A report's failures, with the number in the file for `row`."""
        rows = failures["row"].to_numpy()
        return failures.set_column(failures.column_names.index("row"), "row", pa.array(self.at[rows], pa.int64()))


def unit(path: Path, format: str | None = None) -> str:
    """line or record: what a place in the file is counted by. Raises UserError for a format that is not known."""
    if format is not None and format not in FORMATS.values():
        raise UserError(f"--format {format} is not one of csv, jsonl, parquet, avro")
    return "line" if (format or format_of(path)) in ("csv", "jsonl") else "record"


@contextmanager
def opened(path: Path, schema: AvroSchema | None, *, format: str | None = None,
           options: Options | None = None) -> Iterator[Opened]:
    """Opens a file. Without a schema it is read in its own types, which Parquet and Avro have.

    Raises UserError (no such file, unknown format, no schema where one is needed), SchemaError (a column is missing).
    """
    counted, kind = unit(path, format), format or format_of(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if schema is None and counted == "line":
        raise UserError(f"{path}: {'CSV' if kind == 'csv' else 'JSON Lines'} does not say its types, and the suite has "
                        "no schema of its name beside it", hint="name one: --schema NAME or a path to an .avsc")
    with _told(path):
        if schema is None and kind == "parquet":
            own = OwnParquet(path)
            found = Opened(path, own, own.schema, counted)
        else:
            shape = schema or written_with(path)
            found = Opened(path, open_reader(path, shape, format=kind, options=options), shape.arrow, counted)
    try:
        yield found
    finally:
        found.reader.close()


def whole(source: Opened, *, rows_max: int | None = None, progress: Progress | None = None) -> Whole:
    """Reads a file to its end, or its first `rows_max` records, readable or not. It is all in memory then.

    Raises UserError for a file that is damaged, or too large for one batch.
    """
    batches: list[pa.RecordBatch] = []
    numbers: list[Index] = []
    unread: list[Bad] = []
    records = lost = 0
    while rows_max is None or records < rows_max:
        wanted = PIECE_RECORDS if rows_max is None else min(PIECE_RECORDS, rows_max - records)
        with _told(source.path):
            piece = source.reader.read(wanted)
        if piece is None:
            break
        batches.append(piece.rows)
        numbers.append(piece.at)
        unread += piece.bad[:UNREAD_MAX - len(unread)]
        lost += len(piece.bad)
        records += len(piece)
        if progress:
            progress(source.reader.share(), records)
    return Whole(_one(source, batches), np.concatenate([np.zeros(0, np.int64), *numbers]), tuple(unread), lost)


def _one(source: Opened, batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=source.schema)
    try:
        return pa.concat_batches(batches)
    except pa.ArrowInvalid as error:  # 32-bit offsets: 2 GiB of text in a column
        raise UserError(f"{source.path} is too large to be judged as one batch: {error}",
                        hint="judge its first records: --rows N") from error


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the system or Arrow says of a file, as an error of the user's."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


class OwnParquet:
    """A Reader of a Parquet file in the types the file itself has, whatever Avro has for them."""

    unused = ()

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.file = pq.ParquetFile(path)
        written = self.file.schema_arrow
        twice = sorted({n for n in written.names if written.names.count(n) > 1})
        if twice:
            self.file.close()
            raise UserError(f"{path}: column {', '.join(twice)} twice")
        self.schema = pa.schema([pa.field(f.name, _plain(f.type), f.nullable) for f in written])
        """Without the notes of pandas, which would make an index of a column again."""
        self.total, self.record = self.file.metadata.num_rows, 0
        self._batches = self.file.iter_batches(batch_size=PIECE_RECORDS)
        self._left: pa.RecordBatch | None = None

    def read(self, records_max: int) -> Piece | None:
        batch = self._left if self._left is not None else next(self._batches, None)
        if batch is None:
            return None
        taken, self._left = batch.slice(0, records_max), batch.slice(records_max) if len(batch) > records_max else None
        arrays = [_decoded(column) for column in taken.columns]
        numbers = np.arange(self.record + 1, self.record + 1 + len(taken))
        self.record += len(taken)
        rows = pa.RecordBatch.from_arrays(arrays, schema=self.schema) if arrays else taken
        return Piece(rows, numbers, lambda i: str(rows.slice(i, 1).to_pylist()).encode(), (), {"record": self.record})

    def share(self) -> float:
        return self.record / self.total if self.total else 1.0

    def close(self) -> None:
        self.file.close()


def _plain(type_: pa.DataType) -> pa.DataType:
    """The type of the values: without a dictionary, without an extension's name."""
    if pa.types.is_dictionary(type_):
        return _plain(type_.value_type)
    return _plain(type_.storage_type) if isinstance(type_, pa.BaseExtensionType) else type_


def _decoded(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        return _decoded(column.dictionary_decode())
    return _decoded(column.storage) if isinstance(column.type, pa.BaseExtensionType) else column
