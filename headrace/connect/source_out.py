"""Records of a source as what the producer takes: encoded by the converters, keyed, with their time and headers.

Values of a schema that the project names go straight to the codec's encoder; everything else goes through a converter.
A topic is created, and its limits asked for, when the first record goes there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.batch import Headers, Index, Outgoing
from headrace.codec import AvroSchema, Encoder
from headrace.connect.shape import NO_HEADERS, check_time, milliseconds
from headrace.connect.spec import Spec, converter_keys
from headrace.connectors.kafka import RECORD_OVERHEAD_BYTES
from headrace.errors import SchemaError, UserError
from headrace.marked import nearest
from headrace.records import Column, Failure, Records
from headrace.records.converters import (
    JAVA_NAMES,
    SIMPLE_HEADERS,
    Converter,
    converter_of,
    header_converter_of,
    name_of,
)
from headrace.registry import Registry
from headrace.settings import Settings
from headrace.topics import ensure, message_bytes_max

PRODUCE_BYTES_MAX = 64 << 20
"""No record is larger, whatever its topic takes."""
AVRO = "io.confluent.connect.avro.AvroConverter"
OURS = "headrace.codec.Encoder"


def registry_of(settings: Settings) -> Registry | None:
    """The registry, None where none is known: whoever needs it says so."""
    return Registry(settings.registry_client()) if settings.registry_url else None


def converter(spec: Spec, what: str, registry: Registry | None, default: str) -> Converter:
    """The converter of “key” or “value”, with its sub-keys."""
    return converter_of(getattr(spec.common, f"{what}_converter") or default, converter_keys(spec.keys, what),
                        what == "key", registry)


def class_name(named: str) -> str:
    """A converter's Java name, for dead letters; that of one which has none is its own."""
    try:
        return JAVA_NAMES[name_of(named)]
    except UserError:
        return SIMPLE_HEADERS if named == "simple" else named


@dataclass(slots=True)
class _Target:
    """A topic, and how its values are encoded by schemas of ours."""

    topic: str
    bytes_max: int
    schema_id: int | None = None
    encoders: list[tuple[pa.Schema, Encoder | None]] = field(default_factory=list)


