"""JSON Lines: an object a line. Plain schemas go through Arrow's own parser, a block at a time; whatever that does not
take whole, and every other schema, goes line by line through `values.py`, which says what JSON means.
"""

from __future__ import annotations

import decimal
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from headrace.codec import AvroSchema
from headrace.codec.types import MISSING, Field
from headrace.ingest.columns import Column, assemble, from_text
from headrace.ingest.piece import Bad, Piece
from headrace.ingest.text import Cut
from headrace.ingest.values import Misfit, row

READ_AS = {"boolean": pa.bool_(), "int": pa.int64(), "long": pa.int64(), "float": pa.float64(),
           "double": pa.float64(), "string": pa.string(), "date": pa.string(),
           **{f"{local}timestamp-{unit}": pa.string() for local in ("", "local-") for unit in ("millis", "micros")}}
"""What Arrow's parser reads a field as; a schema with other types goes line by line."""
OPEN, CLOSE = 123, 125  # { and }


def converter(schema: AvroSchema) -> Callable[[Cut], Piece]:
    """What turns cut lines into rows of `schema`."""
    plain = _read_as(schema)
    exact = any(t.logical == "decimal" for t in schema.type.walk())
    decoder = json.JSONDecoder(parse_float=decimal.Decimal) if exact else json.JSONDecoder()

    def convert(cut: Cut) -> Piece:
        rows = _in_bulk(schema, plain, cut) if plain is not None and len(cut) else None
        if rows is not None:
            return Piece(rows, cut.lines, cut.raw, cut.bad, {"byte": cut.byte, "line": cut.line})
        return _line_by_line(schema, decoder, cut)

    return convert


def _read_as(schema: AvroSchema) -> pa.Schema | None:
    fields = []
    for one in schema.type.fields:
        types = one.type.some or (one.type,)
        read = READ_AS.get(types[0].logical or types[0].kind) if len(types) == 1 else None
        if read is None:
            return None
        fields.append(pa.field(one.name, read))
    return pa.schema(fields)


def _in_bulk(schema: AvroSchema, read_as: pa.Schema, cut: Cut) -> pa.RecordBatch | None:
    """Rows where every line is one, in the one way there is to read it; else None."""
    buffer = np.frombuffer(cut.data, dtype=np.uint8)
    if not ((buffer[cut.starts] == OPEN).all() and (buffer[cut.ends - 1] == CLOSE).all()):
        return None
    block = cut.block()
    try:
        table = pa.json.read_json(
            io.BytesIO(block), read_options=pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pa.json.ParseOptions(explicit_schema=read_as, unexpected_field_behavior="error"))
    except pa.ArrowInvalid:
        return None
    if table.num_rows != len(cut):
        return None

    def column(one: Field) -> Column:
        values = table.column(one.name).combine_chunks()
        if isinstance(values, pa.ChunkedArray):
            values = pa.concat_arrays(values.chunks)
        if values.null_count and one.default is not MISSING and one.default is not None:
            raise pa.ArrowInvalid("absent, which is the default, or null?")
        if pa.types.is_string(values.type) and not pa.types.is_string(one.type.arrow):
            if pc.any(pc.match_substring_regex(values, r"^\s|\s$|^[+-]?\d+$")).as_py():
                raise pa.ArrowInvalid("what text may have in CSV, and not in JSON")
            return from_text(one, values, pa.array([], pa.string()))
        return Column(pc.cast(values, one.type.arrow))

    try:
        rows, _, reasons = assemble(schema, len(cut), column)
    except pa.ArrowInvalid:
        return None
    return None if reasons else rows


def _line_by_line(schema: AvroSchema, decoder: json.JSONDecoder, cut: Cut) -> Piece:
    made: list[dict[str, Any]] = []
    kept: list[int] = []
    bad = list(cut.bad)
    for i, raw in enumerate(cut.raws()):
        try:
            made.append(row(schema.type.fields, decoder.decode(raw.decode().strip())))
            kept.append(i)
        except json.JSONDecodeError as error:
            bad.append(Bad(int(cut.lines[i]), raw, (f"not JSON: {error.msg} at character {error.pos + 1}",)))
        except UnicodeDecodeError as error:
            bad.append(Bad(int(cut.lines[i]), raw, (f"not UTF-8: byte {error.start + 1}",)))
        except (Misfit, RecursionError) as error:
            bad.append(Bad(int(cut.lines[i]), raw, (str(error),)))
        except ValueError as error:  # e.g. more digits than Python will read
            bad.append(Bad(int(cut.lines[i]), raw, (f"not JSON that can be read: {error}",)))
    arrays = [pa.array([one[f.name] for one in made], f.type.arrow) for f in schema.type.fields]
    index = np.array(kept, dtype=np.int64)
    return Piece(pa.RecordBatch.from_arrays(arrays, schema=schema.arrow), cut.lines[index],
                 lambda i: cut.raw(kept[i]), tuple(bad), {"byte": cut.byte, "line": cut.line})
