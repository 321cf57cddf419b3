"""Rows to learn from: the first of a file, or the last of a topic, and what of them could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from headrace.codec import AvroSchema, Decoder
from headrace.contractctl import files
from headrace.contractctl.files import PIECE_RECORDS, UNREAD_MAX, Progress
from headrace.contractctl.outcome import Watch
from headrace.errors import UserError
from headrace.ingest import FORMATS, Options, format_of
from headrace.payloads import schema_id

if TYPE_CHECKING:
    from headrace.registry import Registry
    from headrace.settings import Settings


@dataclass(frozen=True, slots=True)
class Sample:
    """`rows` are in the order of the file, or of the records' times. `unread` says of the first UNREAD_MAX records that
    are no rows where they stand and why; `unit` is what they are: line or record."""

    source: str
    rows: pa.RecordBatch
    unread: Sequence[str] = ()
    unread_count: int = 0
    unit: str = "record"
    tombstones: int = 0
    """Records without a value, which a compacted topic has."""
    unused: Sequence[str] = ()
    """Columns of the file that the schema has no field for."""
    schema: str = ""
    """What the rows were read as, where the reader of it may wonder."""


def is_file(source: Path) -> bool:
    """Whether a file is meant and not a topic: it is there, or has a file's suffix, or is in a folder."""
    return source.is_file() or source.suffix.lower() in FORMATS or len(source.parts) > 1


def from_file(path: Path, schema: AvroSchema | None, *, rows_max: int, format: str | None = None,
              options: Options | None = None, watch: Watch = lambda source: nullcontext()) -> Sample:
    """The first `rows_max` records of a file, readable or not. Raises UserError, SchemaError."""
    if schema is None and files.unit(path, format) == "line" and path.is_file():
        kind = "CSV" if (format or format_of(path)) == "csv" else "JSON Lines"
        raise UserError(f"{path}: {kind} does not say its types",
                        hint="name a schema: --schema NAME, or a path to an .avsc; of a CSV, `headrace new DIR --from "
                             "FILE` makes one")
    with files.opened(path, schema, format=format, options=options) as source:
        with watch(source) as progress:
            read = files.whole(source, rows_max=rows_max, progress=progress)
        unread = tuple(f"{path}:{bad.at}: {'; '.join(bad.reasons)}" for bad in read.unread)
        return Sample(str(path), read.rows, unread, read.unread_count, source.unit, unused=tuple(source.reader.unused))


def from_topic(settings: Settings, topic: str, schema: AvroSchema | None, *, rows_max: int,
               progress: Progress | None = None) -> Sample:
    """The last `rows_max` records of a topic, of each partition its share of them, as rows of `schema`.

    Without one, of the newest schema registered as TOPIC-value, or else of the newest that a record names. Where the
    topic was written in transactions the marks of these are counted in, so that there are fewer. Raises UserError (no
    such topic, no record to learn from), BrokerError, RegistryError.
    """
    from headrace.registry import Registry

    registry = Registry(settings.registry_client())
    found = sorted(_read(settings, topic, rows_max, progress), key=lambda each: each[:3])
    places = [(partition, offset) for _, partition, offset, value in found if value is not None]
    values = [value for *_, value in found if value is not None]
    shape = schema or _schema(registry, topic, values)
    decoder = Decoder(shape, registry.schema)
    batches: list[pa.RecordBatch] = []
    unread: list[str] = []
    lost = 0
    for begin in range(0, len(values), PIECE_RECORDS):
        done = decoder.decode(values[begin:begin + PIECE_RECORDS])
        batches.append(done.rows)
        lost += len(done.rejects)
        for at, why in done.rejects[:UNREAD_MAX - len(unread)]:
            partition, offset = places[begin + at]
            unread.append(f"{topic}/{partition}@{offset}: {why}")
    try:
        rows = pa.concat_batches(batches) if batches else pa.RecordBatch.from_pylist([], schema=shape.arrow)
    except pa.ArrowInvalid as error:  # 32-bit offsets: 2 GiB of text in a column
        raise UserError(f"the records of {topic} are too large for one batch: {error}",
                        hint="take fewer: --rows N") from error
    return Sample(f"topic {topic}", rows, unread, lost, "record", len(found) - len(values), schema=str(shape))


Found = tuple[int, int, int, bytes | None]
"""(its time in ms, partition, offset, value)"""


def _read(settings: Settings, topic: str, rows_max: int, progress: Progress | None) -> Iterator[Found]:
    from headrace.peek import bounds, scan

    limits = bounds(settings, topic)
    starts = shares(limits, rows_max)
    wanted = sum(high - starts[partition] for partition, (_, high) in limits.items())
    count = 0
    for messages in scan(settings, topic, starts, ends={partition: high for partition, (_, high) in limits.items()}):
        for message in messages:
            yield message.timestamp()[1], int(message.partition() or 0), int(message.offset() or 0), message.value()
        count += len(messages)
        if progress:
            progress(count / wanted, count)


def shares(limits: Mapping[int, tuple[int, int]], records_max: int) -> dict[int, int]:
    """Partition → where to begin, so that no more than `records_max` offsets are read up to the ends, of each
    partition as its size is to that of all. `limits` are the first offset of each and its end."""
    total = sum(high - low for low, high in limits.values())
    if total <= records_max:
        return {partition: low for partition, (low, _) in limits.items()}
    sizes = {partition: (high - low) * records_max // total for partition, (low, high) in limits.items()}
    left = records_max - sum(sizes.values())
    for partition, (low, high) in limits.items():
        if left and sizes[partition] < high - low:
            sizes[partition] += 1
            left -= 1
    return {partition: high - sizes[partition] for partition, (_, high) in limits.items()}


def _schema(registry: Registry, topic: str, values: Sequence[bytes]) -> AvroSchema:
    latest = registry.latest(f"{topic}-value")
    if latest is not None:
        return latest[2]
    named = max((number for value in values if (number := schema_id(value)) is not None), default=None)
    if named is None:
        raise UserError(f"{topic}: nothing says what its records are: the registry has no {topic}-value"
                        + (", and none of them names a schema" if values else ", and there is no record"),
                        hint="headrace reads Avro with the id of a schema in front, as `headrace produce` writes it")
    return registry.schema(named)
