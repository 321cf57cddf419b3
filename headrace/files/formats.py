"""Records as the bytes of a file: CSV, JSON Lines, text, Parquet, Avro containers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.batch import Index
from headrace.errors import UserError
from headrace.files import jsontext
from headrace.records import Records, Shape, shape_of

SUFFIXES = {"jsonl": ".jsonl", "csv": ".csv", "parquet": ".parquet", "avro": ".avro", "text": ".txt"}
is_ = pa.types


@dataclass(frozen=True, slots=True)
class Lot:
    """Rows that may stand in one file, in the order of their offsets, and the offset behind the last of them."""

    rows: pa.Table
    next: int
    shape: Shape | None
    """Of all of them; None where they have none, or several."""


class Write(Protocol):
    """Writes rows, at least one, as a whole file."""

    def __call__(self, stream: BinaryIO, rows: pa.Table, shape: Shape | None, topic: str) -> None: ...


def text_lines(records: Sequence[Records]) -> bytes:
    """What Java's FileStreamSink writes: each value's toString, in the order of the poll."""
    from headrace.records.converters import converter_of

    converter = converter_of("string", {}, False, None)
    columns = []
    for each in records:
        values, refused = converter.encode(each.topic, each.value)
        assert not refused, f"every value has a text: {refused}"
        columns.append(pa.array([b"null" if value is None else value for value in values], pa.large_binary()))
    return _one_behind_the_other(columns, records)


def json_lines(records: Sequence[Records]) -> bytes:
    """A JSON value a line, in the order of the poll."""
    if len(records) == 1:
        return jsontext.lines(records[0].value.values)
    columns = [jsontext.texts(each.value.values).cast(pa.large_binary()) for each in records]
    return _one_behind_the_other(columns, records)


def _one_behind_the_other(columns: Sequence[pa.Array], records: Sequence[Records]) -> bytes:
    if not columns:
        return b""
    made = pa.concat_arrays(columns)
    if len(columns) > 1:
        made = made.take(pa.array(np.argsort(np.concatenate([each.index for each in records]), kind="stable")))
    return b"\n".join([*made.to_pylist(), b""])


def csv_text(rows: pa.Table, *, header: bool) -> bytes:
    """Lines of cells; records, arrays and maps are JSON in their cells, as the file source reads them."""
    from pyarrow import csv

    cells = pa.table([_cell(column) for column in rows.columns], names=rows.schema.names)
    out = io.BytesIO()
    csv.write_csv(cells, out, csv.WriteOptions(include_header=header))
    return out.getvalue()


def _cell(column: pa.ChunkedArray) -> pa.Array:
    values = column.combine_chunks()
    kind = values.type
    if is_.is_dictionary(kind):
        return _cell(pa.chunked_array([values.dictionary_decode()]))
    if is_.is_nested(kind):
        return pc.if_else(pc.is_valid(values), jsontext.texts(values), pa.scalar(None, jsontext.TEXT))
    if is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_fixed_size_binary(kind):
        return pa.array([None if value is None else value.decode("latin-1") for value in values.to_pylist()])
    if is_.is_timestamp(kind):
        zoned = values.cast(pa.timestamp(kind.unit, "UTC")) if kind.tz else values
        return pc.replace_substring(zoned.cast(pa.string()), " ", "T", max_replacements=1)
    return values


def _csv(stream: BinaryIO, rows: pa.Table, shape: Shape | None, topic: str) -> None:
    stream.write(csv_text(rows, header=True))


def _parquet(stream: BinaryIO, rows: pa.Table, shape: Shape | None, topic: str) -> None:
    from pyarrow import parquet

    parquet.write_table(rows, stream)


def _avro(stream: BinaryIO, rows: pa.Table, shape: Shape | None, topic: str) -> None:
    from headrace.codec.container import write_container
    from headrace.records.converters.avro_schema import avro_of

    kind = pa.struct(list(rows.schema))
    named = shape or shape_of(kind, optional=False, name=re.sub(r"\W", "_", topic))
    whole = rows.combine_chunks().to_batches()
    write_container(stream, avro_of(named.but(optional=False), kind), whole[0])


WRITERS: Mapping[str, Write] = {"csv": _csv, "parquet": _parquet, "avro": _avro}
"""Formats whose files have columns. The others are lines."""


def lots(records: Sequence[Records], end: int) -> Iterator[Lot]:
    """Records of one partition as rows that go together: one lot, unless their structures have the same field with
    types that no one type holds; then one for each stretch of a structure. The last goes up to `end`."""
    pieces = [(each, each.rows()) for each in records if len(each)]
    try:
        yield Lot(_together(pieces), end, pieces[0][0].value.shape if len(pieces) == 1 else None)
        return
    except pa.ArrowTypeError:
        pass
    offsets = np.concatenate([_offsets(each) for each, _ in pieces])
    of = np.concatenate([np.full(len(each), at) for at, (each, _) in enumerate(pieces)])
    place = np.concatenate([np.arange(len(each)) for each, _ in pieces])
    order = np.argsort(offsets, kind="stable")
    cuts = np.flatnonzero(np.diff(of[order])) + 1
    for stretch in np.split(order, cuts):
        each, rows = pieces[int(of[stretch[0]])]
        last = stretch[-1] == order[-1]
        yield Lot(pa.Table.from_batches([rows.take(pa.array(place[stretch]))]),
                  end if last else int(offsets[stretch[-1]]) + 1, each.value.shape)


def _together(pieces: Sequence[tuple[Records, pa.RecordBatch]]) -> pa.Table:
    """In the order of the offsets. Raises ArrowTypeError."""
    tables = [pa.Table.from_batches([rows]) for _, rows in pieces]
    if len(tables) == 1:
        return tables[0]
    merged = pa.concat_tables(tables, promote_options="permissive")
    return merged.take(pa.array(np.argsort(np.concatenate([_offsets(each) for each, _ in pieces]), kind="stable")))


def _offsets(records: Records) -> Index:
    if records.offsets is None:
        raise UserError(f"records of {records.topic} come from no partition")
    return records.offsets
