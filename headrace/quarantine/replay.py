"""Sending back: the mended records to their source topic, and a marker for each, in one Kafka transaction.

Once, whatever happens. The order, for each batch:
1. a transactional producer whose id names the quarantine topic: it decides and fences any earlier replay of it;
2. the markers up to their end: what an earlier replay committed is seen, and no other can commit any more;
3. begin; the records without a marker, to the partition they came from; their markers; commit.
A batch gets a producer of its own, so that a commit request of one batch, delayed, can never commit part of the next.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaException, Producer

from headrace.batch import SOURCE_HEADER, SPAN_HEADER, Headers
from headrace.checkpoint import Transactions, classify
from headrace.connectors.quarantine import OURS
from headrace.errors import BrokerError, Fenced, UserError
from headrace.payloads import Reader
from headrace.quarantine.markers import REPLAYED, Markers, create
from headrace.quarantine.mend import Left, Mend, Mender, Ready
from headrace.quarantine.read import Held, every
from headrace.registry import Registry
from headrace.settings import Settings
from headrace.topics import existing, message_bytes_max

REPLAYED_HEADER = "headrace.replayed"
"""JSON on a record sent back: {"at": when, "set": {column: expression}}. Its lineage is the quarantined record."""
OVERHEAD_BYTES = 512
COMMIT_S = 60.0
EXAMPLES_MAX = 5
BATCH_BYTES = 32 << 20


@dataclass(slots=True)
class Replayed:
    """What a replay did, or with `dry_run` would do. `skipped` counts what cannot be sent, by its reason's id."""

    topic: str
    dry_run: bool
    read: int = 0
    selected: int = 0
    already: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    """(position, why) of the first that are skipped."""

    def as_json(self) -> dict[str, Any]:
        return {"topic": self.topic, "dry_run": self.dry_run, "read": self.read, "selected": self.selected,
                "already": self.already, "sent": sum(self.sent.values()), "to": dict(self.sent),
                "skipped": dict(self.skipped), "left": [{"at": at, "why": why} for at, why in self.left],
                "examples": self.examples}


@dataclass(frozen=True, slots=True)
class _Targets:
    """The source topics: their partitions and the largest record each takes."""

    partitions: dict[str, int]
    bytes_max: dict[str, int]

    def refuse(self, record: Held, value: bytes | None) -> str | None:
        """Why a record cannot be sent back, or None."""
        if record.source is None:
            return "no_source: its headers do not say where it came from"
        topic = record.source.topic
        if topic not in self.partitions:
            return f"no_topic: its source topic {topic} is gone"
        size = len(value or b"") + len(record.key or b"") + OVERHEAD_BYTES
        size += sum(len(name) + len(given or b"") for name, given in record.headers)
        if size > self.bytes_max[topic]:
            return f"oversized: {size:,} bytes, {topic} takes {self.bytes_max[topic]:,}"
        return None

    def partition(self, record: Held) -> int:
        """The one it came from, so that the order per key holds; by key where the topic has fewer now."""
        assert record.source is not None
        there = record.source.partition < self.partitions[record.source.topic]
        return record.source.partition if there else -1


def replay(settings: Settings, topic: str, mend: Mend, *, dry_run: bool = False, batch_max: int = 5_000,
           told: Callable[[Replayed], None] = lambda so_far: None) -> Replayed:
    """Sends back what `mend` selects of a quarantine topic, up to its present end. `told` hears after each batch.

    Raises UserError (no such topic, an expression that does not fit), BrokerError, RegistryError, and Fenced when
    another replay of the same topic takes over; after any of them, run it again: what was sent is not sent again.
    """
    registry = Registry(settings.registry_client())
    reader = Reader(registry.schema)
    there = existing(settings)
    if topic not in there:
        raise UserError(f"there is no topic {topic}", hint="`headrace quarantine list` shows the quarantines there are")
    out = Replayed(topic, dry_run)
    markers = Markers(settings, topic)
    mender = Mender(mend, reader, (lambda name, schema: 0) if dry_run else
                    (lambda name, schema: registry.register(f"{name}-value", schema)))
    targets = _Targets(there, {})
    if dry_run:
        markers.refresh()
    else:
        create(settings)
    for batch in _batches(settings, topic, mend, batch_max, out):
        names = {r.source.topic for r in batch if r.source} & there.keys() - targets.bytes_max.keys()
        targets.bytes_max.update(message_bytes_max(settings, names))
        if dry_run:
            ready = _prepare(batch, markers, mender, targets, out)
        else:
            transactions = Transactions(settings, f"headrace.replay.{topic}",
                                        bytes_max=max(targets.bytes_max.values(), default=1 << 20) + 65_536)
            transactions.open()
            markers.refresh()
            ready = _prepare(batch, markers, mender, targets, out)
            if ready:
                _send(transactions.producer, topic, ready, markers, targets, mend)
            transactions.close()
        for record, _ in ready:
            assert record.source is not None
            out.sent[record.source.topic] += 1
        _show(ready, reader, out)
        told(out)
    return out


