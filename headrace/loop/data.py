"""Exactly the records of the offset ranges that a request names, as a table, with a digest of their bytes.

Offsets without a record (transaction markers, aborted transactions, what compaction took) are gaps and are counted.
A range that is not there whole any more, or not yet, is an error: a training is repeatable or it does not begin.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from operator import itemgetter, methodcaller
from time import monotonic
from typing import Any, cast

import numpy as np
import pyarrow as pa

from headrace.batch import Frames, Message, Span
from headrace.codec import AvroSchema, Decoder, parse
from headrace.codec.decoder import HEADER_BYTES
from headrace.errors import BrokerError, UserError
from headrace.payloads import schema_id
from headrace.peek import POLL_S, SILENCE_S, bounds, gulp, reader
from headrace.registry import Registry
from headrace.settings import Settings

BATCH_RECORDS = 20_000
NAMED_MAX = 5
TOPIC, PARTITION, OFFSET = "__topic", "__partition", "__offset"
POSITION = (TOPIC, PARTITION, OFFSET)
"""The columns that say where a row came from."""


@dataclass(frozen=True, slots=True)
class Data:
    """`rows`: the records by topic, partition and offset, in that order, and POSITION as the last columns.

    `digest` is a sha256, in hex, over topic, partition, offset and payload of every record; it does not depend on how
    they were read. `schema_ids` are the writers' in the schema registry. `gaps` counts offsets without a record.
    """

    rows: pa.Table
    digest: str
    schema_ids: tuple[int, ...]
    spans: tuple[Span, ...]
    gaps: int


def merged(spans: Sequence[Span]) -> list[Span]:
    """The same offsets in order, each once. Raises UserError for a span that ends before it begins."""
    out: list[Span] = []
    for span in sorted(spans):
        if span.offset_first < 0 or span.offset_last < span.offset_first:
            raise UserError(f"{span} is no range: {span.offset_first} to {span.offset_last}")
        last = out[-1] if out else None
        if last and (last.topic, last.partition) == (span.topic, span.partition) \
                and span.offset_first <= last.offset_last + 1:
            out[-1] = Span(last.topic, last.partition, last.offset_first, max(last.offset_last, span.offset_last))
        else:
            out.append(span)
    return out


def overlap(one: Sequence[Span], other: Sequence[Span]) -> list[Span]:
    """The offsets in both."""
    return merged([Span(a.topic, a.partition, max(a.offset_first, b.offset_first), min(a.offset_last, b.offset_last))
                   for a in one for b in other if (a.topic, a.partition) == (b.topic, b.partition)
                   and a.offset_first <= b.offset_last and b.offset_first <= a.offset_last])


def read(settings: Settings, spans: Sequence[Span], writers: Callable[[int], AvroSchema] | None = None) -> Data:
    """Every committed record of the spans. Its payloads are kept in memory until all have come.

    Records of a topic are read as its newest schema among them says, older ones by Avro's rules; topics with other
    columns have nulls in those of the rest. Raises UserError (a range is not there, or a record cannot be decoded),
    BrokerError, RegistryError.
    """
    wanted = merged(spans)
    if not wanted:
        raise UserError("the request names no offsets to read")
    writers = writers or Registry(settings.registry_client()).schema
    tables, hashes, ids, records = [], hashlib.sha256(), set[int](), 0
    for topic in sorted({span.topic for span in wanted}):
        mine = [span for span in wanted if span.topic == topic]
        frames = _frames(settings, topic, mine, hashes)
        records += sum(map(len, frames))
        found = _writers(frames)
        ids |= found
        tables += _decoded(frames, topic, found, writers)
    if not records:
        raise UserError(f"no record is left in {_some(wanted)}")
    rows = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    asked = sum(span.offset_last - span.offset_first + 1 for span in wanted)
    return Data(rows, hashes.hexdigest(), tuple(sorted(ids)), tuple(wanted), asked - records)


def _frames(settings: Settings, topic: str, spans: Sequence[Span], hashes: Any) -> list[Frames]:
    """The records of one topic's spans; their bytes go to `hashes` in order."""
    _there(settings, topic, spans)
    out: list[Frames] = []
    with reader(settings, queued_min_messages=50_000, fetch_message_max_bytes=8 << 20,
                fetch_queue_backoff_ms=10) as consumer:  # its default, a second, would be waited at every span
        for span in spans:
            hashes.update(f"{span.topic}\0{span.partition}\0".encode())
            for messages in _span(consumer, span):
                frame = Frames(messages, topic)
                hashes.update(_canonical(frame))
                out.append(frame)
    return out


