"""Kafka: the source a worker reads, and the sink that encodes rows for a topic.

The source resolves where a partition starts exactly once and commits the answer; from then on a missing offset is an
error, so that retention never skips records silently.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.batch import Batch, Outgoing, Rejects
from headrace.codec import AvroSchema, Encoder
from headrace.errors import BrokerError, Fenced, HeadraceError
from headrace.processor import Partition
from headrace.reach import Trouble, advice, metadata, refuses, unreachable
from headrace.settings import Settings
from headrace.topics import admin, silent, watermarks

log = logging.getLogger("headrace.kafka")
ALONE_S = 30.0
TELL_S = 10.0  # a broker that is away is waited for; it is told this often
POLL_S = 0.05
REACH_S = 10.0
BATCH_MAX = 40_000  # what a batch costs whatever is in it is shared by its records
BACKLOG_SHARE = 8  # a poll that filled an eighth of a batch means a backlog: wait for fuller batches
RECORD_OVERHEAD_BYTES = 512  # a record's own framing and our headers, against max.message.bytes


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll gave. `ends` has the next offset to commit of each partition it moved, markers at the end included.

    `group` is the consumer group metadata taken right after the poll: only that, not one fetched at commit, lets the
    broker refuse a zombie's offsets.
    """

    messages: list[Message]
    ends: Mapping[Partition, int]
    group: Any


@dataclass(slots=True)
class Assignment:
    """The callbacks a worker hangs on a rebalance. `assigned` gets each partition with its start and its metadata."""

    assigned: Callable[[Mapping[Partition, tuple[int, str | None]]], None]
    revoked: Callable[[Sequence[Partition]], None]


def _fenced(error: KafkaError) -> bool:
    """Is this the broker's word that another has this consumer's name? A heartbeat that is told so ends as a message
    whose error is only `_FATAL`, with the reason in its text."""
    return error.code() == KafkaError.FENCED_INSTANCE_ID or (
        error.code() == KafkaError._FATAL and KafkaError(KafkaError.FENCED_INSTANCE_ID).str() in error.str())


