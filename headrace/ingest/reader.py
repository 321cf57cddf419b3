"""Opening a file, or a stream, in the format it is in."""

from __future__ import annotations

import csv as csv_module
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from headrace.codec import AvroSchema
from headrace.errors import UserError
from headrace.ingest import csv, jsonl
from headrace.ingest.columns import check_columns
from headrace.ingest.piece import Options, Piece, Position, Reader
from headrace.ingest.text import BOM, RECORD_BYTES_MAX, Cut, Cutter, record_pattern

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
           ".parquet": "parquet", ".pq": "parquet", ".avro": "avro"}
"""Suffix → format."""


def format_of(path: Path) -> str:
    """By suffix. Raises UserError."""
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise UserError(f"{path}: what format is “{path.suffix}”?", hint=f"known are {', '.join(FORMATS)}; else "
                        "say the format: csv, jsonl, parquet or avro")
    return found


class Text:
    """A Reader of CSV or JSON Lines. The size of a file that grows is asked anew; a stream has none."""

    def __init__(self, cutter: Cutter, convert: Callable[[Cut], Piece], stream: BinaryIO, path: Path | None,
                 unused: Sequence[str]) -> None:
        self.cutter, self.convert, self.stream, self.path, self.unused = cutter, convert, stream, path, unused

    def read(self, records_max: int) -> Piece | None:
        cut = self.cutter.next(records_max)
        if cut is not None:
            return self.convert(cut)
        if self.path is not None and self.cutter.grows:
            if not self.path.is_file():
                raise UserError(f"{self.path} is gone, and was read up to byte {self.cutter.byte:,}")
            if self.path.stat().st_size < self.cutter.byte:
                raise _shrunk(self.path, self.cutter.byte)
        return None

    def share(self) -> float:
        size = self.path.stat().st_size if self.path else 0
        return min(1.0, self.cutter.byte / size) if size else 0.0

    def close(self) -> None:
        if self.path is not None:
            self.stream.close()


def open_reader(path: Path, schema: AvroSchema, *, format: str | None = None, options: Options | None = None,
                position: Position | None = None, grows: bool = False) -> Reader:
    """A reader of a file, from `position` on. With `grows` None means “nothing yet”, and an unfinished last line waits.

    Raises UserError (no such file, unknown format, shorter than `position`), SchemaError (a column is missing).
    """
    kind = format or format_of(path)
    options = options or Options("\t" if path.suffix.lower() == ".tsv" else ",")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if kind == "parquet":
        from headrace.ingest.columnar import Parquet

        return Parquet(path, schema, position)
    if kind == "avro":
        from headrace.ingest.columnar import Avro

        return Avro(path, schema, position)
    if position and path.stat().st_size < position.get("byte", 0):
        raise _shrunk(path, position["byte"])
    stream = path.open("rb")
    try:
        return _text(stream, schema, kind, options, path, position, grows)
    except BaseException:
        stream.close()
        raise


def open_stream(stream: BinaryIO, schema: AvroSchema, *, format: str = "jsonl",
                options: Options | None = None) -> Reader:
    """A reader of text that comes through a pipe or from the keyboard. Raises UserError."""
    if format not in ("csv", "jsonl"):
        raise UserError(f"{format} cannot be read from a pipe", hint="give the file by its name")
    return _text(stream, schema, format, options or Options(), None, None, False)


def _text(stream: BinaryIO, schema: AvroSchema, kind: str, options: Options, path: Path | None,
          position: Position | None, grows: bool) -> Text:
    where = str(path or "standard input")
    byte, line = 0, 1
    unused: list[str] = []
    if kind == "jsonl":
        convert = jsonl.converter(schema)
        if path is not None and stream.read(3) == BOM:
            byte = 3
    else:
        header = stream.readline(RECORD_BYTES_MAX)
        byte, line = len(header), 2
        try:
            names = csv.names_of(header.removeprefix(BOM).rstrip(b"\r\n"), options.delimiter)
        except (UnicodeDecodeError, csv_module.Error) as error:
            raise UserError(f"{where}:1: the header is not CSV in UTF-8: {error}") from error
        if not names or len(set(names)) < len(names):
            twice = sorted({n for n in names if names.count(n) > 1})
            raise UserError(f"{where}:1: " + (f"column {', '.join(twice)} twice" if twice else "no header"))
        check_columns(schema, names, f"{where}:1")
        convert = csv.converter(schema, names, options)
        unused = [name for name in names if name not in schema.arrow.names]
    if position:
        byte, line = position["byte"], position["line"]
        stream.seek(max(0, byte - 1))
        if byte and stream.read(1) != b"\n" and stream.read(1):
            raise UserError(f"{where}:{line}: this line had no end yet when it was read, and goes on now",
                            hint="use tail=true for a file that is still written; --reset begins at its start")
    if path is not None:
        stream.seek(byte)
    pattern = record_pattern(options.delimiter) if kind == "csv" else None
    return Text(Cutter(stream, byte=byte, line=line, pattern=pattern, grows=grows), convert, stream, path, unused)


def _shrunk(path: Path, byte: int) -> UserError:
    return UserError(f"{path} has {path.stat().st_size:,} bytes, and {byte:,} were read before: it is another file now",
                     hint="--reset begins at its start")
