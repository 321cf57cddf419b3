"""The changelog of keyed state: a compacted topic with a partition for each of the source's, and how it is read."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from operator import methodcaller

from headrace.batch import Outgoing
from headrace.errors import UserError
from headrace.peek import bounds, scan
from headrace.settings import Settings
from headrace.state.bottom import Bottom
from headrace.state.keyed import Changes, with_index
from headrace.topics import TopicPlan

log = logging.getLogger("headrace.state")
TOLD_S = 5.0


def topic_of(group: str) -> str:
    """The changelog of a consumer group."""
    return f"{group}.state"


def topic_plan(group: str, partitions: int) -> TopicPlan:
    return TopicPlan(topic_of(group), partitions, {
        "cleanup.policy": "compact", "retention.ms": "-1", "max.message.bytes": str(16 << 20),
        "segment.bytes": str(128 << 20), "min.cleanable.dirty.ratio": "0.2"})


def outgoing(group: str, pending: Mapping[int, Changes], now_ms: int) -> list[Outgoing]:
    """What goes into the batch's transaction: a part for each partition that changed."""
    return [Outgoing(topic_of(group), list(changes.values()), list(changes), [now_ms] * len(changes),
                     [[]] * len(changes), partition=partition)
            for partition, changes in pending.items() if changes]


def restore(settings: Settings, group: str, bottoms: Mapping[int, Bottom]) -> int:
    """Bring every partition's copy up to the changelog's end; how many entries were read.

    Waits for transactions that are open there to be decided. Raises UserError when the changelog has too few
    partitions (the source has grown), BrokerError.
    """
    topic = topic_of(group)
    limits = bounds(settings, topic)
    missing = [p for p in bottoms if p not in limits]
    if missing:
        raise UserError(f"{topic} has {len(limits)} partitions, and the source has partition {max(missing)}",
                        hint="partitions were added to the source: give the changelog as many "
                             f"(kafka-topics --alter --topic {topic} --partitions N), or let the flow begin anew")
    starts = {}
    for p, bottom in bottoms.items():
        low, high = limits[p]
        if not bottom.next_offset() or not low <= bottom.next_offset() <= high:
            bottom.clear()  # of no known age, or another changelog's: it may hold what has since been deleted
        starts[p] = max(bottom.next_offset(), low)
    read, told = 0, time.monotonic()
    for messages in scan(settings, topic, starts, only=list(bottoms), await_open=True):
        by_partition: dict[int, tuple[Changes, int]] = {}
        for partition, offset, key, value in zip(*(map(methodcaller(m), messages) for m in
                                                   ("partition", "offset", "key", "value")), strict=True):
            changes, _ = by_partition.get(partition, ({}, 0))
            changes.update(with_index(key, value))
            by_partition[partition] = (changes, offset + 1)
        for partition, (changes, following) in by_partition.items():
            bottoms[partition].apply(changes, following)
        read += len(messages)
        if time.monotonic() - told > TOLD_S:
            told = time.monotonic()
            log.info("restoring state", extra={"changelog": topic, "entries": read})
    if read:
        log.info("state restored", extra={"changelog": topic, "entries": read, "partitions": sorted(bottoms)})
    return read


def shared(partitions: Mapping[str, int]) -> int:
    """The partition count that all sources of a stateful flow have. Raises UserError when they differ."""
    counts = set(partitions.values())
    if len(counts) > 1:
        said: Sequence[str] = [f"{topic} {n}" for topic, n in partitions.items()]
        raise UserError(f"topics that are joined must have as many partitions as each other: {', '.join(said)}",
                        hint="records of one key meet only in partitions of one number; copy one of the topics to "
                             "another with as many partitions")
    return counts.pop()
