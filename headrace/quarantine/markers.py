"""Which records of a quarantine were sent back already: one marker each, on a compacted topic.

    headrace.quarantine.replayed     key    topic/partition@offset, the position in the quarantine
                                     value  JSON: {"topic_id", "to", "at"}

A marker is written in the transaction that sends the record, so there is one exactly when the record was sent. A topic
that was deleted and made anew begins at offset 0 again: `topic_id` tells its records from the old one's.
"""

from __future__ import annotations

import json
from typing import Any

from headrace.errors import BrokerError
from headrace.peek import NoTopic, parse_position, scan
from headrace.settings import Settings
from headrace.topics import TopicPlan, admin, ensure

REPLAYED = "headrace.quarantine.replayed"


def topic_id(settings: Settings, topic: str) -> str:
    """Kafka's own id of a topic, another one after it is deleted and made anew. Raises BrokerError."""
    from confluent_kafka import KafkaException, TopicCollection

    client = admin(settings)  # kept: its answers are lost with it
    try:
        asked = client.describe_topics(TopicCollection([topic]), request_timeout=10.0)
        return str(asked[topic].result(timeout=20.0).topic_id)
    except KafkaException as error:
        raise BrokerError(f"topic {topic} cannot be described: {error.args[0].str()}") from error


def create(settings: Settings) -> None:
    """The markers' topic, if it is not there."""
    ensure(settings, [TopicPlan(REPLAYED, 1, {"cleanup.policy": "compact"})])


class Markers:
    """The markers of one quarantine topic: (partition, offset) of what was sent."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self.settings, self.topic = settings, topic
        self.id = topic_id(settings, topic)
        self.done: set[tuple[int, int]] = set()
        self._next: dict[int, int] = {}

    def refresh(self) -> set[tuple[int, int]]:
        """Reads what was committed since the last time. Does nothing while there is no such topic.

        Replays of other topics write here too: one whose transaction is open hides our markers behind it, so it is
        waited for, which takes no longer than the transaction's time-out. Raises BrokerError.
        """
        try:
            for messages in scan(self.settings, REPLAYED, self._next, await_open=True):
                for message in messages:
                    self._next[int(message.partition() or 0)] = int(message.offset() or 0) + 1
                    self._take(message.key(), message.value())
        except NoTopic:
            pass
        return self.done

    def _take(self, key: Any, value: Any) -> None:
        if not (isinstance(key, bytes) and key.startswith(f"{self.topic}/".encode())):
            return
        _, partition, offset = parse_position(key.decode())
        ours = value is not None and json.loads(value).get("topic_id") == self.id
        (self.done.add if ours else self.done.discard)((partition, offset))

    def marker(self, partition: int, offset: int, **facts: Any) -> tuple[bytes, bytes]:
        """Key and value of the marker of one position."""
        return (f"{self.topic}/{partition}@{offset}".encode(),
                json.dumps({"topic_id": self.id, **facts}, ensure_ascii=False).encode())
