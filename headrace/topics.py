"""Topics as flows declare them: created with their partitions and settings, never silently by the broker."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.errors import BrokerError, UserError
from headrace.settings import Settings

CONNECT_TIMEOUT_S = 10.0
COPIES = 3
"""Of a new topic: one broker can be lost while another is being restarted."""
LEADER_S = 0.1
"""Between two questions for a leader."""


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic as declared. `config` holds Kafka topic settings, e.g. {"retention.ms": "-1"}."""

    name: str
    partitions: int = 4
    config: Mapping[str, str] = field(default_factory=dict)
    replication: int | None = None
    """Copies of each partition: by default COPIES, where there are so many brokers; -1 is as the brokers are set."""


def admin(settings: Settings) -> Any:
    """An AdminClient that has reached the broker. Raises BrokerError."""
    from confluent_kafka.admin import AdminClient

    from headrace.reach import Trouble, metadata

    trouble = Trouble()
    conf = settings.client(socket_timeout_ms=int(CONNECT_TIMEOUT_S * 1e3))
    client = AdminClient({**conf, "error_cb": trouble}, logger=silent("admin"))
    metadata(client, settings, trouble, CONNECT_TIMEOUT_S)
    return client


def silent(client: str) -> logging.Logger:
    """A logger for a client whose troubles we tell ourselves."""
    quiet = logging.getLogger(f"headrace.librdkafka.{client}")
    quiet.setLevel(logging.CRITICAL + 1)
    return quiet


def watermarks(consumer: Any, topic: str, partition: int, timeout_s: float = CONNECT_TIMEOUT_S) -> tuple[int, int]:
    """(first offset kept, end) of a partition, asked of its leader. A leader that is only just being found, as after
    the topic was made, is waited for. Raises KafkaException."""
    from confluent_kafka import KafkaError, KafkaException, TopicPartition

    unsettled = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART)
    end = time.monotonic() + timeout_s
    while True:
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout_s)
            return int(low), int(high)
        except KafkaException as error:
            if error.args[0].code() not in unsettled or time.monotonic() > end:
                raise
            time.sleep(LEADER_S)


def existing(settings: Settings) -> dict[str, int]:
    """Topic → number of partitions, internal topics left out."""
    found = admin(settings).list_topics(timeout=CONNECT_TIMEOUT_S).topics
    return {name: len(topic.partitions) for name, topic in found.items() if not name.startswith("__")}


def ensure(settings: Settings, topics: Iterable[TopicPlan]) -> list[str]:
    """Create what is missing; the names created. An existing topic is left as it is.

    Raises BrokerError when the broker does not answer or refuses, UserError for settings Kafka does not know.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import NewTopic

    from headrace.reach import advice

    client = admin(settings)
    cluster = client.list_topics(timeout=CONNECT_TIMEOUT_S)
    there, copies = set(cluster.topics), _copies(len(cluster.brokers))
    wanted = {t.name: t for t in topics if t.name not in there}
    made: list[str] = []
    if not wanted:
        return made
    new = [NewTopic(t.name, t.partitions, copies if t.replication is None else t.replication, config=dict(t.config))
           for t in wanted.values()]
    for name, future in client.create_topics(new, request_timeout=CONNECT_TIMEOUT_S * 3).items():
        try:
            future.result()
            made.append(name)
        except KafkaException as error:
            code = error.args[0].name()
            if code == "TOPIC_ALREADY_EXISTS":
                continue
            kind = UserError if code in ("INVALID_CONFIG", "INVALID_PARTITIONS", "TOPIC_EXCEPTION") else BrokerError
            raise kind(f"topic {name} cannot be created: {error.args[0].str()}",
                       hint=advice(settings, error.args[0], "") or None) from error
    _await(client, made)
    return made


def _copies(brokers: int) -> int:
    """Of a new topic. Where fewer brokers answer than there should be copies, some may be away for a moment: the
    brokers' own default (default.replication.factor) knows how many they are meant to be."""
    return COPIES if brokers >= COPIES else -1


def _await(client: Any, names: Sequence[str]) -> None:
    """Until the broker tells of topics that were just created: its metadata come a moment later."""
    end = time.monotonic() + CONNECT_TIMEOUT_S
    for name in names:
        while time.monotonic() < end:
            found = client.list_topics(name, timeout=CONNECT_TIMEOUT_S).topics[name]
            if found.error is None and found.partitions:
                break
            time.sleep(0.05)


def topic_ids(settings: Settings, topics: Sequence[str]) -> dict[str, str]:
    """The id Kafka gave each topic when it was created: another one after it was deleted and made again."""
    from confluent_kafka import TopicCollection

    client = admin(settings)
    _await(client, topics)  # it may be another worker that is just creating them
    found = client.describe_topics(TopicCollection(list(topics)), request_timeout=CONNECT_TIMEOUT_S)
    return {name: _id_text(future.result(timeout=CONNECT_TIMEOUT_S).topic_id) for name, future in found.items()}


def _id_text(number: Any) -> str:
    """In hex, which any file system takes and tells apart."""
    high, low = number.get_most_significant_bits(), number.get_least_significant_bits()
    return f"{high & (2**64 - 1):016x}{low & (2**64 - 1):016x}"


def message_bytes_max(settings: Settings, topics: Iterable[str]) -> dict[str, int]:
    """`max.message.bytes` of each topic that exists. Raises BrokerError."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import ConfigResource, ResourceType

    from headrace.reach import advice

    resources = [ConfigResource(ResourceType.TOPIC, name) for name in topics]
    if not resources:
        return {}
    found = {}
    client = admin(settings)  # kept: its answers are lost with it
    for resource, future in client.describe_configs(resources, request_timeout=CONNECT_TIMEOUT_S).items():
        try:
            found[resource.name] = int(future.result(timeout=CONNECT_TIMEOUT_S)["max.message.bytes"].value)
        except KafkaException as error:
            raise BrokerError(f"the settings of topic {resource.name} cannot be read: {error.args[0].str()}",
                              hint=advice(settings, error.args[0])) from error
    return found
