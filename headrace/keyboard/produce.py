"""Records of a file, a pipe or the keyboard into a topic: idempotent, every one acknowledged or told by its line."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from confluent_kafka import KafkaError, Message, Producer

from headrace.batch import Index, Outgoing
from headrace.codec import AvroSchema
from headrace.connect.pace import Pace
from headrace.connect.shape import Shape, check_fields, shape
from headrace.errors import BrokerError, UserError
from headrace.ingest import Bad, Reader
from headrace.marked import nearest
from headrace.reach import advice, refuses
from headrace.registry import Registry
from headrace.settings import Settings
from headrace.topics import TopicPlan, ensure, existing, message_bytes_max

PIECE_RECORDS = 20_000
FLUSH_RECORDS, FLUSH_BYTES = 200_000, 64 << 20
"""After so many, all are waited for: what is not acknowledged is kept, to be told by its line."""
DELIVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where records go and as what."""

    topic: str
    schema: AvroSchema
    key: str | None = None
    timestamp: str | None = None


@dataclass(slots=True)
class Produced:
    records: int = 0
    rejected: int = 0


def prepare(settings: Settings, target: Target, *, partitions: int = 1, create: bool = True,
            told: Callable[[str], None] = lambda text: None) -> Shape:
    """The topic there, and the schema registered as <topic>-value. `told` hears of what is created.

    A topic made for records with times of their own keeps them for ever. Raises UserError (no topic and not `create`,
    no such field), SchemaError (the registry refuses the schema), BrokerError, RegistryError.
    """
    check_fields(target.schema, target.key, target.timestamp)
    there = existing(settings)
    if target.topic not in there and not create:
        raise UserError(f"there is no topic {target.topic}{nearest(target.topic, there)}",
                        hint="leave --no-create away, and it is created")
    schema_id = Registry(settings.registry_client()).register(f"{target.topic}-value", target.schema)
    config = {"retention.ms": "-1"} if target.timestamp else {}
    if target.topic not in there and ensure(settings, [TopicPlan(target.topic, partitions, config)]):
        kept = ", records kept for ever" if config else ""
        told(f"created topic {target.topic}: {partitions} partition{'s' if partitions > 1 else ''}{kept}")
    bytes_max = message_bytes_max(settings, [target.topic])[target.topic]
    return shape(target.topic, target.schema, schema_id, target.key, target.timestamp, bytes_max)


class Delivery:
    """An idempotent producer that remembers what is not yet acknowledged, to tell it by its line."""

    def __init__(self, settings: Settings, bytes_max: int) -> None:
        conf = settings.client(
            enable_idempotence=True, acks="all", compression_type="lz4", linger_ms=5, batch_size=1 << 20,
            queue_buffering_max_messages=2 * FLUSH_RECORDS, queue_buffering_max_kbytes=4 * FLUSH_BYTES >> 10,
            message_max_bytes=bytes_max + 65_536, message_timeout_ms=int(DELIVERY_S * 1e3), retry_backoff_ms=10)
        conf |= {"partitioner": "murmur2_random", "delivery.report.only.error": True}
        self._settings = settings
        self._faults: list[tuple[KafkaError, bytes | None]] = []
        self._sent: list[tuple[Outgoing, Index]] = []
        self._bytes = 0
        self._error: KafkaError | None = None
        self._producer: Any = Producer({**conf, "on_delivery": self._report, "error_cb": self._on_error})

    def _on_error(self, error: KafkaError) -> None:
        self._error = error

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._faults.append((error, message.value()))

    def send(self, part: Outgoing, at: Index) -> None:
        """Hand over records that came from the lines `at`. Raises BrokerError when earlier ones were not delivered."""
        sizes = np.cumsum(np.fromiter(map(len, part.values), dtype=np.int64, count=len(part)))  # type: ignore[arg-type]
        begin = 0
        while begin < len(part):
            before = int(sizes[begin - 1]) if begin else 0
            end = max(begin + 1, int(np.searchsorted(sizes, before + FLUSH_BYTES)))
            here = slice(begin, end)
            self._sent.append((Outgoing(part.topic, part.values[here], part.keys[here], part.timestamps_ms[here],
                                        part.headers[here]), at[here]))
            self._bytes += int(sizes[min(end, len(part)) - 1]) - before
            # positional: topic, value, key, partition, callback, on_delivery, timestamp
            deque(map(self._producer.produce, repeat(part.topic), part.values[here], part.keys[here], repeat(-1),
                      repeat(None), repeat(None), part.timestamps_ms[here]), maxlen=0)
            begin = end
            self._producer.poll(0)
            if self._bytes >= FLUSH_BYTES or sum(len(p) for p, _ in self._sent) >= FLUSH_RECORDS:
                self.flush()
        self._check()

    def flush(self) -> None:
        """Wait until all is acknowledged. Raises BrokerError naming the first record that was not."""
        left = self._producer.flush(DELIVERY_S + 5.0)
        self._check()
        if left:
            raise self._undelivered(f"{left:,} records are not acknowledged after {DELIVERY_S:.0f} s", self._error)
        self._sent, self._bytes = [], 0

    def _check(self) -> None:
        if not self._faults:
            return
        error, value = self._faults[0]
        lines = (int(at[part.values.index(value)]) for part, at in self._sent if value in part.values)
        more = f" (and {len(self._faults) - 1:,} more)" if len(self._faults) > 1 else ""
        raise self._undelivered(f"the record of line {next(lines, '?')} was not delivered{more}: {error.str()}",
                                error if refuses(error) else self._error)

    def _undelivered(self, what: str, error: KafkaError | None) -> BrokerError:
        self._producer.purge()
        last = f"; last: {self._error.str()}" if self._error else ""
        check = advice(self._settings, error,
                       f"is Kafka at {self._settings.bootstrap} up, and may this user write there?")
        return BrokerError(f"{what}{last}", hint=f"{check} Records told before are delivered; those after this one may "
                                                 "not be")


def produce(settings: Settings, reader: Reader, made: Shape, *, rate: float | None = None,
            rejected: Callable[[Bad], None], progress: Callable[[int], None] = lambda records: None) -> Produced:
    """Everything `reader` gives, in its order and acknowledged. `rejected` hears of each bad record as it is met.

    KeyboardInterrupt ends it after what is read. Raises BrokerError (not delivered), UserError (a damaged file).
    """
    done = Produced()
    delivery = Delivery(settings, made.bytes_max)
    pace, never = Pace(rate, PIECE_RECORDS), threading.Event()
    try:
        while (piece := reader.read(pace.records_max)) is not None:
            sent, at, bad = made.records(piece)
            for one in bad:
                rejected(one)
            done.rejected += len(bad)
            delivery.send(sent, at)
            done.records += len(sent)
            progress(done.records)
            pace.wait(len(piece), never)
    except KeyboardInterrupt:
        pass
    delivery.flush()
    return done