class Outbound:
    """Not used by two threads at a time. Its calls raise Retriable while the registry does not answer, BrokerError,
    and SchemaError where the registry refuses a schema."""

    def __init__(self, spec: Spec, settings: Settings, schema: AvroSchema | None) -> None:
        self.spec, self.settings, self.schema = spec, settings, schema
        self.common = spec.common
        self.registry = registry_of(settings)
        named = self.common.header_converter or SIMPLE_HEADERS
        self.header_class = class_name(named)
        self.headers = header_converter_of(named, converter_keys(spec.keys, "header"))
        named = self.common.value_converter
        plain = named is None or (named in (AVRO, "avro") and not converter_keys(spec.keys, "value"))
        self.schema = schema if plain else None  # a converter that is told how to write writes by itself
        self.value_class = class_name(self.common.value_converter or AVRO)
        self.key_class = class_name(self.common.key_converter or AVRO)
        self._targets: dict[str, _Target] = {}

    @cached_property
    def values(self) -> Converter:
        return converter(self.spec, "value", self.registry, AVRO)

    @cached_property
    def keys(self) -> Converter:
        return converter(self.spec, "key", self.registry, AVRO)

    def prepared(self, records: Records) -> tuple[Records, list[Failure]]:
        """With key and time from the columns that the connector names; failures of those whose time cannot be."""
        common = self.common
        if common.key is None and common.timestamp_column is None:
            return records, []
        values = records.value.values
        if not pa.types.is_struct(values.type):
            raise UserError(f"the values of {records.topic} are {values.type} without fields, so there is no "
                            f"“{common.key or common.timestamp_column}”", hint="leave `key` and `timestamp.column` out")
        changes: dict[str, Any] = {}
        bad: list[Failure] = []
        good = None
        if common.key is not None:
            changes["key"] = Column(_field(values, common.key))
        if common.timestamp_column is not None:
            column = _field(values, common.timestamp_column)
            check_time(common.timestamp_column, column.type)
            times = milliseconds(column, -1)
            early = (times < 0) & (times != -1)
            if early.any():
                reason = f"{common.timestamp_column}: before 1970, which the time of a Kafka record cannot be"
                bad = [Failure(int(at), "VALUE_CONVERTER", OURS, reason) for at in records.index[early].tolist()]
                good = np.flatnonzero(~early)
            changes["timestamps_ms"] = times
        records = records.but(**changes)
        return (records if good is None else records.take(good)), bad

    def encode(self, records: Records) -> tuple[Outgoing, list[Failure]]:
        """What to produce, and what no converter takes or the topic would refuse. A record without a time has
        timestamp 0, which the producer reads as now."""
        target = self._target(records.topic)
        values, failed = self._values(target, records)
        keys = self._keys(records, failed)
        headers = self._headers(records, failed)
        most = target.bytes_max - RECORD_OVERHEAD_BYTES
        sizes = max(map(len, filter(None, values)), default=0)
        if sizes > most:
            for at, value in enumerate(values):
                if value is not None and len(value) > most:
                    failed[at] = ("VALUE_CONVERTER", OURS, f"{len(value):,} bytes, and max.message.bytes of "
                                  f"{target.topic} is {target.bytes_max:,}")
        times = records.timestamps_ms
        if times.size and times.min() < 0:
            times = np.maximum(times, 0)
        sent = Outgoing(target.topic, values, keys, times.tolist(), headers)
        if not failed:
            return sent, []
        good = np.ones(len(records), np.bool_)
        good[list(failed)] = False
        failures = [Failure(int(records.index[at]), *why) for at, why in sorted(failed.items())]
        return _some(sent, np.flatnonzero(good)), failures

    def _values(self, target: _Target, records: Records) -> tuple[list[bytes | None], _Failed]:
        column = records.value
        encoder = self._encoder(target, column)
        if encoder is None:
            values, why = self.values.encode(target.topic, column)
            return values, {at: ("VALUE_CONVERTER", self.value_class, reason) for at, reason in why.items()}
        rows, there = column.values, None
        if rows.null_count:  # tombstones
            there = np.flatnonzero(rows.is_valid().to_numpy(zero_copy_only=False))
            rows = rows.take(pa.array(there))
        encoded, kept, rejects = encoder.encode_checked(pa.RecordBatch.from_struct_array(rows))
        if there is None and kept is None:
            return list[bytes | None](encoded), {}
        there = np.arange(len(rows)) if there is None else there
        out: list[bytes | None] = [None] * len(column)
        for at, value in zip((there if kept is None else there[kept]).tolist(), encoded, strict=True):
            out[at] = value
        return out, {int(there[at]): ("VALUE_CONVERTER", OURS, reason) for at, reason in rejects}

    def _encoder(self, target: _Target, column: Column) -> Encoder | None:
        """For values that have exactly the fields of the project's schema, and fit it."""
        if self.schema is None or not pa.types.is_struct(column.values.type):
            return None
        rows = pa.schema(list(column.values.type))
        for known, encoder in target.encoders:
            if known.equals(rows):
                return encoder
        made = None
        if sorted(rows.names) == sorted(self.schema.arrow.names) and fits(rows, self.schema):
            if target.schema_id is None:
                registry = self.registry or Registry(self.settings.registry_client())
                target.schema_id = registry.register(f"{target.topic}-value", self.schema)
            made = Encoder(self.schema, rows, target.schema_id)
        target.encoders.append((rows, made))
        return made

    def _keys(self, records: Records, failed: _Failed) -> Sequence[bytes | None]:
        column = records.key
        kind = column.values.type
        if self.common.key_converter is None and (pa.types.is_null(kind) or not pa.types.is_nested(kind)):
            if pa.types.is_null(kind):
                return [None] * len(column)
            values = column.values
            if not pa.types.is_binary(kind):
                values = pc.cast(pc.cast(values, pa.string()), pa.binary())
            plain: list[bytes | None] = values.to_pylist()
            return plain
        keys, why = self.keys.encode(records.topic, column)
        failed |= {at: ("KEY_CONVERTER", self.key_class, reason) for at, reason in why.items()}
        return keys

    def _headers(self, records: Records, failed: _Failed) -> Sequence[Headers]:
        if records.headers is None:
            return [NO_HEADERS] * len(records)
        out: list[Headers] = []
        for at, headers in enumerate(records.headers):
            try:
                out.append(self.headers.encode(records.topic, headers))
            except SchemaError as error:
                failed[at] = ("HEADER_CONVERTER", self.header_class, str(error))
                out.append(NO_HEADERS)
        return out

    def _target(self, topic: str) -> _Target:
        if topic not in self._targets:
            ensure(self.settings, [self.spec.creation.plan(
                topic, event_times=self.common.timestamp_column is not None)])
            most = message_bytes_max(self.settings, [topic])[topic]
            self._targets[topic] = _Target(topic, min(most, PRODUCE_BYTES_MAX))
        return self._targets[topic]


_Failed = dict[int, tuple[str, str, str]]
"""Position in the records → (stage, class, reason)."""


def fits(rows: pa.Schema, schema: AvroSchema) -> bool:
    from headrace.codec import assignable

    return not assignable(rows, schema)


def _field(values: pa.Array, name: str) -> pa.Array:
    """A field of structs; null where the struct is."""
    if values.type.get_field_index(name) < 0:
        names = [each.name for each in values.type]
        raise UserError(f"the records have no field “{name}”{nearest(name, names)}")
    return pc.struct_field(values, name)


def _some(sent: Outgoing, at: Index) -> Outgoing:
    some = partial(_picked, at=at.tolist())
    return Outgoing(sent.topic, some(sent.values), some(sent.keys), some(sent.timestamps_ms), some(sent.headers))


def _picked(column: Sequence[Any], at: list[int]) -> list[Any]:
    return list(map(column.__getitem__, at))
