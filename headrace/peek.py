"""Records read by position, by a consumer that joins no group and commits nothing: for lag, quarantine and trace."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.batch import Span
from headrace.errors import BrokerError, UserError
from headrace.processor import Partition
from headrace.reach import Trouble, advice, metadata, unreachable
from headrace.settings import Settings
from headrace.topics import watermarks

Position = tuple[str, int, int]
"""(topic, partition, offset)"""
POLL_S = 0.2
REACH_S = 10.0
SILENCE_S = 30.0  # a scan that gets nothing for so long has lost its broker
_PLACE = re.compile(r"([A-Za-z0-9._-]{1,249})/(\d{1,9})@(\d{1,18})")


class NoTopic(UserError):
    """There is no topic of this name."""


def parse_position(text: str) -> Position:
    """`flights.late/3@1042` as (topic, partition, offset). Raises UserError."""
    found = _PLACE.fullmatch(text.strip())
    if found is None:
        raise UserError(f"“{text}” is no position", hint="write TOPIC/PARTITION@OFFSET, e.g. flights.late/3@1042")
    return found[1], int(found[2]), int(found[3])


@contextmanager
def reader(settings: Settings, **overrides: Any) -> Iterator[Consumer]:
    """A read_committed consumer to assign by hand; it tells the end of each partition. Raises BrokerError."""
    quiet = logging.getLogger("headrace.librdkafka.peek")
    quiet.setLevel(logging.CRITICAL)
    trouble = Trouble()
    conf = settings.client(**{"group_id": "headrace.peek", "enable_auto_commit": False, "auto_offset_reset": "error",
                              "enable_auto_offset_store": False, "enable_partition_eof": True,
                              "isolation_level": "read_committed", "fetch_wait_max_ms": 20, **overrides})
    consumer = Consumer({**conf, "error_cb": trouble}, logger=quiet)
    try:
        metadata(consumer, settings, trouble, REACH_S)
        yield consumer
    except KafkaException as error:
        raise unreachable(settings, trouble.refusal or trouble.last or error.args[0]) from error
    finally:
        consumer.close()


def gulp(consumer: Consumer, records_max: int, wait_s: float) -> list[Message]:
    """The records and events that are here, `records_max` at most; the first is waited for, `wait_s` at most.
    (`consume` by itself waits for as many as it is asked for.)"""
    got: list[Message] = consumer.consume(1, wait_s)
    return got + consumer.consume(records_max - 1, 0) if got and records_max > 1 else got


def first_records(settings: Settings, positions: Collection[Position], *,
                  timeout_s: float = 5.0) -> dict[Position, Message | None]:
    """The first committed record at or after each position; None where the partition ends before one.

    A position that was not answered within `timeout_s`, or that retention has deleted meanwhile, is absent.
    """
    found: dict[Position, Message | None] = {}
    waiting = sorted(set(positions))
    end = time.monotonic() + timeout_s
    if not waiting:
        return found
    with reader(settings, fetch_message_max_bytes=65_536, queued_min_messages=1) as consumer:
        while waiting and time.monotonic() < end:
            round_ = {(t, p): at for t, p, at in reversed(waiting)}  # a partition has one position at a time
            waiting = [place for place in waiting if round_[place[:2]] != place[2]]
            consumer.assign([TopicPartition(t, p, at) for (t, p), at in round_.items()])
            _round(consumer, round_, found, end)
    return found


def _round(consumer: Consumer, asked: dict[Partition, int], found: dict[Position, Message | None], end: float) -> None:
    while asked and (left := end - time.monotonic()) > 0:
        message = consumer.poll(min(left, POLL_S))
        if message is None:
            continue
        error = message.error()
        if error is not None and error.code() == KafkaError._ALL_BROKERS_DOWN:
            raise KafkaException(error)
        at = (str(message.topic()), int(message.partition() or 0))
        if at in asked:
            offset = asked.pop(at)
            if error is None or error.code() == KafkaError._PARTITION_EOF:
                found[(*at, offset)] = message if error is None else None
            consumer.incremental_unassign([TopicPartition(*at)])


def bounds(settings: Settings, topic: str, *, only: int | None = None,
           isolation: str = "read_committed") -> dict[int, tuple[int, int]]:
    """Partition → (first offset kept, end as `isolation` sees it), of all or of one.

    Raises UserError when there is no such topic or partition, BrokerError.
    """
    with reader(settings, isolation_level=isolation) as consumer:
        found = consumer.list_topics(topic, timeout=REACH_S).topics[topic]
        if found.error is not None:
            if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise NoTopic(f"there is no topic {topic}")
            raise BrokerError(f"topic {topic} cannot be read: {found.error.str()}", hint=advice(settings, found.error))
        there = sorted(found.partitions)
        if only is not None and only not in there:
            raise UserError(f"{topic} has no partition {only}: it has {len(there)}, 0 to {len(there) - 1}")
        return {p: watermarks(consumer, topic, p, REACH_S)
                for p in (there if only is None else [only])}


def scan(settings: Settings, topic: str, starts: Mapping[int, int] | None = None, *, batch_max: int = 5_000,
         await_open: bool = False, only: Collection[int] | None = None,
         ends: Mapping[int, int] | None = None) -> Iterator[list[Message]]:
    """Every committed record of a topic from `starts` (default: its beginning) to where it ends when this begins, or
    before `ends` where that is nearer. `only` names the partitions to read; None is all.

    With `await_open` the end is that of the log, so that it waits for the transactions open there to be decided; else
    it ends before the first of them. Within a partition in order. Raises UserError when there is no such topic,
    BrokerError.
    """
    limits = bounds(settings, topic, isolation="read_uncommitted" if await_open else "read_committed")
    upto = {p: min(high, (ends or {}).get(p, high)) for p, (_, high) in limits.items()}
    left = {p: upto[p] for p, (low, _) in limits.items()
            if max(low, (starts or {}).get(p, low)) < upto[p] and (only is None or p in only)}
    if not left:
        return
    with reader(settings) as consumer:
        consumer.assign([TopicPartition(topic, p, max(limits[p][0], (starts or {}).get(p, 0))) for p in left])
        heard = time.monotonic()
        while left:
            got = gulp(consumer, batch_max, POLL_S)
            if got:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE_S:
                raise BrokerError(f"topic {topic}: nothing came for {SILENCE_S:.0f} s; still to read: {left}")
            if records := _within(got, left):
                yield records


def _within(got: list[Message], left: dict[int, int]) -> list[Message]:
    """The records before the ends in `left`; a partition that has reached its end leaves it."""
    records = []
    ended = set()
    for message in got:
        partition, offset, error = int(message.partition() or 0), int(message.offset() or 0), message.error()
        if error is None:
            if offset < left.get(partition, 0):
                records.append(message)
            if offset + 1 >= left.get(partition, 0):
                ended.add(partition)
        elif error.code() == KafkaError._PARTITION_EOF:
            if offset >= left.get(partition, 0):
                ended.add(partition)
        elif not error.retriable():
            raise KafkaException(error)
    for partition in ended:
        left.pop(partition, None)
    return records


def span_of(message: Message) -> Span:
    """Where a record stands."""
    at = int(message.offset() or 0)
    return Span(str(message.topic()), int(message.partition() or 0), at, at)


def show_key(key: bytes | None) -> str | None:
    """A key for people: its text, or hex where it is none."""
    if key is None:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return "0x" + key.hex()
