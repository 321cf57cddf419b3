"""Where connectors stand. A source's positions are records of one compacted topic, written in the transactions they
belong to; a sink's are its consumer group's offsets (and, if it is exactly-once, stand on the other side as well).

    key      ["flights-departures", {"filename": "…"}]          connector and source partition, as Kafka Connect has it
    value    {"position": {…}, "nonce": "…"}                    the source's own; the transaction that wrote it
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.batch import Outgoing
from headrace.checkpoint import Transactions
from headrace.connect.spec import Spec
from headrace.errors import BrokerError, UserError
from headrace.peek import NoTopic, scan
from headrace.settings import Settings
from headrace.topics import TopicPlan, admin, ensure, existing

TOPIC = "headrace.connect.offsets"
_COMPACT = {"cleanup.policy": "compact", "segment.ms": "3600000", "segment.bytes": str(16 << 20),
            "min.cleanable.dirty.ratio": "0.1"}
"""It is read whole when a task starts, so it is kept short."""
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Stored:
    """What was committed last of a source partition."""

    partition: Mapping[str, Any]
    position: dict[str, Any]
    nonce: str


def plan(topic: str) -> TopicPlan:
    return TopicPlan(topic, 1, _COMPACT)


def topic_of(spec: Spec) -> str:
    """Where a source's positions are."""
    return spec.common.offsets_topic or TOPIC


def transactional_id(connector: str, number: int) -> str:
    return f"headrace.connect.{connector}.{number}"


def key_of(connector: str, partition: Mapping[str, Any]) -> bytes:
    return json.dumps([connector, dict(partition)], ensure_ascii=False, sort_keys=True).encode()


def record(key: bytes, position: Mapping[str, Any] | None, nonce: str, topic: str = TOPIC) -> Outgoing:
    """To be written with the batch that ends at `position`; None forgets it."""
    value = None if position is None else json.dumps({"position": dict(position), "nonce": nonce}).encode()
    return Outgoing(topic, [value], [key], [0], [[]])


def stored(settings: Settings, connector: str, topic: str = TOPIC) -> dict[bytes, Stored]:
    """Key → the last committed position of each source partition of a connector.

    Read to where the topic ends, past the transactions that are open there: ours is none of them once its producer
    is initialised, but what we committed may stand behind another connector's.
    """
    begins = json.dumps([connector], ensure_ascii=False)[:-1].encode() + b", "
    found: dict[bytes, bytes | None] = {}
    try:
        for messages in scan(settings, topic, await_open=True):
            for message in messages:
                key = message.key()
                if isinstance(key, bytes) and key.startswith(begins):
                    found[key] = message.value()
    except NoTopic:
        return {}
    return {key: _stored(key, value) for key, value in found.items() if value is not None}


def _stored(key: bytes, value: bytes) -> Stored:
    data = json.loads(value)
    return Stored(json.loads(key)[1], data["position"], data["nonce"])


def listed(spec: Spec, settings: Settings) -> list[dict[str, Any]]:
    """A connector's positions, as Kafka Connect's REST API has them: [{"partition": …, "offset": …}]. Raises
    BrokerError."""
    if spec.kind == "source":
        return [{"partition": dict(one.partition), "offset": one.position}
                for one in stored(settings, spec.name, topic_of(spec)).values()]
    return [{"partition": {"kafka_topic": topic, "kafka_partition": partition}, "offset": {"kafka_offset": offset}}
            for (topic, partition), offset in sorted(_group_offsets(spec.group, settings).items())]


Change = tuple[Mapping[str, Any], Mapping[str, Any] | None]
"""(partition, offset)"""


def alter(spec: Spec, settings: Settings, changes: Sequence[Change]) -> None:
    """Set positions; None forgets one. The connector must be stopped: its task, were it alive, is fenced or refused.

    `changes` are (partition, offset) as `listed` has them. Raises UserError (a sink's that is no partition of a topic;
    a group that is still alive), BrokerError, and for an exactly-once sink what its `alter` raises.
    """
    if spec.kind == "sink":
        _alter_sink(spec, settings, {_sink_partition(at): _sink_offset(offset) for at, offset in changes})
        return
    nonce = os.urandom(8).hex()
    _write(spec, settings, [record(key_of(spec.name, at), offset, nonce, topic_of(spec)) for at, offset in changes],
           nonce)


def reset(spec: Spec, settings: Settings) -> None:
    """Forget all positions: the connector begins anew. As `alter`."""
    if spec.kind == "sink":
        common, there = spec.common, existing(settings)
        topics = common.topics or [name for name in there if re.fullmatch(common.topics_regex, name)]
        every = sorted((topic, number) for topic in topics for number in range(there.get(topic, 0)))
        _other_side(spec, lambda sink: sink.alter(dict.fromkeys(told)) if (told := sink.open(every)) else None)
        _delete_group(spec.group, settings)
        return
    topic = topic_of(spec)
    found = stored(settings, spec.name, topic)
    if found:
        _write(spec, settings, [record(key, None, "", topic) for key in found], "")


