"""Where records were read, for sinks that store Kafka's offsets with them: what is stored already is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from headrace.errors import Retriable

if TYPE_CHECKING:
    from headrace.records import Records

Place = tuple[str, int]
"""(topic, partition)"""
RETRY_AFTER_S = 1.0


def beyond(records: Records, stored: Mapping[Place, int], ends: Mapping[Place, int]) -> Records:
    """Without those that are stored already: before the offset that `stored` has for their partition.

    Raises Retriable where that cannot be told: some are, and a transform has given them another topic than they had.
    """
    if records.partitions is None or records.offsets is None or not len(records):
        return records
    topic = origin(records, ends)
    if topic is None:
        if any(stored.get(place, -1) > records.offsets.min() for place in ends):
            raise Retriable(f"some of the records that are {records.topic} now may be stored already",
                            retry_after_s=RETRY_AFTER_S, hint="the task begins again where the other side stands")
        return records
    at = np.array([stored.get((topic, p), -1) for p in range(int(records.partitions.max()) + 1)])
    fresh = records.offsets >= at[records.partitions]
    return records if fresh.all() else records.take(np.flatnonzero(fresh))


def origin(records: Records, ends: Mapping[Place, int]) -> str | None:
    """The topic they were read from; None where a transform changed it, and it cannot be told."""
    known: str | None = getattr(records, "origin", None)
    topics = {topic for topic, _ in ends}
    if known is not None or records.topic in topics:
        return known or records.topic
    return topics.pop() if len(topics) == 1 else None
