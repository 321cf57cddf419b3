"""Flights into a topic: encoded in bulk, produced by `map` over a C function, each at the time it stands for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.demo.folder import Staged
from headrace.errors import BrokerError
from headrace.settings import Settings

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


def encode(settings: Settings, staged: Staged, rows: pa.RecordBatch,
           at_ms: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Encoded:
    """The rows as the flow's source has them, its schema pushed to the registry. Raises RegistryError."""
    from headrace.codec import Encoder
    from headrace.connectors.kafka import keys_of
    from headrace.registry import Registry

    source = staged.plan.source
    schema_id = Registry(settings.registry_client()).register(f"{staged.source}-value", source.schema)
    shaped = rows.cast(source.schema.arrow)
    values, _, failed = Encoder(source.schema, shaped.schema, schema_id).encode_checked(shaped)
    assert not failed, f"flights that {source.schema.name} cannot hold: {failed[:3]}"
    key = source.config.key
    return Encoded(values, keys_of(shaped, key) if key else [None] * len(values), at_ms.tolist())


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
