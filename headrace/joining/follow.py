"""Where a lookup's rows come from: a file, read again when it changes, or a compacted topic, followed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
from confluent_kafka import KafkaError, TopicPartition

from headrace.codec import AvroSchema, Decoder
from headrace.errors import BrokerError, UserError
from headrace.ingest import format_of, open_reader
from headrace.joining.table import Table
from headrace.peek import POLL_S, SILENCE_S, bounds, gulp, reader
from headrace.registry import Registry
from headrace.settings import Settings

log = logging.getLogger("headrace.lookup")
HEAD_ROWS = 1_000
LOOK_S = 1.0
"""A file is looked at this often."""
NULLS = ["", "NA"]


class FileRows:
    """The rows of a CSV, JSON Lines, Parquet or Avro file: of `schema`, else as the file's head lets them appear."""

    def __init__(self, path: Path, schema: AvroSchema | None) -> None:
        """Raises UserError: no such file, not its format. SchemaError: columns that the schema wants are not there."""
        self.path, self.schema = path, schema
        self._seen: tuple[int, int, int] | None = None
        self._looked = 0.0
        if not path.is_file():
            raise UserError(f"there is no file {path}")
        self._kinds = None if schema else _polars(path, None, HEAD_ROWS).schema
        self.shape = schema.arrow if schema else _arrow(_polars(path, None, HEAD_ROWS)).schema
        if schema:
            _read(path, schema, HEAD_ROWS)

    def fill(self, make: Any) -> Table | None:
        """A table of what the file has now, where that is not what it had; `make` gives an empty one.

        Raises UserError for a file that cannot be read, or has a key twice.
        """
        now = time.monotonic()
        if self._seen and now - self._looked < LOOK_S:
            return None
        self._looked = now
        told = os.stat(self.path)
        seen = (told.st_mtime_ns, told.st_size, told.st_ino)
        if seen == self._seen:
            return None
        self._seen = seen
        rows = _read(self.path, self.schema, None) if self.schema else _arrow(_polars(self.path, self._kinds, None))
        table: Table = make()
        table.put([at.to_bytes(8, "big") for at in range(rows.num_rows)], rows)
        if table.time is None and (twice := table.doubles()):
            said = ", ".join(f"{name} {value}" for name, value in twice.items())
            raise UserError(f"{self.path} has more than one row for {said}",
                            hint="one row a key; or give rows a time, and look up `as_of` it")
        return table


def _read(path: Path, schema: AvroSchema, rows_max: int | None) -> pa.RecordBatch:
    """Rows of a schema. Raises UserError with the line of one that is none."""
    source, parts = open_reader(path, schema), []
    try:
        while (piece := source.read(rows_max or 50_000)) is not None:
            if piece.bad:
                raise UserError(f"{path}:{piece.bad[0].at}: {piece.bad[0].reasons[0]}")
            parts.append(piece.rows)
            if rows_max:
                break
    finally:
        source.close()
    return pa.concat_batches(parts) if parts else pa.RecordBatch.from_pylist([], schema=schema.arrow)


def _polars(path: Path, kinds: Any, rows_max: int | None) -> Any:
    """A file without a schema. Raises UserError."""
    import polars as pl

    kind = format_of(path)
    try:
        match kind:
            case "csv":
                comma = "\t" if path.suffix == ".tsv" else ","
                return pl.read_csv(path, separator=comma, null_values=NULLS, try_parse_dates=True, schema=kinds,
                                   infer_schema_length=HEAD_ROWS, n_rows=rows_max)
            case "jsonl":
                return pl.read_ndjson(path, schema=kinds, infer_schema_length=HEAD_ROWS, n_rows=rows_max)
            case "parquet":
                return pl.read_parquet(path, n_rows=rows_max)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}",
                        hint="types are taken from its head; say a `schema` for others") from error
    raise UserError(f"{path}: a file of {kind} needs its `schema` said")


def _arrow(frame: Any) -> pa.RecordBatch:
    """Polars gives large strings, which everything else here takes for strings."""
    table = frame.rechunk().to_arrow(compat_level=frame_level())
    fields = [f.with_type(pa.string()) if pa.types.is_large_string(f.type) else f for f in table.schema]
    table = table.cast(pa.schema(fields)).combine_chunks()
    return table.to_batches()[0] if len(table) else pa.RecordBatch.from_pylist([], schema=table.schema)


def frame_level() -> Any:
    import polars as pl

    return pl.CompatLevel.oldest()


class TopicRows:
    """The last record of every key of a topic: read to its end by `start`, and followed by `more`.

    All that is fetched by then is taken in between two batches, in the order of the topic. A record that cannot be
    decoded is passed over, and its key has no row.
    """

    def __init__(self, settings: Settings, topic: str, schema: AvroSchema) -> None:
        self.settings, self.topic, self.schema = settings, topic, schema
        self._exit = ExitStack()
        self._unread: dict[bytes, bytes | None] = {}  # fetched, and not yet in the table

    def start(self, table: Table) -> None:
        """Raises UserError when there is no such topic, BrokerError, RegistryError."""
        limits = bounds(self.settings, self.topic)
        registry = Registry(self.settings.registry_client())
        self._decoder = Decoder(self.schema, registry.schema)
        self._consumer = self._exit.enter_context(reader(self.settings))
        self._consumer.assign([TopicPartition(self.topic, p, low) for p, (low, _) in limits.items()])
        left = {p: high for p, (low, high) in limits.items() if low < high}
        heard = time.monotonic()
        while left:
            got = self._take(table, POLL_S, left)
            heard = time.monotonic() if got else heard
            if time.monotonic() - heard > SILENCE_S:
                raise BrokerError(f"topic {self.topic}: nothing came for {SILENCE_S:.0f} s; still to read: {left}")
        log.info("table read", extra={"topic": self.topic, "rows": len(table)})

    def more(self, table: Table) -> int:
        """Take in what has come; how many records that were. It never waits."""
        taken = 0
        while got := self._take(table, 0, {}):
            taken += got
        return taken

    def _take(self, table: Table, timeout_s: float, left: dict[int, int]) -> int:
        got = gulp(self._consumer, 5_000, timeout_s)
        last = self._unread
        for message in got:
            error, partition, offset = message.error(), int(message.partition() or 0), int(message.offset() or 0)
            if error is None:
                key = message.key()
                last[f"{partition}@{offset}".encode() if key is None else key] = message.value()
            elif error.code() != KafkaError._PARTITION_EOF:
                if not error.retriable():
                    raise BrokerError(f"topic {self.topic} cannot be read: {error.str()}")
                continue
            if offset + (error is None) >= left.get(partition, offset + 2):
                left.pop(partition)
        if last:
            self._apply(table, last)
            self._unread = {}
        return len(got)

    def _apply(self, table: Table, last: Mapping[bytes, bytes | None]) -> None:
        there = {key: value for key, value in last.items() if value is not None}
        decoded = self._decoder.decode(list(there.values()))
        ids = list(there)
        good = ids if decoded.index is None else list(map(ids.__getitem__, decoded.index.tolist()))
        if decoded.rejects:
            at, why = decoded.rejects[0]
            log.warning("table rows passed over", extra={"topic": self.topic, "rows": len(decoded.rejects),
                                                         "key": repr(ids[at]), "reason": why})
        table.put(good, decoded.rows, [*(key for key, value in last.items() if value is None),
                                       *(ids[at] for at, _ in decoded.rejects)])

    def close(self) -> None:
        self._exit.close()