def _write(spec: Spec, settings: Settings, parts: list[Outgoing], nonce: str) -> None:
    """In one transaction of the task's own producer id: a task that still lives is fenced by it."""
    ensure(settings, [plan(topic_of(spec))])
    transactions = Transactions(settings, transactional_id(spec.name, 0))
    transactions.open()
    try:
        def decide() -> bool:
            now = stored(settings, spec.name, topic_of(spec))
            return all(now[key].nonce == nonce if value is not None else key not in now
                       for part in parts for key, value in zip(part.keys, part.values, strict=True) if key is not None)

        if not transactions.write(parts, [], None, decide):
            raise BrokerError(f"connector {spec.name}: the transaction that sets its positions was aborted",
                              hint=f"may this user write to {topic_of(spec)}? try again")
    finally:
        transactions.close()


def _sink_partition(given: Mapping[str, Any]) -> tuple[str, int]:
    topic, partition = given.get("kafka_topic"), given.get("kafka_partition")
    if not topic or partition is None:
        raise UserError("the partition of a sink's offset must have kafka_topic and kafka_partition")
    return str(topic), _whole(partition, "kafka_partition")


def _sink_offset(given: Mapping[str, Any] | None) -> int | None:
    if given is None:
        return None
    if given.get("kafka_offset") is None:
        raise UserError("the offset of a sink must be null, or have kafka_offset")
    return _whole(given["kafka_offset"], "kafka_offset")


def _whole(value: Any, what: str) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise UserError(f"{what}: “{value}” is no whole number") from None


def _group_offsets(group: str, settings: Settings) -> dict[tuple[str, int], int]:
    from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException

    try:
        client = admin(settings)
        future = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=TIMEOUT_S)
        found = future[group].result().topic_partitions
    except KafkaException as error:
        raise BrokerError(f"group {group}: its offsets cannot be read: {error.args[0].str()}") from error
    return {(p.topic, p.partition): p.offset for p in found if p.offset >= 0}


def _alter_sink(spec: Spec, settings: Settings, changes: Mapping[tuple[str, int], int | None]) -> None:
    """The other side first, if it keeps offsets: what it says counts."""
    _other_side(spec, lambda sink: sink.alter(changes))
    there = _group_offsets(spec.group, settings)
    wanted = {at: offset for at, offset in {**there, **changes}.items() if offset is not None}
    if any(offset is None for offset in changes.values()):
        _delete_group(spec.group, settings)  # the client has no way to forget one offset: forget all, set the others
    else:
        wanted = {at: offset for at, offset in changes.items() if offset is not None}
    if wanted:
        _set(spec.group, settings, wanted)


def _other_side(spec: Spec, do: Callable[[Any], None]) -> None:
    """With a sink of its own, where it keeps offsets on its side and lets them be changed."""
    if not hasattr(spec.cls, "alter"):
        return
    from headrace.connect.tasks import live

    fresh = live(spec)
    sink = fresh.cls(fresh.config, project=spec.project, name=spec.name)
    try:
        do(sink)
    finally:
        sink.close()


def _delete_group(group: str, settings: Settings) -> None:
    from confluent_kafka import KafkaError, KafkaException

    client = admin(settings)  # kept: its answers are lost with it
    try:
        client.delete_consumer_groups([group], request_timeout=TIMEOUT_S)[group].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise _refused(group, error) from error


def _set(group: str, settings: Settings, wanted: Mapping[tuple[str, int], int]) -> None:
    from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition

    asked = [TopicPartition(topic, partition, offset) for (topic, partition), offset in sorted(wanted.items())]
    try:
        client = admin(settings)
        done = client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, asked)],
                                                   request_timeout=TIMEOUT_S)[group].result()
    except KafkaException as error:
        raise _refused(group, error) from error
    for one in done.topic_partitions:
        if one.error is not None:
            raise UserError(f"group {group}: {one.topic}/{one.partition} cannot be set to {one.offset}: "
                            f"{one.error.str()}")


def _refused(group: str, error: object) -> UserError | BrokerError:
    from confluent_kafka import KafkaError

    fault = error.args[0]  # type: ignore[attr-defined]
    if fault.code() in (KafkaError.NON_EMPTY_GROUP, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS):
        return UserError(f"group {group} is alive: {fault.str()}", hint="stop the connector, and wait for its tasks")
    return BrokerError(f"group {group}: its offsets cannot be changed: {fault.str()}")
