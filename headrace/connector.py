"""What a flow says about its topics: the configs of the Kafka source, the Kafka sink and the quarantine sink."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from headrace.config import Config


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


class KafkaSinkConfig(TopicConfig):
    """A topic that takes the rows as Avro records. Its name is the sink's."""

    schema_name: str | None = Field(
        None, alias="schema", description="The shape of the records: `departure_scored` is "
        "schemas/departure_scored.avsc. Left out: derived from the rows.")
    key: str | None = Field(
        None, description="The column that becomes the record's key: its text in UTF-8, numbers in decimal; null is no "
        "key. Left out: the source record's key.")


class QuarantineConfig(TopicConfig):
    """A topic that takes the source's payloads as they came, with the reasons in headers. Its name is the sink's."""

    message_bytes_max: int = Field(
        10_485_760, ge=1, description="The topic's max.message.bytes: wide, since oversized records end here.")

    def topic_config(self) -> dict[str, str]:
        return {**super().topic_config(), "max.message.bytes": str(self.message_bytes_max)}
