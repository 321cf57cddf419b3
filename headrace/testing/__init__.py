"""For users' tests as well as ours: records without a broker; `proxy` does harm between clients and brokers."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.batch import Headers


@dataclass(frozen=True, slots=True)
class Record:
    """A record as a consumer would hand it over, with the methods of `confluent_kafka.Message`."""

    value_: bytes | None
    topic_: str = "test"
    partition_: int = 0
    offset_: int = 0
    key_: bytes | None = None
    timestamp_ms: int = 0
    headers_: Headers | None = field(default=None)

    def value(self) -> bytes | None:
        return self.value_

    def topic(self) -> str:
        return self.topic_

    def partition(self) -> int:
        return self.partition_

    def offset(self) -> int:
        return self.offset_

    def key(self) -> bytes | None:
        return self.key_

    def timestamp(self) -> tuple[int, int]:
        return (1, self.timestamp_ms)

    def headers(self) -> Headers | None:
        return self.headers_


def records(values: list[bytes | None], topic: str = "test", partition: int = 0, offset: int = 0) -> list[Record]:
    """Consecutive records of one partition."""
    return [Record(value, topic, partition, offset + i) for i, value in enumerate(values)]
