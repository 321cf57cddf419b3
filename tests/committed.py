"""What a read_committed reader finds: once, or again and again by who waits for more."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from headrace.settings import Settings


def committed_records(settings: Settings, *topics: str) -> list[Any]:
    """Everything a read_committed reader finds. What is open when it begins is waited for: somebody who was killed may
    have left a transaction, which hides what came after it."""
    with closing(Follower(settings, *topics, wait_ms=50)) as follower:
        return follower.all()


class Follower:
    """Reads on from where it stood, for who looks each second at much. To be closed soon: a consumer that nobody polls
    at the end of its partitions kept librdkafka's thread busy (2,500 wake-ups a second)."""

    def __init__(self, settings: Settings, *topics: str, wait_ms: int = 500) -> None:
        self._reader = Consumer(settings.client(group_id="reader", enable_auto_commit=False, fetch_wait_max_ms=wait_ms,
                                                auto_offset_reset="earliest", isolation_level="read_committed",
                                                enable_partition_eof=True))
        self._ends = Consumer(settings.client(group_id="reader", isolation_level="read_uncommitted"))
        self._every = [TopicPartition(topic, partition, 0) for topic in topics
                       for partition in self._reader.list_topics(topic, 30).topics[topic].partitions]
        self._reached = dict.fromkeys(map(_place, self._every), -1)
        self._found: list[Any] = []
        self._reader.assign(self._every)

    def all(self) -> list[Any]:
        """Everything up to where the partitions end now, open transactions included."""
        ends = {_place(each): self._ends.get_watermark_offsets(each, 30)[1] for each in self._every}
        while any(self._reached[at] < end for at, end in ends.items()):
            for message in self._reader.consume(10_000, 1.0):
                if (error := message.error()) is None:
                    self._found.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._reached[_place(message)] = message.offset()
                else:
                    assert error.retriable(), error
        return list(self._found)

    def close(self) -> None:
        self._reader.close()
        self._ends.close()


def _place(of: Any) -> tuple[str, int]:
    topic, partition = (of.topic, of.partition) if isinstance(of, TopicPartition) else (of.topic(), of.partition())
    return topic, partition
