"""The keys that all connectors share, with Kafka Connect's names and, where it has them, its defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from headrace.config import TOPIC_NAME, Config
from headrace.topics import TopicPlan

PREFIXES = ("transforms.", "predicates.", "key.converter.", "value.converter.", "header.converter.",
            "producer.override.", "consumer.override.", "admin.override.")
"""Families of keys whose members are somebody else's: a transform's, a converter's, a Kafka client's."""
CREATION = "topic.creation."


def words(text: Any) -> Any:
    """“a, b” as ("a", "b"), once each."""
    return tuple(dict.fromkeys(filter(None, map(str.strip, text.split(","))))) if isinstance(text, str) else text


Words = Annotated[tuple[str, ...], BeforeValidator(words)]
Lower = BeforeValidator(lambda v: v.strip().lower() if isinstance(v, str) else v)
Stripped = BeforeValidator(lambda v: (v.strip() or None) if isinstance(v, str) else v)


class Common(Config):
    """What every connector has."""

    name: str = Field("", description="The connector's name: its positions, its consumer group and its transactional "
                      "ids are made of it.")
    connector_class: str = Field("", alias="connector.class", description="What runs it: an alias, or a full name.")
    plugin_version: str = Field("", alias="connector.plugin.version", description="Accepted: there is one version, "
                                "headrace's own.")
    tasks_max: int = Field(1, alias="tasks.max", ge=1, le=1000, description="Tasks at most. A sink runs so many, a "
                           "source runs one.")
    tasks_max_enforce: bool = Field(True, alias="tasks.max.enforce", description="Accepted: no connector of ours makes "
                                    "more tasks than it may.")
    key_converter: Annotated[str | None, Stripped] = Field(
        None, alias="key.converter", description="How keys are written and read. Left out: as text (a record with "
        "fields, in a source: Avro).")
    value_converter: Annotated[str | None, Stripped] = Field(
        None, alias="value.converter", description="How values are written and read. Left out: Avro.")
    header_converter: Annotated[str | None, Stripped] = Field(
        None, alias="header.converter", description="How headers are written and read. Left out: as text.")
    transforms: Words = Field((), description="Names of the transforms, in their order; each is described by "
                              "`transforms.<name>.type` and keys of its own.")
    predicates: Words = Field((), description="Names of the predicates, as `transforms`.")
    config_action_reload: Annotated[Literal["none", "restart"], Lower] = Field(
        "restart", alias="config.action.reload", description="Accepted: secrets are read at the start of a task.")
    errors_retry_timeout_ms: int = Field(
        0, alias="errors.retry.timeout", ge=-1, description="For so many milliseconds an operation that failed by an "
        "outage is tried again; -1 is for ever. What reads from or writes to the other side is tried for ever.")
    errors_retry_delay_max_ms: int = Field(
        60_000, alias="errors.retry.delay.max.ms", ge=0, description="Between two tries there are 300 milliseconds, "
        "then twice as many each time, up to this.")
    errors_tolerance: Literal["none", "all"] = Field(
        "none", alias="errors.tolerance", description="`none`: a bad record stops the task before its batch; `all`: "
        "bad records go to the dead-letter topic or, where none is named, to the log.")
    errors_log_enable: bool | None = Field(
        None, alias="errors.log.enable", description="Whether each bad record is told in the log. Left out: where no "
        "dead-letter topic is named.")
    errors_log_include_messages: bool = Field(
        False, alias="errors.log.include.messages", description="Whether the log shows the bad records themselves.")
    dead_letters: Annotated[str | None, Stripped] = Field(
        None, alias="errors.deadletterqueue.topic.name", pattern=TOPIC_NAME, description="The topic for the original "
        "bytes of bad records. Needs errors.tolerance=all.")
    dead_letters_replication: int = Field(
        -1, alias="errors.deadletterqueue.topic.replication.factor", ge=-1, description="Copies of it, where it is "
        "created; -1 is the broker's default.")
    dead_letters_headers: bool | None = Field(
        None, alias="errors.deadletterqueue.context.headers.enable", description="Whether dead letters have Kafka "
        "Connect's headers __connect.errors.* . Left out: yes; for Kafka Connect's own class names no, as there.")
    batch_records: int = Field(20_000, alias="batch.records", ge=1, le=200_000, description="Records at a time, at "
                               "most: of a source's pull, or of a put. Left out: files and tables take more.")
    rate_records_per_second: float | None = Field(
        None, alias="rate.records.per.second", gt=0, description="No faster than this. Left out: as fast as it goes.")


class SourceKeys(Common):
    """What sources have besides."""

    schema_name: str | None = Field(
        None, alias="schema", min_length=1, description="The records' shape: `departure` is schemas/departure.avsc. It "
        "is registered as <topic>-value. Left out: derived from the records.")
    key: str | None = Field(None, min_length=1, description="The field that becomes the record's key, as text. Left "
                            "out: as the source gives it.")
    timestamp_column: str | None = Field(
        None, alias="timestamp.column", min_length=1, description="The field that becomes the record's time: a "
        "timestamp, a date, or a long of milliseconds. Left out: as the source gives it, else the time of writing.")
    exactly_once_support: Annotated[Literal["requested", "required"], Lower] = Field(
        "requested", alias="exactly.once.support", description="Either way: records and positions are written in one "
        "transaction.")
    transaction_boundary: Annotated[Literal["poll", "interval", "connector"], Lower] = Field(
        "poll", alias="transaction.boundary", description="`poll`: a transaction is what the source gives at a time, "
        "in a backlog with what it gives while the one before is committed; `interval`: what it gives in "
        "transaction.boundary.interval.ms.")
    transaction_interval_ms: int = Field(
        10_000, alias="transaction.boundary.interval.ms", ge=0, le=10_000, description="With interval: how long a "
        "transaction gathers records.")
    offsets_topic: Annotated[str | None, Stripped] = Field(
        None, alias="offsets.storage.topic", pattern=TOPIC_NAME, description="The compacted topic for this connector's "
        "positions. Left out: headrace.connect.offsets.")
    creation_groups: Words = Field((), alias="topic.creation.groups", description="Names of groups of topics, each "
                                   "with topic.creation.<group>.include, .exclude, .partitions and so on.")


class SinkKeys(Common):
    """What sinks have besides."""

    topics: Words = Field((), description="The topics to read, with commas between.")
    topics_regex: Annotated[str | None, Stripped] = Field(
        None, alias="topics.regex", description="Or: every topic whose whole name matches this regular expression.")
    batch_linger_ms: int | None = Field(
        None, alias="batch.linger.ms", ge=0, le=60_000, description="How long a put that is not full waits for more "
        "records. Left out: as the sink says, else 100.")


@dataclass(frozen=True, slots=True)
class Group:
    """Topics that are created alike. Those of “default” are all that no other group has."""

    name: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    partitions: int = 1
    replication: int = -1
    config: Mapping[str, str] = field(default_factory=dict)

    def has(self, topic: str) -> bool:
        return (any(re.fullmatch(p, topic) for p in self.include)
                and not any(re.fullmatch(p, topic) for p in self.exclude))


@dataclass(frozen=True, slots=True)
class Creation:
    """How the topics of a source are created where they are absent: topic.creation.*"""

    groups: tuple[Group, ...] = (Group("default", (".*",)),)

    def plan(self, topic: str, *, event_times: bool) -> TopicPlan:
        """With `event_times` records are kept for ever, unless it is said otherwise: they may be old."""
        group = next(g for g in self.groups if g.name == "default" or g.has(topic))
        kept = {"retention.ms": "-1"} if event_times else {}
        return TopicPlan(topic, group.partitions, {**kept, **group.config}, group.replication)


def creation_of(keys: Mapping[str, str], names: Sequence[str]) -> tuple[Creation, list[tuple[str, str]]]:
    """topic.creation.* as groups, and (key, message) of what is wrong with them."""
    wrong: list[tuple[str, str]] = []
    names = [*(n for n in names if n != "default"), "default"]
    told = {key for key in keys if key.startswith(CREATION) and key != f"{CREATION}groups"}
    default = Group("default", (".*",))
    groups: dict[str, Group] = {}
    for name in reversed(names):  # the default first: others have its partitions and copies where they say none
        prefix = f"{CREATION}{name}."
        own = {key.removeprefix(prefix): keys[key] for key in told if key.startswith(prefix)}
        told -= {prefix + key for key in own}
        default = groups.get("default", default)
        if name != "default" and not words(own.get("include", "")):
            wrong.append((f"{prefix}include", f"the group “{name}” needs the names of its topics, as regular "
                          "expressions"))
        groups[name] = Group(
            name, (".*",) if name == "default" else words(own.get("include", "")), words(own.get("exclude", "")),
            _number(own, "partitions", default.partitions, prefix, wrong),
            _number(own, "replication.factor", default.replication, prefix, wrong),
            {k: v for k, v in own.items() if k not in ("include", "exclude", "partitions", "replication.factor")})
        wrong += _patterns(groups[name], prefix)
    wrong += [(key, f"“{key.split('.')[2]}” is none of topic.creation.groups") for key in sorted(told)]
    return Creation(tuple(groups[name] for name in names)), wrong


def _number(own: Mapping[str, str], key: str, default: int, prefix: str, wrong: list[tuple[str, str]]) -> int:
    text = own.get(key)
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError:
        wrong.append((prefix + key, f"“{text}” is no whole number"))
        return default
    if number == 0 or number < -1 or number > 10_000:
        wrong.append((prefix + key, f"{number} is neither -1 nor 1 … 10,000"))
        return default
    return 1 if number == -1 and key == "partitions" else number


def _patterns(group: Group, prefix: str) -> Iterator[tuple[str, str]]:
    for key, patterns in (("include", group.include), ("exclude", group.exclude)):
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                yield prefix + key, f"“{pattern}” is no regular expression: {error}"