def _batches(settings: Settings, topic: str, mend: Mend, batch_max: int, out: Replayed) -> Iterator[list[Held]]:
    """The selected records, at most `batch_max` or about BATCH_BYTES at a time, in the order of each partition."""
    waiting: list[Held] = []
    size = 0
    for batch in every(settings, topic):
        out.read += len(batch)
        for record in filter(mend.selects, batch):
            waiting.append(record)
            size += len(record.value or b"")
            if len(waiting) == batch_max or size >= BATCH_BYTES:
                yield waiting
                waiting, size = [], 0
    if waiting:
        yield waiting


def _prepare(batch: Sequence[Held], markers: Markers, mender: Mender, targets: _Targets,
             out: Replayed) -> list[Ready]:
    """Those of a batch that were not sent before and can be."""
    fresh = [r for r in batch if (r.at.partition, r.at.offset_first) not in markers.done]
    ready, left = mender.apply(fresh)
    out.already += len(batch) - len(fresh)
    out.selected += len(ready) + len(left)
    sendable: list[Ready] = []
    refused: list[Left] = []
    for record, value in ready:
        why = targets.refuse(record, value)
        if why is None:
            sendable.append((record, value))
        else:
            refused.append((record, why))
    for record, why in (*left, *refused):
        out.skipped[why.partition(":")[0]] += 1
        if len(out.left) < EXAMPLES_MAX:
            out.left.append((str(record.at), why))
    return sendable


def _headers(record: Held, said: bytes) -> Headers:
    """The record's own headers, and as its origin the quarantined record, whose origin in turn is the first one."""
    own = [h for h in record.headers if h[0] not in OURS and h[0] not in (SOURCE_HEADER, SPAN_HEADER, REPLAYED_HEADER)]
    at = record.at
    place = at.partition.to_bytes(4, "big", signed=True) + at.offset_first.to_bytes(8, "big") + at.topic.encode()
    return [*own, (REPLAYED_HEADER, said), (SOURCE_HEADER, place)]


def _send(producer: Producer, topic: str, ready: Sequence[Ready], markers: Markers, targets: _Targets,
          mend: Mend) -> None:
    """One transaction: the records and their markers, all or none. Raises Fenced, BrokerError."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    said = json.dumps({"at": now, **({"set": dict(mend.sets)} if mend.sets else {})}, ensure_ascii=False).encode()
    try:
        producer.begin_transaction()
        for record, value in ready:
            assert record.source is not None
            partition = targets.partition(record)
            _produce(producer, record.source.topic, value, record.key, partition,
                     timestamp=record.timestamp_ms, headers=_headers(record, said))
            key, marker = markers.marker(record.at.partition, record.at.offset_first, at=now, to=record.source.topic)
            _produce(producer, REPLAYED, marker, key, -1)
        _commit(producer)
    except KafkaException as error:
        raise _failed(producer, topic, error) from error


def _produce(producer: Producer, *record: Any, **more: Any) -> None:
    while True:
        try:
            producer.produce(*record, **more)
            return
        except BufferError:
            producer.poll(0.1)  # large records: wait for room


def _commit(producer: Producer) -> None:
    end = time.monotonic() + COMMIT_S
    while True:
        try:
            producer.commit_transaction(10.0)
            return
        except KafkaException as error:
            if classify(error.args[0]) != "retry" or time.monotonic() > end:
                raise


def _failed(producer: Producer, topic: str, error: KafkaException) -> Exception:
    """The transaction did not commit, as far as is known; the next replay's producer decides it either way.

    A broker that is just then giving the transactions to another producer may answer a commit with no more than
    "unknown error": whether somebody took over, the abort is told.
    """
    faults = [error.args[0]]
    if classify(faults[0]) != "fenced":
        try:
            producer.abort_transaction(10.0)
        except KafkaException as second:  # open until its time-out, or until the next replay fences it
            faults.append(second.args[0])
    if any(classify(fault) == "fenced" for fault in faults):
        return Fenced(f"another replay of {topic} took over", hint="let it finish; what it sent is not sent again")
    return BrokerError(f"replay of {topic}: {faults[0].str()}", hint="run it again: what was sent is not sent again")


def _show(ready: Sequence[Ready], reader: Reader, out: Replayed) -> None:
    """The first few, as they were held and as they are sent."""
    few = ready[:EXAMPLES_MAX - len(out.examples)]
    if not few:
        return
    was, now = reader.records([record.value for record, _ in few]), reader.records([value for _, value in few])
    for (record, _), before, after in zip(few, was, now, strict=True):
        out.examples.append({"at": str(record.at), "source": str(record.source), "before": before, "after": after})
