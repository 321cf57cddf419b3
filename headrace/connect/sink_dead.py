"""The dead letters of a sink: written by an idempotent producer, and acknowledged before the put they belong to."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import repeat
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from headrace.connect import overrides
from headrace.connect.errors_report import BYTES_MAX, Errors, Rejected
from headrace.connect.spec import Spec
from headrace.errors import BrokerError
from headrace.settings import Settings
from headrace.topics import ensure, silent

DELIVERY_S = 60.0


class DeadLetters:
    """Used by one thread at a time."""

    def __init__(self, spec: Spec, settings: Settings, errors: Errors) -> None:
        self.spec, self.settings, self.errors = spec, settings, errors
        self._producer: Producer | None = None
        self._fault: KafkaError | None = None

    def open(self) -> None:
        """The topic is there, and a producer, if the connector names one. Raises BrokerError, UserError."""
        if not self.errors.plans:
            return
        ensure(self.settings, self.errors.plans)
        conf = self.settings.client(
            enable_idempotence=True, acks="all", compression_type="lz4", linger_ms=5, message_max_bytes=BYTES_MAX,
            message_timeout_ms=int(DELIVERY_S * 1e3), partitioner="murmur2_random")
        try:
            self._producer = Producer({**conf, **overrides.librdkafka(self.spec, "producer")},
                                      logger=silent("deadletters"))
        except KafkaException as error:
            raise overrides.refused(self.spec, "producer", error) from error

    def write(self, bad: Sequence[Rejected]) -> None:
        """Judged, and written for good. Raises UserError with errors.tolerance=none, BrokerError."""
        parts = self.errors.judge(bad)
        if not parts:
            return
        assert self._producer is not None, "open() first"
        for part in parts:
            # positional: topic, value, key, partition, callback, on_delivery, timestamp, headers
            deque(map(self._producer.produce, repeat(part.topic), part.values, part.keys, repeat(-1), repeat(None),
                      repeat(self._delivered), part.timestamps_ms, part.headers), maxlen=0)
        left = self._producer.flush(DELIVERY_S + 5)
        fault, self._fault = self._fault, None
        if left or fault is not None:
            raise BrokerError(f"connector {self.spec.name}: dead letters cannot be written to {parts[0].topic}: "
                              f"{fault.str() if fault else 'no acknowledgement'}",
                              hint="may this user write there? its batch was not put")

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._fault = error

    def close(self) -> None:
        self._producer = None
