"""Committed records of a topic, decoded with the schemas they name, as values for people and for pipes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import methodcaller
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from headrace.codec.types import Type
from headrace.errors import BrokerError, UserError
from headrace.expressions import Expression, compile_expression
from headrace.ingest.values import plain
from headrace.marked import nearest
from headrace.payloads import Reader, Written, without_pii
from headrace.peek import gulp, reader, show_key
from headrace.registry import Registry
from headrace.settings import Settings
from headrace.topics import watermarks

REACH_S = 10.0
POLL_S = 0.1
BATCH_RECORDS = 5_000
RAW_SHOWN_BYTES = 200
JSON_KINDS = frozenset({"null", "boolean", "int", "long", "float", "double", "string", "enum"})


@dataclass(frozen=True, slots=True)
class Ask:
    """What to read. `offset` counts from the end where it is negative; None: from `beginning`, or what comes now."""

    topic: str
    beginning: bool = False
    partition: int | None = None
    offset: int | None = None
    records_max: int | None = None
    until_end: bool = False
    timeout_s: float | None = None
    where: str | None = None
    headers: bool = False
    show_pii: bool = False
    """Whether fields are shown that their schema tags as personal data; else they are `[hidden]`."""


@dataclass(slots=True)
class Told:
    """What was read: records shown, passed over by `where`, and not decodable."""

    shown: int = 0
    passed: int = 0
    undecodable: int = 0


@dataclass(slots=True)
class Consumption:
    """A reading under way: iterate over `batches()`; `told` has the counts."""

    settings: Settings
    ask: Ask
    told: Told = field(default_factory=Told)
    _filters: dict[int, Expression] = field(default_factory=dict)

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        """Records as plain values: partition, offset, timestamp, key, value; headers where asked; for what cannot be
        decoded `error` and `raw` (hex) in place of `value`. As many at a time as have come.

        Ends by `records_max`, `until_end`, or `timeout_s` without a record; else never. Raises UserError (no such
        topic or partition), ExpressionError, BrokerError, RegistryError.
        """
        payloads = Reader(Registry(self.settings.registry_client()).schema)
        for messages in self._polled():
            left = None if self.ask.records_max is None else self.ask.records_max - self.told.shown
            records = self._decoded(payloads, messages)[:left]
            self.told.shown += len(records)
            yield records
            if self.told.shown == self.ask.records_max:
                return

    def _polled(self) -> Iterator[list[Message]]:
        with reader(self.settings, auto_offset_reset="earliest", fetch_message_max_bytes=8 << 20) as consumer:
            ends = self._assign(consumer)
            heard = time.monotonic()
            while ends or not self.ask.until_end:
                got = gulp(consumer, min(BATCH_RECORDS, self.ask.records_max or BATCH_RECORDS), POLL_S)
                errors = list(map(methodcaller("error"), got))
                messages = [m for m, error in zip(got, errors, strict=True) if error is None]
                if messages:
                    heard = time.monotonic()
                    if self.ask.until_end:
                        messages = [m for m in messages if m.offset() < ends.get(m.partition(), 0)]
                    yield messages
                for message, error in zip(got, errors, strict=True):
                    _reached(ends, message, error)
                if self.ask.timeout_s is not None and time.monotonic() - heard > self.ask.timeout_s:
                    return

    def _assign(self, consumer: Consumer) -> dict[int, int]:
        """Where reading starts is set; where each partition that has something to read ends now is told."""
        ask = self.ask
        found = consumer.list_topics(ask.topic, timeout=REACH_S).topics[ask.topic]
        if found.error is not None:
            there = consumer.list_topics(timeout=REACH_S).topics
            raise UserError(f"there is no topic {ask.topic}{nearest(ask.topic, [t for t in there if t[:2] != '__'])}")
        if ask.partition is not None and ask.partition not in found.partitions:
            raise UserError(f"{ask.topic} has partitions 0 to {max(found.partitions)}, and no {ask.partition}")
        chosen = sorted(found.partitions) if ask.partition is None else [ask.partition]
        bounds = {p: watermarks(consumer, ask.topic, p, REACH_S) for p in chosen}
        starts = {p: _start(ask, low, high) for p, (low, high) in bounds.items()}
        consumer.assign([TopicPartition(ask.topic, p, at) for p, at in starts.items()])
        return {p: high for p, (low, high) in bounds.items() if max(starts[p], low) < high}

    def _decoded(self, payloads: Reader, messages: Sequence[Message]) -> list[dict[str, Any]]:
        written, failed = payloads.read([m.value() for m in messages])
        out: dict[int, dict[str, Any]] = {}
        for one in written:
            kept = self._kept(one)
            rows = one.rows if kept is None else one.rows.take(pa.array(kept))
            index = one.index if kept is None else one.index[kept]
            self.told.passed += len(one.index) - len(index)
            odd = [f for f in one.schema.type.fields if not _is_json(f.type)]
            for at, value in zip(index.tolist(), _readable(rows).to_pylist(), strict=True):
                said = value | {f.name: plain(f.type, value[f.name]) for f in odd}
                out[at] = {"value": said if self.ask.show_pii or not one.schema.pii else
                           without_pii(one.schema.type, said)}
        self.told.undecodable += len(failed)
        if self.ask.where is None:
            for at, reason in failed.items():
                raw = messages[at].value()
                out[at] = {"error": reason, "raw": None if raw is None else raw[:RAW_SHOWN_BYTES].hex()}
        return [{**self._place(messages[at]), **out[at]} for at in sorted(out)]

    def _kept(self, one: Written) -> Any:
        if self.ask.where is None:
            return None
        if one.id not in self._filters:
            made = compile_expression(self.ask.where, one.rows.schema, where="--where")
            if not pa.types.is_boolean(made.type):
                raise UserError(f"--where: “{self.ask.where}” is {made.type}, and must be true or false")
            self._filters[one.id] = made
        mask = pc.fill_null(self._filters[one.id].evaluate(one.rows), False)
        return np.flatnonzero(mask.to_numpy(zero_copy_only=False))

    def _place(self, message: Message) -> dict[str, Any]:
        at = message.timestamp()[1]
        said = {"partition": message.partition(), "offset": message.offset(),
                "timestamp": datetime.fromtimestamp(at / 1e3, UTC).isoformat(timespec="milliseconds").replace(
                    "+00:00", "Z"), "key": show_key(message.key())}
        if self.ask.headers:
            said["headers"] = [[name, show_key(value)] for name, value in message.headers() or ()]
        return said


def _is_json(type_: Type) -> bool:
    """Whether JSON has the values as they are; true of nearly all columns, which are then left alone."""
    inner = type_.some[0] if len(type_.some) == 1 else type_
    return inner.logical is None and inner.kind in JSON_KINDS


def _start(ask: Ask, low: int, high: int) -> int:
    if ask.offset is not None:
        return max(low, high + ask.offset) if ask.offset < 0 else ask.offset
    return low if ask.beginning else high


def _reached(ends: dict[int, int], message: Message, error: KafkaError | None) -> None:
    """Takes partitions that are read to their end out of `ends`. Raises BrokerError for what waiting does not mend."""
    partition, offset = int(message.partition() or 0), int(message.offset() or 0)
    if error is None:
        if offset + 1 >= ends.get(partition, offset + 2):
            ends.pop(partition)
    elif error.code() == KafkaError._PARTITION_EOF:
        if offset >= ends.get(partition, offset + 1):
            ends.pop(partition)
    elif not error.retriable():
        raise BrokerError(f"{message.topic()} cannot be read: {error.str()}")


def _readable(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Nanoseconds, which Python's datetime has not, as text."""
    nanos = [i for i, one in enumerate(rows.schema) if pa.types.is_timestamp(one.type) and one.type.unit == "ns"]
    for i in nanos:
        one = rows.schema.field(i)
        rows = rows.set_column(i, pa.field(one.name, pa.string()), pc.cast(rows.column(i), pa.string()))
    return rows

