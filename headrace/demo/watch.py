"""What can be seen of a flow from outside while it runs: committed offsets, and what lies in its quarantine."""

from __future__ import annotations

from collections import Counter
from operator import methodcaller
from typing import Any

from headrace.demo.folder import Staged
from headrace.demo.verify import end_offsets, partitions, reasons_of
from headrace.settings import Settings

TAIL_MAX = 20_000


class Progress:
    """How far a flow's group has come in its source topic."""

    def __init__(self, settings: Settings, staged: Staged) -> None:
        from confluent_kafka import Consumer, TopicPartition

        self._settings, self._staged = settings, staged
        # read_uncommitted: the answer must not wait for a transaction that is open; it never has its offsets in it.
        self._consumer: Any = Consumer(settings.client(group_id=staged.group, isolation_level="read_uncommitted"))
        self._asked = [TopicPartition(staged.source, p) for p in partitions(self._consumer, staged.source)]
        self.end = 0
        self.look_for_end()

    def look_for_end(self) -> int:
        """Ask again where the source ends: after more was loaded."""
        self.end = sum(end_offsets(self._settings, self._staged.source).values())
        return self.end

    def done(self) -> int:
        """Records whose results are committed."""
        return sum(max(at.offset, 0) for at in self._consumer.committed(self._asked, timeout=10))

    def begun(self) -> bool:
        """Whether a worker has joined: the first thing it commits is where it starts."""
        return any(at.offset >= 0 for at in self._consumer.committed(self._asked, timeout=10))

    def close(self) -> None:
        self._consumer.close()


class Held:
    """Counts the reasons in a quarantine as they come."""

    def __init__(self, settings: Settings, topic: str) -> None:
        from confluent_kafka import Consumer, TopicPartition

        self._consumer: Any = Consumer(settings.client(
            group_id="headrace.demo.reader", enable_auto_commit=False, auto_offset_reset="earliest",
            isolation_level="read_committed", fetch_wait_max_ms=100))
        self._consumer.assign([TopicPartition(topic, p, 0) for p in partitions(self._consumer, topic)])
        self.reasons: Counter[str] = Counter()
        self.records = 0

    def look(self) -> None:
        """Take what has come since the last look; never waits."""
        records = [message for message in self._consumer.consume(TAIL_MAX, 0) if message.error() is None]
        self.records += len(records)
        self.reasons += reasons_of(map(dict, map(methodcaller("headers"), records)))

    def close(self) -> None:
        self._consumer.close()


class Alerts:
    """Reads the alerts that this run's stream causes, from now on."""

    def __init__(self, settings: Settings, topic: str, source: str) -> None:
        from confluent_kafka import Consumer, TopicPartition

        from headrace.codec import Decoder
        from headrace.control import Alert
        from headrace.registry import Registry

        self._source = source
        self._decoder = Decoder(Alert.schema(), Registry(settings.registry_client()).schema)
        self._consumer: Any = Consumer(settings.client(
            group_id="headrace.demo.reader", enable_auto_commit=False, auto_offset_reset="earliest",
            isolation_level="read_committed", fetch_wait_max_ms=20))
        self._consumer.assign([TopicPartition(topic, p, end) for p, end in end_offsets(settings, topic).items()])
        self.seen: list[Alert] = []

    def look(self, wait_s: float = 0.0) -> list[Any]:
        """The new ones."""
        from headrace.control import Alert

        got = [message.value() for message in self._consumer.consume(100, wait_s) if message.error() is None]
        if not got:
            return []
        events = map(Alert.from_record, self._decoder.decode(got).rows.to_pylist())
        new = [event for event in events if event.topic == self._source]
        self.seen += new
        return new

    def close(self) -> None:
        self._consumer.close()
