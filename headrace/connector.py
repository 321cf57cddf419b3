"""What connectors are: the sources and sinks that `headrace connect` runs, and what a flow says about its topics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import Field

from headrace.config import Config

if TYPE_CHECKING:
    from headrace.records import Records


class TopicConfig(Config):
    """How a flow creates a topic that is absent. A topic that exists is left as it is."""

    partitions: int | None = Field(
        None, ge=1, le=10_000, description="Partitions of the topic. Left out: 1 for a source, a sink as the source.")
    retention_ms: int | None = Field(
        None, ge=-1, description="How long records are kept, in milliseconds; -1 is for ever, which topics of old "
        "event times need. Left out: the broker's default.")
    compact: bool = Field(False, description="Keep only the last record of every key (cleanup.policy=compact).")

    def topic_config(self) -> dict[str, str]:
        """The topic-level properties to create it with."""
        return {**({"retention.ms": str(self.retention_ms)} if self.retention_ms is not None else {}),
                **({"cleanup.policy": "compact"} if self.compact else {})}


class KafkaSourceConfig(TopicConfig):
    """A topic of Avro records in the registry's framing."""

    topic: str = Field(description="The topic to read.")
    schema_name: str = Field(
        alias="schema", description="The shape the flow works on: `departure` is schemas/departure.avsc. Records "
        "written with another version of it are resolved to this one.")
    key: str | None = Field(
        None, description="The field that is the records' key, for the flow's tests and for producers of ours.")
    tombstones: Literal["reject", "drop"] = Field(
        "reject", description="What becomes of records without a value: held back in the quarantine, or passed over.")


class SinkConfig(TopicConfig):
    """What all sinks of a flow say."""

    pii_accepted: bool = Field(False, description="Personal data (`headrace.pii`) may be here in clear: neither lint "
                               "nor `headrace privacy report --strict` minds.")


class KafkaSinkConfig(SinkConfig):
    """A topic that takes the rows as Avro records. Its name is the sink's."""

    schema_name: str | None = Field(
        None, alias="schema", description="The shape of the records: `departure_scored` is "
        "schemas/departure_scored.avsc. Left out: derived from the rows.")
    key: str | None = Field(
        None, description="The column that becomes the record's key: its text in UTF-8, numbers in decimal; null is no "
        "key. Left out: the source record's key.")


class QuarantineConfig(SinkConfig):
    """A topic that takes the source's payloads as they came, with the reasons in headers. Its name is the sink's."""

    message_bytes_max: int = Field(
        10_485_760, ge=1, description="The topic's max.message.bytes: wide, since oversized records end here.")

    def topic_config(self) -> dict[str, str]:
        return {**super().topic_config(), "max.message.bytes": str(self.message_bytes_max)}


class DeadLetterConfig(QuarantineConfig):
    """A flow's dead letters. They are kept for ever, since Kafka deletes by the time of the source record, and wider
    than any source, since a source's largest record must fit in with the reasons."""

    retention_ms: int | None = Field(-1, ge=-1, description="How long they are kept, in milliseconds; -1 is for ever.")
    message_bytes_max: int = Field(20_971_520, ge=1, description="The topic's max.message.bytes, at least.")


DEAD_LETTERS = DeadLetterConfig.model_validate({"pii_accepted": True})


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a source gives at a time: records, and where in which of its partitions it stands behind them."""

    partition: Mapping[str, Any]
    """What `position` is of, JSON, e.g. {"filename": "a.csv"}; a source may have many, and goes from one to another."""
    position: Mapping[str, Any]
    """Where to go on, JSON."""
    records: Sequence[Records]
    where: Callable[[int], str] = str
    """Where record `index` came from, for people: "a.csv:12"."""
    raw: Callable[[int], bytes] = lambda index: b""
    """Its original bytes, for the dead-letter topic."""
    failures: Sequence[tuple[str, bytes, Sequence[str]]] = ()
    """(where, original bytes, reasons) of what could not become a record at all."""
    more: bool = False
    """Whether the next may be there already, so that nobody waits to hear that this one is committed."""

    def __len__(self) -> int:
        return sum(map(len, self.records)) + len(self.failures)


class Source(Protocol):
    """Where records come from. One thread uses it. A module in connectors/ names its class `SOURCE`.

    Made by `SOURCE(config, project=…)`, `config` being an instance of its `Config`. A class may say
    `wants_schema: ClassVar[bool] = True`: then the runtime sets its instance's `schema: AvroSchema | None` before
    `open`, to what the common key `schema` names, None where that is left out; the source says whether it can do
    without. And by `batch_records` how many records it is asked for at a time where `batch.records` is left out.
    """

    Config: ClassVar[type[Config]]
    ended: bool
    """Whether there will never be more: a file's end."""

    def open(self, stored: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]) -> None:
        """Go on where it stood: `stored` gives the position of a partition, None at the very beginning. It may be
        asked later, too, for a partition that turns up while the source runs. Opened again after `close`: the same,
        from what is stored then. Raises UserError, or Retriable while the other side does not answer."""

    def pull(self, records_max: int) -> Pulled | None:
        """The next records; None when there are none now (it waits a little itself, half a second at most). Without
        records it may still say a new position, which is committed like any other: len() may be 0. Raises
        Retriable while the other side does not answer, UserError for what will not mend itself."""

    def committed(self, pulled: Pulled) -> None:
        """These are in Kafka for good: whoever waits for that may be told."""

    def close(self) -> None: ...


class RecordsRefused(Exception):
    """Some records of a `put` cannot be stored, ever: `reasons` by place in the poll. Nothing of the put is stored."""

    def __init__(self, reasons: Mapping[int, str]) -> None:
        super().__init__(f"{len(reasons)} records refused")
        self.reasons = reasons


class Sink(Protocol):
    """Where records go. One thread uses it. A module in connectors/ names its class `SINK`.

    Made by `SINK(config, project=…, name=…)`. `exactly_once`: the other side stores `ends` with the records, in one
    transaction of its own, and tells them again in `open`. A class may wish for larger polls, where each put costs the
    other side a file or a commit: by `batch_records`, how many records, and `linger_s`, how long a poll that is not
    full waits for them. One that keeps offsets may have `alter(positions)`, by which a stopped connector is told to go
    on elsewhere: (topic, partition) → offset, None to forget it.
    """

    Config: ClassVar[type[Config]]
    exactly_once: ClassVar[bool]

    def open(self, partitions: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """(topic, partition)s that are ours from now on, all of them; where the other side says each goes on. What it
        does not know is left out: then Kafka's committed offset counts. Called again after each rebalance."""

    def put(self, records: Sequence[Records], ends: Mapping[tuple[str, int], int]) -> None:
        """Store all of it, or nothing. `ends` is the offset to go on from, for every partition of the poll, those
        included of which every record was filtered out. Idempotent by `ends` where `exactly_once`. Raises Retriable,
        RecordsRefused, UserError."""

    def close(self) -> None: ...
