"""What can be seen from outside while flows run: committed offsets, what lies in a quarantine, what the loop says."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from headrace.demo.folder import Staged
from headrace.demo.verify import end_offsets, partitions, reasons_of
from headrace.errors import EnvironmentFault
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.control import ControlEvent

TAIL_MAX = 20_000
LOOK_S = 0.02
PATIENCE_S = 120.0


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


class Lags:
    """How far groups have come in their topics, which have one partition. For barriers: a record counts as soon as it
    is in the log, committed or not, so that nothing that is on its way is overlooked."""

    def __init__(self, settings: Settings, groups: Mapping[str, tuple[str, Sequence[str]]]) -> None:
        """`groups`: name → (consumer group, topics)."""
        from confluent_kafka import Consumer, TopicPartition

        self._asked = {name: [TopicPartition(topic, 0) for topic in topics] for name, (_, topics) in groups.items()}
        self._consumers: dict[str, Any] = {
            name: Consumer(settings.client(group_id=group, isolation_level="read_uncommitted"))
            for name, (group, _) in groups.items()}

    def left(self, name: str) -> dict[str, int]:
        """Topic → records, or markers of transactions, that the group has not passed."""
        consumer = self._consumers[name]
        return {at.topic: max(0, consumer.get_watermark_offsets(at, timeout=10)[1] - max(at.offset, 0))
                for at in consumer.committed(self._asked[name], timeout=10)}

    def settle(self, names: Sequence[str], look: Callable[[str, Mapping[str, int]], None]) -> None:
        """Until each of the groups, in this order, has passed all that there is. `look` sees every answer. Raises
        EnvironmentFault when that takes too long."""
        for name in names:
            deadline = time.monotonic() + PATIENCE_S
            while any((left := self.left(name)).values()):
                look(name, left)
                if time.monotonic() > deadline:
                    raise EnvironmentFault(f"{name} has not come to the end of its topics within {PATIENCE_S:g} s: "
                                           f"{left}")
                time.sleep(LOOK_S)
            look(name, left)

    def close(self) -> None:
        for consumer in self._consumers.values():
            consumer.close()


class Said:
    """Hears what is said on control topics, which have one partition, from their beginning on."""

    def __init__(self, settings: Settings, kinds: Mapping[str, type[ControlEvent]]) -> None:
        """`kinds`: topic → what stands there."""
        from confluent_kafka import Consumer, TopicPartition

        from headrace.codec import Decoder
        from headrace.registry import Registry

        conf = settings.client(group_id="headrace.demo.reader", enable_auto_commit=False, auto_offset_reset="earliest",
                               enable_partition_eof=True, fetch_wait_max_ms=20)
        writers = Registry(settings.registry_client()).schema
        self._kinds, self._decoders = kinds, {topic: Decoder(kind.schema(), writers) for topic, kind in kinds.items()}
        self._asking: Any = Consumer({**conf, "isolation.level": "read_uncommitted"})
        self._consumer: Any = Consumer({**conf, "isolation.level": "read_committed"})
        self._at = dict.fromkeys(kinds, 0)
        self._consumer.assign([TopicPartition(topic, 0, 0) for topic in kinds])

    def look(self, wait_s: float = 0.0) -> list[ControlEvent]:
        """What is new, topic by topic."""
        from confluent_kafka import KafkaError

        values: dict[str, list[bytes]] = {}
        for message in self._consumer.consume(TAIL_MAX, wait_s):
            error = message.error()
            if error is None:
                values.setdefault(message.topic(), []).append(message.value())
            if error is None or error.code() == KafkaError._PARTITION_EOF:
                self._at[message.topic()] = message.offset() + (error is None)
        return [self._kinds[topic].from_record(record) for topic, raw in sorted(values.items(), key=self._order)
                for record in self._decoders[topic].decode(raw).rows.to_pylist()]

    def _order(self, heard: tuple[str, list[bytes]]) -> int:
        return list(self._kinds).index(heard[0])

    def all(self) -> list[ControlEvent]:
        """Everything that is in the topics now, transactions that are open there decided. Raises EnvironmentFault."""
        from confluent_kafka import TopicPartition

        ends = {topic: self._asking.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)[1]
                for topic in self._kinds}
        found, deadline = self.look(), time.monotonic() + PATIENCE_S
        while any(self._at[topic] < end for topic, end in ends.items()):
            found += self.look(LOOK_S)
            if time.monotonic() > deadline:
                raise EnvironmentFault(f"the control topics were not read to their ends within {PATIENCE_S:g} s")
        return found

    def close(self) -> None:
        self._consumer.close()
        self._asking.close()