def _there(settings: Settings, topic: str, spans: Sequence[Span]) -> None:
    """Raises UserError where the log does not, or no longer, reach over a span."""
    limits = bounds(settings, topic, isolation="read_uncommitted")
    for span in spans:
        if span.partition not in limits:
            raise UserError(f"{span}: {topic} has partitions 0 to {max(limits)}")
        low, high = limits[span.partition]
        if span.offset_first < low:
            raise _deleted(span, low)
        if span.offset_last >= high:
            raise UserError(f"{span}: {topic}/{span.partition} ends before offset {high}",
                            hint="the request is of another cluster, or the topic was made anew")


def _deleted(span: Span, low: int | None) -> UserError:
    kept = "" if low is None else f"; it begins at offset {low}"
    return UserError(f"{span}: these records are not there any more{kept}",
                     hint=f"keep {span.topic} for longer than a request may wait (retention.ms, retention.bytes)")


def _span(consumer: Any, span: Span) -> Iterator[list[Message]]:
    """The records of one span, in order. Raises UserError, BrokerError."""
    from confluent_kafka import KafkaError, KafkaException, TopicPartition

    consumer.assign([TopicPartition(span.topic, span.partition, span.offset_first)])
    heard, left = monotonic(), span.offset_last - span.offset_first + 1
    while monotonic() - heard < SILENCE_S:
        got = gulp(consumer, min(BATCH_RECORDS, left), POLL_S)
        errors = list(map(methodcaller("error"), got))
        records = list(compress(got, (error is None for error in errors)))
        if records:
            heard = monotonic()
            offsets = np.fromiter(map(methodcaller("offset"), records), dtype=np.int64, count=len(records))
            within = int(np.searchsorted(offsets, span.offset_last, side="right"))
            if within:
                yield records[:within]
            left = span.offset_last - int(offsets[-1])
            if left <= 0:
                return
        for message, error in zip(got, errors, strict=True):
            if error is None:
                continue
            if error.code() == KafkaError._PARTITION_EOF:
                if message.offset() > span.offset_last:
                    return
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise _deleted(span, None)
            elif not error.retriable():
                raise KafkaException(error)
    raise BrokerError(f"{span}: nothing came for {SILENCE_S:.0f} s before its end",
                      hint="is the broker well, or is a transaction open there that nobody ends?")


def _canonical(frame: Frames) -> bytes:
    """What is hashed of each record: offset and length, big-endian int64 and int32, and the payload."""
    values = [value or b"" for value in frame.values] if None in frame.values else cast(list[bytes], frame.values)
    heads = np.zeros(len(frame), dtype=[("offset", ">i8"), ("length", ">i4")])
    heads["offset"], heads["length"] = frame.offsets, list(map(len, values))
    return b"".join(chain.from_iterable(zip(heads.view("V12").tolist(), values, strict=True)))


def _writers(frames: Sequence[Frames]) -> set[int]:
    """The schema ids in the payloads; without those that have none."""
    heads = {head for frame in frames
             for head in set(map(itemgetter(slice(HEADER_BYTES)), filter(None, frame.values)))}
    return {number for head in heads if (number := schema_id(head)) is not None}


def _decoded(frames: Sequence[Frames], topic: str, ids: set[int],
             writers: Callable[[int], AvroSchema]) -> list[pa.Table]:
    """The frames as tables. Raises UserError that names the records that are no rows."""
    decoder = Decoder(writers(max(ids)) if ids else parse('"null"'), writers)
    tables: list[pa.Table] = []
    bad: list[str] = []
    for frame in frames:
        decoded = decoder.decode(frame.values)
        bad += [f"{topic}/{frame.partitions[at]}@{frame.offsets[at]}: {why}" for at, why in decoded.rejects]
        if not bad:
            tables.append(_placed(decoded.rows, frame, topic))
    if bad:
        more = f", and {len(bad) - NAMED_MAX} more" if len(bad) > NAMED_MAX else ""
        raise UserError(f"{len(bad)} record{'s' if len(bad) > 1 else ''} cannot be trained on: "
                        f"{'; '.join(bad[:NAMED_MAX])}{more}",
                        hint="train from a topic of validated records: a flow's sink, not its source")
    return tables


def _placed(rows: pa.RecordBatch, frame: Frames, topic: str) -> pa.Table:
    table = pa.Table.from_batches([rows])
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(frame), dtype=np.int32)), pa.array([topic]))
    for name, column in zip(POSITION, (names.cast(pa.string()), pa.array(frame.partitions), pa.array(frame.offsets)),
                            strict=True):
        table = table.append_column(name, column)
    return table


def _some(spans: Sequence[Span]) -> str:
    return ", ".join(map(str, spans[:NAMED_MAX])) + (" …" if len(spans) > NAMED_MAX else "")

