"""CSV: Arrow's parser cuts a block into cells of text; a block it does not take whole is cut record by record."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv

from headrace.codec import AvroSchema
from headrace.codec.types import Field
from headrace.ingest.columns import Column, assemble, from_text
from headrace.ingest.piece import Bad, Options, Piece
from headrace.ingest.text import Cut


def names_of(header: bytes, delimiter: str) -> list[str]:
    """The column names of a header line. Raises UnicodeDecodeError, csv.Error."""
    return [name.strip() for name in next(csv.reader([header.decode()], delimiter=delimiter), [])]


def converter(schema: AvroSchema, header: Sequence[str], options: Options) -> Callable[[Cut], Piece]:
    """What turns cut records into rows of `schema`; columns the schema has no field for are passed over."""
    wanted = [name for name in header if name in schema.arrow.names]
    nulls = pa.array(options.nulls, pa.string())

    def convert(cut: Cut) -> Piece:
        cells, index, bad = _cells(cut, header, wanted, options.delimiter)

        def column(one: Field) -> Column | None:
            return from_text(one, cells[one.name], nulls) if one.name in cells else None

        rows, kept, reasons = assemble(schema, len(index), column)
        bad += [Bad(int(cut.lines[index[i]]), cut.raw(index[i]), tuple(why)) for i, why in reasons.items()]
        of_row = index if kept is None else index[kept]
        bad = [*cut.bad, *sorted(bad, key=lambda b: b.at)]
        return Piece(rows, cut.lines[of_row], lambda i: cut.raw(of_row[i]), tuple(bad),
                     {"byte": cut.byte, "line": cut.line})

    return convert


def _cells(cut: Cut, header: Sequence[str], wanted: Sequence[str], delimiter: str,
           ) -> tuple[dict[str, pa.Array], np.ndarray, list[Bad]]:
    """Text by column; which records of the cut it is; the others."""
    everything = np.arange(len(cut))
    block = cut.block()
    try:
        table = pa.csv.read_csv(
            io.BytesIO(block), pa.csv.ReadOptions(use_threads=False, block_size=len(block) + 1,
                                                  column_names=list(header)),
            pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=b'"' in block, ignore_empty_lines=False),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), include_columns=list(wanted),
                                  strings_can_be_null=False, null_values=[]))
        if table.num_rows == len(cut) and wanted:
            return {name: _one(table.column(name)) for name in wanted}, everything, []
    except pa.ArrowInvalid:
        pass
    kept, rows, bad = [], [], []
    for i, raw in enumerate(cut.raws()):
        cells, reason = _record(raw, len(header), delimiter)
        if reason:
            bad.append(Bad(int(cut.lines[i]), raw, (reason,)))
        else:
            kept.append(i)
            rows.append(cells)
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    found = {name: pa.array(columns[at], pa.string()) for at, name in enumerate(header) if name in wanted}
    return found, np.array(kept, dtype=np.int64), bad


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _record(raw: bytes, width: int, delimiter: str) -> tuple[list[str], str]:
    """The cells of one record, or why it has none."""
    try:
        lines = csv.reader(io.StringIO(raw.decode(), newline=""), delimiter=delimiter)
        cells = next(lines, [])
        if next(lines, None) is not None:
            return [], "a carriage return outside quotes"
    except UnicodeDecodeError as error:
        return [], f"not UTF-8: byte {error.start + 1}"
    except csv.Error as error:
        return [], f"not CSV: {error}"
    return cells, "" if len(cells) == width else f"{len(cells)} cells where the header has {width}"
