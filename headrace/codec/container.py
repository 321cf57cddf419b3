"""Avro object container files: the payloads of their records, one by one, and the schema they were written with; and
files of our own rows.

A container holds records without their lengths, so each is read once to find where it ends; the values are then read
by our own decoder, like any other payload.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import fastavro
import pyarrow as pa

from headrace.codec.decoder import Plan
from headrace.codec.schema import AvroSchema, parse
from headrace.errors import SchemaError, UserError

UNCOMPRESSED_BYTES_MAX = 256 << 20
FRAME = b"\0\0\0\0\0"
"""Schema id 0: the container's own schema, to a Decoder."""


@dataclass(slots=True)
class Container:
    """An open container. `schema` is its writer's."""

    path: Path
    stream: BinaryIO
    size: int
    schema: AvroSchema
    _blocks: Any

    def payloads(self, skip: int = 0) -> Iterator[list[bytes]]:
        """A block's records at a time, each framed with schema id 0, from record `skip` (from 0) on.

        Raises UserError for a damaged block, naming the first record in it.
        """
        parsed = fastavro.parse_schema(self.schema.json)
        at = 0
        while True:
            try:
                block = next(self._blocks, None)
                if block is None:
                    break
                if at + block.num_records > skip:
                    yield _split(block, parsed)[max(0, skip - at):]
                at += block.num_records
            except (ValueError, EOFError, OSError, IndexError, KeyError, TypeError, StopIteration) as error:
                raise UserError(f"{self.path}: the block that begins with record {at + 1:,} is damaged: {error!r}",
                                hint="what stands before it can be read; was the file written to its end?") from error
        if at < skip:
            raise UserError(f"{self.path} has {at:,} records, and {skip:,} were read before: it is another file",
                            hint="--reset begins at its start")

    def share(self) -> float:
        return self.stream.tell() / self.size if self.size else 1.0


def _split(block: Any, parsed: Any) -> list[bytes]:
    data = block.bytes_
    whole: bytes = data.getvalue()
    if len(whole) > UNCOMPRESSED_BYTES_MAX:
        raise ValueError(f"{len(whole):,} bytes in one block")
    ends = [0]
    for _ in range(block.num_records):
        fastavro.schemaless_reader(data, parsed, None)
        ends.append(data.tell())
    if ends[-1] != len(whole):
        raise ValueError(f"{len(whole) - ends[-1]} bytes after its last record")
    return [FRAME + whole[a:b] for a, b in pairwise(ends)]


def open_container(path: Path, reader: AvroSchema) -> Container:
    """Open a container whose records shall be read as `reader`. Raises UserError, SchemaError when they cannot be."""
    from headrace.codec.decode import Incompatible

    stream = path.open("rb")
    try:
        blocks = fastavro.block_reader(stream)
        schema = parse(blocks.metadata["avro.schema"], where=str(path))
        Plan(schema, reader)
    except Incompatible as error:
        stream.close()
        raise SchemaError(f"{path}: its records cannot be read as {reader}: {error}") from error
    except (ValueError, EOFError, KeyError, StopIteration) as error:
        stream.close()
        raise UserError(f"{path} is not an Avro container file: {error}") from error
    return Container(path, stream, path.stat().st_size, schema, blocks)


def write_container(stream: BinaryIO, schema: AvroSchema, rows: pa.RecordBatch, block_records: int = 10_000) -> None:
    """Rows as a container file, compressed by deflate. Raises SchemaError for a row that the schema cannot hold."""
    from headrace.codec.encoder import Encoder

    framed = Encoder(schema, rows.schema, 0).encode(rows)
    sync = os.urandom(16)
    head = io.BytesIO()
    fastavro.schemaless_writer(head, {"type": "map", "values": "bytes"},
                               {"avro.schema": schema.text.encode(), "avro.codec": b"deflate"})
    stream.write(b"Obj\x01" + head.getvalue() + sync)
    for first in range(0, len(framed), block_records):
        some = framed[first:first + block_records]
        packer = zlib.compressobj(wbits=-15)
        packed = packer.compress(b"".join(value[len(FRAME):] for value in some)) + packer.flush()
        counts = io.BytesIO()
        for number in (len(some), len(packed)):
            fastavro.schemaless_writer(counts, "long", number)
        stream.write(counts.getvalue() + packed + sync)