class KafkaSource:
    """One consumer of a flow's topics in one group; every method is called from the worker's thread.

    Topics with equally many partitions are assigned alike: who has partition 3 of one has it of the others.
    """

    def __init__(self, settings: Settings, topics: Sequence[str], group: str, *, instance: str | None = None,
                 start: str = "earliest", batch_max: int = BATCH_MAX, prefetch_bytes: int = 32 << 20) -> None:
        self.settings, self.topics, self.group, self.start = settings, topics, group, start
        self.instance = instance
        self.batch_max = batch_max
        self.backlog = False
        self._told = -TELL_S
        self._fault: BaseException | None = None
        self._paused: set[Partition] = set()
        self._trouble = Trouble()
        conf = settings.client(
            group_id=group, enable_auto_commit=False, enable_partition_eof=True, auto_offset_reset="error",
            isolation_level="read_committed", partition_assignment_strategy="range",
            session_timeout_ms=10_000, heartbeat_interval_ms=1_000, max_poll_interval_ms=300_000,
            fetch_min_bytes=1, fetch_wait_max_ms=20, fetch_message_max_bytes=8 << 20,
            fetch_queue_backoff_ms=5,  # by default a full queue is not fetched for again for a whole second
            queued_min_messages=BATCH_MAX, queued_max_messages_kbytes=prefetch_bytes >> 10,
            statistics_interval_ms=0)
        if instance:
            conf["group.instance.id"] = instance  # a restart takes its partitions back at once
        self._conf = conf
        self.consumer = self._made()
        self.assigned: set[Partition] = set()
        self._members: set[str] = set()  # the ids this consumer had in the group, one after another
        self._join: Callable[[], None] = lambda: None

    def _made(self) -> Consumer:
        return Consumer({**self._conf, "error_cb": self._on_error}, logger=silent("consumer"))

    def _on_error(self, error: KafkaError) -> None:
        self._trouble(error)
        if time.monotonic() - self._told > TELL_S:
            self._told = time.monotonic()
            hint = {"hint": advice(self.settings, error)} if refuses(error) else {}
            log.warning("broker trouble", extra={"topics": list(self.topics), "group": self.group,
                                                 "error": error.str(), **hint})

    def subscribe(self, assignment: Assignment) -> None:
        """Join the group. Raises BrokerError when the broker does not answer or the topic is absent."""
        for name in self.topics:
            topic = metadata(self.consumer, self.settings, self._trouble, REACH_S, name).topics[name]
            if topic.error is not None:
                raise BrokerError(f"topic {name} cannot be read: {topic.error.str()}",
                                  hint=advice(self.settings, topic.error))

        def on_assign(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            with self._kept():
                self._members.add(consumer.memberid())
                starts = self._starts(partitions)
                consumer.assign([TopicPartition(t, p, at) for (t, p), (at, _) in starts.items()])
                self.assigned = set(starts)
                assignment.assigned(starts)

        def on_revoke(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            gone = [(p.topic, p.partition) for p in partitions]
            with self._kept():
                if self._paused:  # it may be remembered, and a partition that comes back would stand still
                    self.resume(self._paused)
            self.assigned -= set(gone)
            with self._kept():
                assignment.revoked(gone)
            consumer.unassign()

        def join() -> None:
            self.consumer.subscribe(list(self.topics), on_assign=on_assign, on_revoke=on_revoke, on_lost=on_revoke)

        self._join = join
        self._lost = assignment.revoked
        join()

    def _rejoin(self) -> None:
        """Be in the group with a new consumer. A fatal error is for good to the one that had it."""
        self.consumer.close()  # which gives its partitions up
        if self.assigned:
            gone, self.assigned = sorted(self.assigned), set()
            self._lost(gone)
        self._paused.clear()
        self.consumer = self._made()
        self._join()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """An error in a rebalance is kept for `poll` to raise. Raised through librdkafka's callback, it would leave the
        rebalance unanswered, and `close` would wait for it for ever."""
        try:
            yield
        except KafkaException as error:
            self._fault = self._fault or self._refused(None, error.args[0])
        except BaseException as error:
            self._fault = self._fault or error

    def _starts(self, partitions: list[TopicPartition]) -> dict[Partition, tuple[int, str | None]]:
        """Committed offsets, stable ones; where there is none, the start is resolved now and committed."""
        starts: dict[Partition, tuple[int, str | None]] = {}
        resolved = []
        try:
            committed = self.consumer.committed(partitions, timeout=30)
        except KafkaException as error:
            raise unreachable(self.settings, error.args[0]) from error
        for found in committed:
            offset, metadata = found.offset, found.metadata
            if offset < 0:
                low, high = watermarks(self.consumer, found.topic, found.partition, 30)
                offset, metadata = (low if self.start == "earliest" else high), None
                resolved.append(TopicPartition(found.topic, found.partition, offset))
            starts[(found.topic, found.partition)] = (offset, metadata)
        if resolved:
            self.consumer.commit(offsets=resolved, asynchronous=False)
        return starts

    def poll(self) -> Polled:
        """Up to `batch_max` records, within about 50 ms. Raises BrokerError for errors that waiting does not mend,
        Fenced when another consumer goes by this one's name (not when only the broker thinks so), and whatever went
        wrong in a rebalance meanwhile."""
        if self.backlog:
            got = self._consumed(self.batch_max, POLL_S)
        else:
            got = self._consumed(1, POLL_S)
            if got:
                got += self._consumed(self.batch_max - 1, 0)
        group = self.consumer.consumer_group_metadata()
        self.backlog = len(got) * BACKLOG_SHARE >= self.batch_max
        ends: dict[Partition, int] = {}
        errors = list(map(Message.error, got))
        if any(errors):
            for message, error in zip(got, errors, strict=True):
                if error is not None:
                    self._event(message, error, ends)
            got = [message for message, error in zip(got, errors, strict=True) if error is None]
        return Polled(got, ends, group)

    def _consumed(self, records_max: int, timeout_s: float) -> list[Message]:
        try:
            got: list[Message] = self.consumer.consume(records_max, timeout_s)
        except KafkaException as raised:  # fatal to the consumer
            self._fault = self._fault or self._refused(None, raised.args[0])
        if self._fault is None:
            return got
        if isinstance(self._fault, Fenced):
            try:
                alone = self.alone()
            except KafkaException as unknown:  # to be asked again by the next poll
                self._on_error(unknown.args[0])
                time.sleep(timeout_s)
                return []
            if alone:
                log.warning("joining again", extra={"topics": list(self.topics), "group": self.group,
                                                    "error": str(self._fault)})
                self._fault = None
                self._rejoin()
                return []
        self.consumer.unassign()
        raise self._fault

    def _event(self, message: Message, error: KafkaError, ends: dict[Partition, int]) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            assert topic is not None
            assert partition is not None
            assert offset is not None
            ends[(topic, partition)] = offset
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise BrokerError(f"{message.topic()}: the committed offset of group {self.group} is gone ({error.str()})",
                              hint="retention deleted what nobody had read; raise retention.ms, then reset the group")
        elif _fenced(error):
            self._fault = self._fault or self._refused(message.topic(), error)
        elif error.fatal() or error.code() in (KafkaError._FATAL, KafkaError.TOPIC_AUTHORIZATION_FAILED,
                                               KafkaError.GROUP_AUTHORIZATION_FAILED):
            raise self._refused(message.topic(), error)

    def _refused(self, topic: str | None, error: KafkaError) -> HeadraceError:
        if _fenced(error):
            return Fenced(f"another consumer of group {self.group} goes by the name {self.instance}: {error.str()}",
                          hint="two workers with the same --instance and slot? give each its own --instance")
        of = f"topic {topic}, " if topic else ""
        return BrokerError(f"{of}group {self.group}: {error.str()}", hint=advice(self.settings, error, error.name()))

    def end_offsets(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Where each partition ends now."""
        return {(t, p): watermarks(self.consumer, t, p, 30)[1]
                for t, p in partitions}

    def known_ends(self) -> dict[Partition, int]:
        """The last end offsets a fetch reported; free of charge, and absent until there was a fetch."""
        out = {}
        for topic, partition in self.assigned:
            _, high = self.consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            if high >= 0:
                out[(topic, partition)] = high
        return out

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, tuple[int, str | None]]:
        """Stable committed offsets and their metadata: waits while a transaction that writes them is open."""
        asked = [TopicPartition(t, p) for t, p in partitions]
        return {(f.topic, f.partition): (f.offset, f.metadata) for f in self.consumer.committed(asked, timeout=30)}

    def pause(self, partitions: Collection[Partition]) -> None:
        """Fetch nothing of these until `resume`, or a rebalance."""
        self._paused |= set(partitions)
        self.consumer.pause([TopicPartition(*at) for at in partitions])

    def resume(self, partitions: Collection[Partition]) -> None:
        """Where each partition goes on is to be said by `rewind`."""
        self.consumer.resume([TopicPartition(*at) for at in partitions])
        self._paused -= set(partitions)

    def idle(self, timeout_s: float) -> bool:
        """Poll while paused: rebalances and troubles are heard of as by `poll`. False: a record came all the same, and
        is gone unless it is read again."""
        got = self._consumed(1, timeout_s)
        for message in got:
            if (error := message.error()) is not None:
                self._event(message, error, {})
        return all(message.error() is not None for message in got)

    def alone(self) -> bool:
        """Whether nobody else is in the group under this consumer's name. Raises BrokerError, KafkaException.

        librdkafka fences itself: from the end of its session until the next poll its heartbeats bear the name, but no
        member id any more (confluentinc/librdkafka#3437), and the broker takes them for another's.
        """
        client = admin(self.settings)  # kept until the result is in: without a name it would end before
        asked = client.describe_consumer_groups([self.group], request_timeout=ALONE_S)[self.group]
        named = [m.member_id for m in asked.result().members if m.group_instance_id == self.instance]
        return not named or not {*self._members, self.consumer.memberid()}.isdisjoint(named)

    def rewind(self, starts: Mapping[Partition, int]) -> None:
        """Read again from these offsets; a partition no longer ours is passed over."""
        for (topic, partition), offset in starts.items():
            if (topic, partition) in self.assigned:
                self.consumer.seek(TopicPartition(topic, partition, offset))

    def close(self) -> None:
        self.consumer.close()


def keys_of(rows: pa.RecordBatch, column: str) -> list[bytes | None]:
    """A column as record keys: its text in UTF-8 (a number as decimal text), null as no key."""
    values = rows.column(column)
    if not pa.types.is_binary(values.type):
        values = pc.cast(pc.cast(values, pa.string()), pa.binary())
    keys: list[bytes | None] = values.to_pylist()
    return keys


@dataclass(slots=True)
class KafkaSink:
    """Rows of one schema, encoded for one topic. Pure: producing is the transaction's business."""

    topic: str
    encoder: Encoder
    key: str | None = None
    bytes_max: int = 1_000_000

    def encode(self, batch: Batch) -> tuple[Outgoing, list[Rejects]]:
        """What to produce, and the source records whose result Avro cannot hold or the topic would refuse."""
        values, kept, failed = self.encoder.encode_checked(batch.rows)
        rejects = []
        if failed:
            at = np.array([i for i, _ in failed], dtype=np.int64)
            rejects.append(Rejects(batch.meta.take(at), [[reason] for _, reason in failed], self.topic))
        if kept is not None:
            batch = Batch(batch.rows.take(pa.array(kept)), batch.meta.take(kept))
        if values and max(map(len, values)) > self.bytes_max - RECORD_OVERHEAD_BYTES:
            values, batch, large = self._without_large(values, batch)
            rejects.append(large)
        keys = keys_of(batch.rows, self.key) if self.key else None
        return batch.meta.outgoing(self.topic, values, keys), rejects

    def _without_large(self, values: list[bytes], batch: Batch) -> tuple[list[bytes], Batch, Rejects]:
        sizes = np.fromiter(map(len, values), dtype=np.int64, count=len(values))
        large = np.flatnonzero(sizes > self.bytes_max - RECORD_OVERHEAD_BYTES)
        fits = np.flatnonzero(sizes <= self.bytes_max - RECORD_OVERHEAD_BYTES)
        reasons = [[f"oversized: {size:,} bytes for {self.topic}, whose max.message.bytes is {self.bytes_max:,}"]
                   for size in sizes[large].tolist()]
        return (list(map(values.__getitem__, fits.tolist())), Batch(batch.rows.take(pa.array(fits)),
                batch.meta.take(fits)), Rejects(batch.meta.take(large), reasons, self.topic, dead=True))


def sink_for(topic: str, schema: AvroSchema, rows: pa.Schema, schema_id: int, key: str | None,
             bytes_max: int) -> KafkaSink:
    """The sink a plan asks for."""
    return KafkaSink(topic, Encoder(schema, rows, schema_id), key, bytes_max)
