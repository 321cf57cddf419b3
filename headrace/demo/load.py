"""Flights into a topic: encoded in bulk, produced by `map` over a C function, each at the time it stands for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.demo.folder import Staged
from headrace.errors import BrokerError
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.codec import AvroSchema
    from headrace.plan import SourcePlan

Times = np.ndarray[tuple[int], np.dtype[np.int64]]
CHUNK = 25_000
FLUSH_S = 60.0


@dataclass(frozen=True, slots=True)
class Encoded:
    """Records ready for a topic, column by column."""

    values: Sequence[bytes]
    keys: Sequence[bytes | None]
    timestamps_ms: Sequence[int]

    def __len__(self) -> int:
        return len(self.values)

    def part(self, rows: slice) -> Encoded:
        return Encoded(self.values[rows], self.keys[rows], self.timestamps_ms[rows])


def encode(settings: Settings, staged: Staged, rows: pa.RecordBatch, at_ms: Times) -> Encoded:
    """The rows as the flow's source has them, its schema pushed to the registry. Raises RegistryError."""
    return encode_as(settings, staged.plan.source, rows, at_ms)


def encode_as(settings: Settings, source: SourcePlan, rows: pa.RecordBatch, at_ms: Times) -> Encoded:
    """The same for a source, e.g. one of several of a flow."""
    from headrace.connectors.kafka import keys_of

    shaped = rows.cast(source.schema.arrow)
    values = encode_rows(settings, source.config.topic, source.schema, shaped)
    key = source.config.key
    return Encoded(values, keys_of(shaped, key) if key else [None] * len(values), at_ms.tolist())


def encode_rows(settings: Settings, topic: str, schema: AvroSchema, rows: pa.RecordBatch) -> list[bytes]:
    """The values of records of a topic, whose schema is pushed to the registry. Raises RegistryError."""
    from headrace.codec import Encoder
    from headrace.registry import Registry

    schema_id = Registry(settings.registry_client()).register(f"{topic}-value", schema)
    shaped = rows.cast(schema.arrow)
    values, _, failed = Encoder(schema, shaped.schema, schema_id).encode_checked(shaped)
    assert not failed, f"rows that {schema.name} cannot hold: {failed[:3]}"
    return values


class Loader:
    """A producer for as long as the demo loads."""

    def __init__(self, settings: Settings) -> None:
        from confluent_kafka import Producer

        self._settings = settings
        self._producer: Any = Producer(settings.client(
            linger_ms=5, enable_idempotence=True, partitioner="murmur2_random", compression_type="lz4",
            queue_buffering_max_messages=1_000_000, queue_buffering_max_kbytes=1 << 20))

    def send(self, topic: str, records: Encoded, progress: Callable[[int], None] = lambda n: None) -> None:
        """All of them, in order, and acknowledged. Raises BrokerError."""
        for start in range(0, len(records), CHUNK):
            part = records.part(slice(start, start + CHUNK))
            deque(map(self._producer.produce, repeat(topic), part.values, part.keys, repeat(-1), repeat(None),
                      repeat(None), part.timestamps_ms), maxlen=0)
            self._producer.poll(0)
            progress(start + len(part))
        if left := self._producer.flush(FLUSH_S):
            raise BrokerError(f"Kafka at {self._settings.bootstrap} did not take {left:,} of {len(records):,} records "
                              f"of {topic} within {FLUSH_S:g} s")
