"""The proof: every output read back as a `read_committed` reader sees it, and counted by its source position."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter, methodcaller
from typing import Any

import numpy as np

from headrace.batch import SOURCE_HEADER
from headrace.connectors.quarantine import REASONS, STEP
from headrace.demo.folder import SHARED, Staged
from headrace.errors import BrokerError
from headrace.peek import gulp
from headrace.settings import Settings
from headrace.topics import watermarks

POLL_S = 0.5
SILENT_S = 30.0
READ_MAX = 50_000
PLACE = [("partition", ">i4"), ("offset", ">i8")]


@dataclass(slots=True)
class Tally:
    """What became of the records of one flow's source.

    Every source position is looked for among the outputs: `lost` are those that are nowhere, `doubled` the outputs
    beyond the first of each, `strangers` those whose header names a position that the source does not have.
    """

    records_in: int = 0
    valid: int = 0
    quarantined: int = 0
    rejected: int = 0
    by_expectation: Counter[str] = field(default_factory=Counter)
    by_topic: dict[str, int] = field(default_factory=dict)
    alerts: int = 0
    lost: int = 0
    doubled: int = 0
    strangers: int = 0

    @property
    def whole(self) -> bool:
        """Each record is in exactly one place."""
        return (self.lost, self.doubled, self.strangers) == (0, 0, 0) and (
            self.records_in == self.valid + self.quarantined + self.rejected)


def tally(settings: Settings, staged: Staged) -> Tally:
    """Read all outputs of a flow that came to rest. 1 to 2 seconds for a third of a million."""
    ends = end_offsets(settings, staged.source)
    out = Tally(records_in=sum(ends.values()))
    seen = {partition: np.zeros(end, dtype=np.int64) for partition, end in ends.items()}
    for topic in (*staged.outputs, staged.quarantine):
        n = 0
        for headers in read_headers(settings, topic):
            n += len(headers)
            out.strangers += _mark(seen, headers, staged.source)
            if topic == staged.quarantine:
                _reasons(out, headers)
        out.by_topic[topic] = n
    out.valid = sum(out.by_topic[topic] for topic in staged.outputs)
    for topic in set(staged.alerts) - SHARED:
        out.alerts += sum(map(len, read_headers(settings, topic)))
    out.lost = sum(int(np.count_nonzero(times == 0)) for times in seen.values())
    out.doubled = sum(int(np.maximum(times - 1, 0).sum()) for times in seen.values())
    return out


def _mark(seen: dict[int, np.ndarray[tuple[int], np.dtype[np.int64]]], headers: Sequence[dict[str, bytes]],
          topic: str) -> int:
    """Count each position once more; how many outputs name a place that is none of the source's."""
    places = list(map(methodcaller("get", SOURCE_HEADER, b""), headers))
    name = topic.encode()
    ours = [place for place in places if place[12:] == name]
    at = np.frombuffer(b"".join(ours), dtype=[*PLACE, ("topic", f"V{len(name)}")])
    strangers = len(places) - len(ours)
    for partition in np.unique(at["partition"]).tolist():
        offsets = at["offset"][at["partition"] == partition].astype(np.int64)
        times = seen.get(partition, np.zeros(0, dtype=np.int64))
        inside = (offsets >= 0) & (offsets < len(times))
        strangers += int(np.count_nonzero(~inside))
        times += np.bincount(offsets[inside], minlength=len(times))
    return strangers


def _reasons(out: Tally, headers: Sequence[dict[str, bytes]]) -> None:
    steps = Counter(map(itemgetter(STEP), headers))
    rejected = steps.pop(b"source", 0)
    out.rejected += rejected
    out.quarantined += len(headers) - rejected
    out.by_expectation += reasons_of(headers)


def reasons_of(headers: Iterable[dict[str, bytes]]) -> Counter[str]:
    """How many quarantined records name each expectation; those that are no Avro have none."""
    written = Counter(h[REASONS] for h in headers if h[STEP] != b"source")
    out: Counter[str] = Counter()
    for text, n in written.items():
        for reason in json.loads(text):
            out[reason.partition(":")[0]] += n
    return out


def read_headers(settings: Settings, topic: str) -> Iterator[list[dict[str, bytes]]]:
    """The headers of every committed record of a topic, in large pieces."""
    for messages in read(settings, topic):
        yield list(map(dict, map(_or_none, map(methodcaller("headers"), messages))))


def _or_none(headers: Any) -> Any:
    return headers or ()


def read(settings: Settings, topic: str) -> Iterator[list[Any]]:
    """Every committed record of a topic up to its end now. Raises BrokerError when the broker falls silent."""
    from confluent_kafka import Consumer, KafkaError, TopicPartition

    consumer = Consumer(settings.client(
        group_id="headrace.demo.reader", enable_auto_commit=False, auto_offset_reset="error",
        isolation_level="read_committed", enable_partition_eof=True, fetch_wait_max_ms=20, fetch_queue_backoff_ms=10,
        fetch_message_max_bytes=8 << 20, queued_min_messages=2 * READ_MAX))
    try:
        waiting = set(partitions(consumer, topic))
        consumer.assign([TopicPartition(topic, partition, 0) for partition in waiting])
        silent = 0.0
        while waiting:
            got = gulp(consumer, READ_MAX, POLL_S)
            silent = 0.0 if got else silent + POLL_S
            if silent > SILENT_S:
                raise BrokerError(f"{topic}: nothing came for {SILENT_S:g} s, and its end was not reached")
            for message in filter(methodcaller("error"), got):
                if message.error().code() != KafkaError._PARTITION_EOF:
                    raise BrokerError(f"{topic}: {message.error().str()}")
                waiting.discard(message.partition())
            if records := [message for message in got if message.error() is None]:
                yield records
    finally:
        consumer.close()


def partitions(consumer: Any, topic: str) -> list[int]:
    """The partitions of a topic. Raises BrokerError when it is absent."""
    found = consumer.list_topics(topic, timeout=10).topics[topic]
    if found.error is not None:
        raise BrokerError(f"topic {topic} cannot be read: {found.error.str()}")
    return sorted(found.partitions)


def end_offsets(settings: Settings, topic: str) -> dict[int, int]:
    """Partition → the offset after its last record."""
    from confluent_kafka import Consumer

    consumer = Consumer(settings.client(group_id="headrace.demo.reader"))
    try:
        return {partition: watermarks(consumer, topic, partition, 30)[1]
                for partition in partitions(consumer, topic)}
    finally:
        consumer.close()
