"""Lag as the broker has it: groups, committed offsets, ends, and the first record not read. Read-only."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    ConsumerGroupType,
    IsolationLevel,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from headrace.errors import BrokerError, UserError
from headrace.lag.compute import GroupLag, PartitionLag, age_s
from headrace.marked import nearest
from headrace.peek import Position, first_records
from headrace.processor import Partition
from headrace.settings import Settings
from headrace.topics import admin

REQUEST_S = 10.0
READERS = (ConsumerGroupType.UNKNOWN, ConsumerGroupType.CLASSIC, ConsumerGroupType.CONSUMER)
"""Kinds of group that commit offsets (share groups do not); brokers before 3.8 do not say."""
Known = MutableMapping[Position, tuple[int, int]]
"""Position → (offset, timestamp in ms) of the first record there: kept between samples, since it does not change."""


def measure(settings: Settings, wanted: Collection[str] = (), *, client: AdminClient | None = None,
            known: Known | None = None, now_ms: Callable[[], int] = lambda: int(time.time() * 1e3),
            read_s: float = 5.0) -> dict[str, GroupLag]:
    """The lag of the `wanted` groups (none named: all), by name.

    Groups and offsets take one request a group, ends three requests for all, ages one short read for all (at most
    `read_s`). Raises BrokerError, and UserError for a group the broker does not know.
    """
    client = client or admin(settings)
    states = _states(client, wanted)
    committed = _committed(client, states)
    places = sorted({at for offsets in committed.values() for at in offsets})
    ends = _ends(client, places)
    groups = {name: _partitions(offsets, ends) for name, offsets in committed.items()}
    firsts = _firsts(settings, groups, {} if known is None else known, read_s)
    now = now_ms()
    return {name: GroupLag(name, states[name], {at: _aged(at, p, firsts, now) for at, p in sorted(found.items())})
            for name, found in sorted(groups.items())}


def _result(future: Future[Any], what: str) -> Any:
    try:
        return future.result(timeout=REQUEST_S * 2)
    except KafkaException as error:
        raise BrokerError(f"{what}: {error.args[0].str()}",
                          hint="may this user describe groups and topics?") from error


def _states(client: AdminClient, wanted: Collection[str]) -> dict[str, str]:
    """Group → state, of the wanted ones."""
    listed = _result(client.list_consumer_groups(request_timeout=REQUEST_S), "the groups cannot be listed")
    states = {g.group_id: g.state.name.lower() for g in listed.valid if g.type in READERS}
    for name in wanted:
        if name not in states:
            raise UserError(f"there is no consumer group “{name}”{nearest(name, states)}",
                            hint="a group exists once it has committed an offset or has a member")
    return {name: state for name, state in states.items() if not wanted or name in wanted}


def _committed(client: AdminClient, groups: Iterable[str]) -> dict[str, dict[Partition, int | None]]:
    """Group → partition → committed offset; None for a partition a member reads and none has committed."""
    names = list(groups)
    asked = [client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)], request_timeout=REQUEST_S)
             for name in names]  # the client takes one group a request; they are under way together
    members = client.describe_consumer_groups(names, request_timeout=REQUEST_S) if names else {}
    out: dict[str, dict[Partition, int | None]] = {}
    for name, futures in zip(names, asked, strict=True):
        found = _result(futures[name], f"the offsets of group {name} cannot be read")
        mine: dict[Partition, int | None] = dict.fromkeys(_assigned(members[name]))
        mine |= {(at.topic, at.partition): at.offset if at.offset >= 0 else None for at in found.topic_partitions}
        out[name] = mine
    return out


def _assigned(future: Future[Any]) -> list[Partition]:
    """What a group's members read. Groups of other protocols (Kafka Connect's workers) cannot be described: nothing."""
    try:
        members = future.result(timeout=REQUEST_S * 2).members
    except KafkaException:
        return []
    return [(at.topic, at.partition) for member in members if member.assignment
            for at in member.assignment.topic_partitions]


Ends = tuple[int | None, int | None, int | None]
"""(start, last stable offset, high watermark), None where the partition has no leader."""


def _ends(client: AdminClient, places: Iterable[Partition]) -> dict[Partition, Ends]:
    """The ends of each partition, and of the others of the same topics; those of deleted topics are absent."""
    names = {topic for topic, _ in places}
    questions = [(OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED),
                 (OffsetSpec.latest(), IsolationLevel.READ_COMMITTED),
                 (OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)]
    # A deleted topic would keep the client retrying until its time-out, so the metadata is asked first.
    topics = client.list_topics(timeout=REQUEST_S).topics if names else {}
    there = [TopicPartition(name, p) for name in names & topics.keys() for p in topics[name].partitions]
    if not there:
        return {}
    answers = [client.list_offsets(dict.fromkeys(there, spec), isolation_level=level, request_timeout=REQUEST_S)
               for spec, level in questions]
    out = {}
    for place in there:
        start, stable, high = (_offset(answer[place]) for answer in answers)
        out[(place.topic, place.partition)] = (start, stable, high)
    return out


def _offset(future: Future[Any]) -> int | None:
    try:
        offset: int = future.result(timeout=REQUEST_S * 2).offset
        return offset
    except KafkaException:
        return None  # no leader just now: its lag is not known, and the others' is


def _partitions(offsets: Mapping[Partition, int | None],
                ends: Mapping[Partition, Ends]) -> dict[Partition, PartitionLag]:
    """Every partition of the topics a group has to do with, so that one it never committed is seen to be so."""
    topics = {topic for topic, _ in offsets}
    return {at: PartitionLag(start, stable, offsets.get(at),
                             0 if high is None or stable is None else max(0, high - stable))
            for at, (start, stable, high) in ends.items() if at[0] in topics}


def _firsts(settings: Settings, groups: Mapping[str, Mapping[Partition, PartitionLag]], known: Known,
            read_s: float) -> dict[Position, tuple[int, int] | None]:
    """The first record each group has still to read where it lags: (offset, timestamp), None when there is none."""
    places = {(*at, p.position) for found in groups.values() for at, p in found.items()
              if p.lag and p.position is not None}
    for place in [place for place in known if place not in places]:
        del known[place]
    firsts: dict[Position, tuple[int, int] | None] = dict(known)
    for place, message in first_records(settings, places - known.keys(), timeout_s=read_s).items():
        if message is None:
            firsts[place] = None  # not kept: a record may come
        else:
            firsts[place] = known[place] = (int(message.offset() or 0), message.timestamp()[1])
    return firsts


def _aged(at: Partition, p: PartitionLag, firsts: Mapping[Position, tuple[int, int] | None],
          now_ms: int) -> PartitionLag:
    """The same with its age, and with what of its lag is no record."""
    lag_s, markers = (None if p.lag is None else 0.0), 0
    if p.lag and p.position is not None:
        first = firsts.get((*at, p.position), (p.position, 0))
        lag_s, markers = (0.0, p.lag) if first is None else (age_s(now_ms, first[1]), min(p.lag, first[0] - p.position))
    return PartitionLag(p.start, p.end, p.committed, p.open, lag_s, markers)
