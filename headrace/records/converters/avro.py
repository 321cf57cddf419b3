"""AvroConverter: Avro in the registry's framing, schemas registered as <topic>-key and <topic>-value.

Columns go through headrace/codec whole. What is ours: a column without a schema (JSON's) is written by the schema that
its structure implies, all of it optional, where Confluent writes its recursive "Anything"; recursive schemas are not
read, since Arrow has no type for them; the subject's version does not become the shape's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import methodcaller
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.batch import Index
from headrace.codec import AvroSchema, Decoder, Encoder
from headrace.codec.decoder import HEADER_BYTES
from headrace.codec.schema import VALUE
from headrace.errors import RegistryError, Retriable, SchemaError, UserError
from headrace.records.converters import java
from headrace.records.converters.avro_schema import avro_of, shape_from
from headrace.records.converters.faults import Faults
from headrace.records.converters.text import scatter
from headrace.records.records import Column
from headrace.records.shape import Shape, arrow_of, constant, shape_of, zeros
from headrace.registry import Registry

PLANS_MAX = 64
"""Schemas kept for columns: as many structures may take turns before their plans are made again."""
STRATEGIES: Mapping[str, Callable[[str, str, str], str]] = {
    "TopicNameStrategy": lambda topic, side, name: f"{topic}-{side}",
    "RecordNameStrategy": lambda topic, side, name: name,
    "TopicRecordNameStrategy": lambda topic, side, name: f"{topic}-{name}"}
"""Confluent's class (of whatever package) → the subject of (topic, key or value, record's full name)."""


class AvroConverter:
    """`schema`: what is registered and written, whatever the columns imply."""

    def __init__(self, registry: Registry, *, is_key: bool, schema: AvroSchema | None = None, scrub: bool = False,
                 register: bool = True, subject: str = "TopicNameStrategy") -> None:
        self.registry, self.schema, self.scrub, self.register = registry, schema, scrub, register
        self.side = "key" if is_key else "value"
        self.subject = STRATEGIES[subject]
        self._targets: list[tuple[Shape | None, pa.DataType, AvroSchema]] = []
        self._ids: dict[tuple[str, str], tuple[int, AvroSchema]] = {}
        self._encoders: list[tuple[int, pa.Schema, Encoder]] = []
        self._readers: dict[int, tuple[Decoder, Shape] | str] = {}

    @classmethod
    def of(cls, told: Mapping[str, str], is_key: bool, registry: Registry | None,
           schema: AvroSchema | None) -> AvroConverter:
        """From its configuration, checked before. Raises UserError without a registry."""
        url = told.get("schema.registry.url")
        if url:
            login = told.get("basic.auth.user.info") or told.get("schema.registry.basic.auth.user.info")
            registry = Registry({"url": url, **({"basic.auth.user.info": login} if login else {})})
        if registry is None:
            raise UserError("AvroConverter needs a schema registry",
                            hint="set schema.registry.url, or HEADRACE_REGISTRY for all connectors")
        name = told.get(f"{'key' if is_key else 'value'}.subject.name.strategy", "TopicNameStrategy")
        strategy = name.rpartition(".")[2]
        if strategy not in STRATEGIES:
            raise UserError(f"subject.name.strategy: no such strategy: {name}", hint=f"take {', '.join(STRATEGIES)}")
        latest = told.get("use.latest.version", "false").lower() == "true"
        return cls(registry, is_key=is_key, schema=schema, subject=strategy,
                   scrub=told.get("scrub.invalid.names", "false").lower() == "true",
                   register=told.get("auto.register.schemas", "true").lower() == "true" and not latest)

    # Columns → payloads

    def encode(self, topic: str, column: Column) -> tuple[list[bytes | None], dict[int, str]]:
        """As Converter says."""
        values, n = column.values, len(column)
        payloads: list[bytes | None] = [None] * n
        if values.null_count == n:
            return payloads, {}
        there = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
        if len(there) < n:
            values = values.take(pa.array(there))
        try:
            shape = column.shape or shape_of(values.type, optional=False)
            target, schema_id = self._target(topic, column.shape, shape, values.type)
            rows = _rows(outward(values, shape), target)
            written, kept, rejects = self._encoder(target, rows.schema, schema_id).encode_checked(rows)
        except (Retriable, RegistryError):
            raise
        except SchemaError as error:
            return payloads, dict.fromkeys(there.tolist(), str(error))
        for at, payload in zip((there if kept is None else there[kept]).tolist(), written, strict=True):
            payloads[at] = payload
        return payloads, {int(there[at]): why for at, why in rejects}

    def _target(self, topic: str, given: Shape | None, shape: Shape, kind: pa.DataType) -> tuple[AvroSchema, int]:
        """What a column is written as, and its id. Raises SchemaError, and what the registry raises."""
        target = self.schema or next((schema for other, type_, schema in self._targets
                                      if type_.equals(kind, check_metadata=False) and other == given), None)
        if target is None:
            target = avro_of(shape, kind, scrub=self.scrub)
            self._targets = [*self._targets[-PLANS_MAX:], (given, kind, target)]
        subject = self.subject(topic, self.side, target.name)
        found = self._ids.get((subject, target.text))
        if found is None:
            if self.register:
                found = self.registry.register(subject, target), target
            else:
                latest = self.registry.latest(subject)
                if latest is None:
                    raise SchemaError(f"the registry has no schema {subject}, and auto.register.schemas is off")
                found = latest[0], latest[2]
            self._ids[subject, target.text] = found
        return found[1], found[0]

    def _encoder(self, target: AvroSchema, rows: pa.Schema, schema_id: int) -> Encoder:
        for number, known, encoder in self._encoders:
            if number == schema_id and known.equals(rows):
                return encoder
        made = Encoder(target, rows, schema_id)
        self._encoders = [*self._encoders[-PLANS_MAX:], (schema_id, rows, made)]
        return made

    # Payloads → columns

    def decode(self, topic: str, payloads: Sequence[bytes | None]) -> tuple[list[tuple[Index, Column]], dict[int, str]]:
        """As Converter says: a column for each schema."""
        groups, absent = _by_schema(payloads)
        found = [(np.array(absent, np.int64), Column.nothing(len(absent)))] if absent else []
        reasons: dict[int, str] = {}
        for schema_id, places in groups.items():
            mine = payloads if len(places) == len(payloads) else [payloads[at] for at in places]
            part = self._read(schema_id, mine, places, reasons)
            found += [part] if part is not None else []
        return sorted(found, key=lambda each: int(each[0][0])), reasons

    def _read(self, schema_id: int, payloads: Sequence[bytes | None], places: list[int],
              reasons: dict[int, str]) -> tuple[Index, Column] | None:
        reader = self._reader(schema_id, payloads[0] or b"")
        if isinstance(reader, str):
            reasons.update(dict.fromkeys(places, reader))
            return None
        decoder, shape = reader
        decoded = decoder.decode(payloads)
        at = np.array(places, np.int64)
        reasons.update({places[row]: why for row, why in decoded.rejects})
        at = at if decoded.index is None else at[decoded.index]
        rows = decoded.rows.to_struct_array() if decoder.reader.name else decoded.rows.column(VALUE)
        faults = Faults()
        values = inward(rows, shape, np.arange(len(rows)), faults)
        if faults.reasons:
            reasons.update({int(at[row]): why for row, why in faults.reasons.items()})
            good = faults.good(len(rows))
            values, at = values.take(pa.array(good)), at[good]
        return (at, Column(values, shape)) if len(at) else None

    def _reader(self, schema_id: int, payload: bytes) -> tuple[Decoder, Shape] | str:
        """How the records of a schema are read, or why they are not. An id unknown to the registry is asked again."""
        from headrace.codec import UnknownSchema

        if schema_id < 0:
            return (f"Unknown magic byte: the payload begins with {payload[:5].hex(' ') or 'nothing'}, and was not "
                    "written by a schema registry's serializer")
        if schema_id not in self._readers:
            try:
                schema = self.registry.schema(schema_id)
                self._readers[schema_id] = Decoder(schema, self.registry.schema), shape_from(schema)
            except UnknownSchema as error:
                return error.what
            except SchemaError as error:
                self._readers[schema_id] = f"schema {schema_id}: {error.what}"
        return self._readers[schema_id]


def _by_schema(payloads: Sequence[bytes | None]) -> tuple[dict[int, list[int]], list[int]]:
    """(positions by the schema's id, -1 where there is no frame; positions of null). One schema in all is usual."""
    first = payloads[0][:HEADER_BYTES] if payloads and payloads[0] else b""
    if len(first) == HEADER_BYTES and not first[0] and None not in payloads and all(
            map(methodcaller("startswith", first), payloads)):
        return {int.from_bytes(first[1:], "big"): list(range(len(payloads)))}, []
    groups: dict[int, list[int]] = {}
    absent: list[int] = []
    for at, payload in enumerate(payloads):
        if payload is None:
            absent.append(at)
        else:
            framed = len(payload) >= HEADER_BYTES and not payload[0]
            groups.setdefault(int.from_bytes(payload[1:HEADER_BYTES], "big") if framed else -1, []).append(at)
    return groups, absent


def _rows(values: pa.Array, target: AvroSchema) -> pa.RecordBatch:
    """Records as rows; of a schema that is no record, rows of one column, which is how the codec has it."""
    if target.name and pa.types.is_struct(values.type):
        return pa.RecordBatch.from_struct_array(values)
    return pa.RecordBatch.from_arrays([values], [VALUE])


def outward(values: pa.Array, shape: Shape) -> pa.Array:
    """What Connect has otherwise than Avro: nulls that are the default, and the order of maps."""
    if shape.default is not None and values.null_count:
        absent = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))
        there = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
        one = constant(shape, shape.default).cast(values.type)
        values = scatter([(there, values.take(pa.array(there))),
                          (absent, one.take(pa.array(np.zeros(len(absent), np.int64))))], len(values))
    kind = values.type
    if pa.types.is_struct(kind) and kind.num_fields:
        parts = [outward(values.field(at), each) for at, (_, each) in enumerate(shape.fields)] \
            if len(shape.fields) == kind.num_fields else values.flatten()
        return _struct(values, parts)
    if pa.types.is_list(kind) and shape.values is not None:
        return _list(values, outward(_items(values), shape.values))
    if pa.types.is_map(kind) and shape.values is not None:
        return _entries(values, shape.values)
    return values


def _entries(values: pa.Array, of: Shape) -> pa.Array:
    """Maps as lists of entries, in the order in which a Java HashMap has them: the codec takes them as either."""
    low, n = int(values.offsets[0].as_py()), int(values.offsets[-1].as_py() - values.offsets[0].as_py())
    keys, items = values.keys.slice(low, n), values.items.slice(low, n)
    ordered = java.entries_order(keys, np.diff(values.offsets.to_numpy()))
    if ordered is not None:
        keys, items = keys.take(pa.array(ordered)), items.take(pa.array(ordered))
    items = outward(items, of)
    fields = [pa.field("key", keys.type, nullable=False), pa.field("value", items.type)]
    return _list(values, pa.StructArray.from_arrays([keys, items], fields=fields))


def inward(values: pa.Array, shape: Shape, rows: Index, faults: Faults) -> pa.Array:
    """What Avro has otherwise than Connect: small integers, decimals of any digits, fixed, entries that are a map."""
    kind = values.type
    if pa.types.is_struct(kind) and shape.type == "struct" and kind.num_fields == len(shape.fields):
        return _struct(values, [inward(values.field(at), each, rows, faults)
                                for at, (_, each) in enumerate(shape.fields)]) if kind.num_fields else values
    if pa.types.is_list(kind) and shape.type in ("array", "map"):
        return _inward_list(values, shape, rows, faults)
    if pa.types.is_map(kind) and shape.values is not None:
        counts = np.diff(values.offsets.to_numpy())
        low, n = int(values.offsets[0].as_py()), int(counts.sum())
        items = inward(values.items.slice(low, n), shape.values, np.repeat(rows, counts), faults)
        return _map(values, values.keys.slice(low, n), items, shape)
    if pa.types.is_decimal(kind):
        return _decimal(values, arrow_of(shape), rows, faults)
    wanted = arrow_of(shape)
    return values if pa.types.is_temporal(kind) or kind.equals(wanted) else values.cast(wanted)


def _inward_list(values: pa.Array, shape: Shape, rows: Index, faults: Faults) -> pa.Array:
    assert shape.values is not None
    inner = np.repeat(rows, np.diff(values.offsets.to_numpy()))
    items = _items(values)
    if shape.type == "array":
        return _list(values, inward(items, shape.values, inner, faults))
    assert shape.keys is not None
    keys = inward(items.field(0), shape.keys, inner, faults)
    if keys.null_count:
        faults.mark(keys.is_null().to_numpy(zero_copy_only=False), inner, "a null key, which Arrow cannot hold")
        keys = keys.fill_null(zeros(keys.type, 1)[0])
    return _map(values, keys, inward(items.field(1), shape.values, inner, faults), shape)


def _decimal(values: pa.Array, wanted: pa.DataType, rows: Index, faults: Faults) -> pa.Array:
    """Raises nothing: what has more digits than Arrow's type is a fault of its record."""
    try:
        return values.cast(wanted)
    except pa.ArrowInvalid:
        limit = 10 ** (wanted.precision - wanted.scale)
        wide = np.array([each is not None and abs(each) >= limit for each in values.to_pylist()])
        faults.mark(wide, rows, f"a decimal of more than {wanted.precision} digits")
        return pc.if_else(pa.array(wide), pa.scalar(0, pa.int64()).cast(values.type), values).cast(wanted)


def _items(values: pa.Array) -> pa.Array:
    first, last = values.offsets[0].as_py(), values.offsets[-1].as_py()
    return values.values.slice(first, last - first)


def _offsets(values: pa.Array) -> pa.Array:
    return pc.subtract(values.offsets, values.offsets[0])


def _absent(values: pa.Array) -> Any:
    return values.is_null() if values.null_count else None


def _struct(values: pa.Array, parts: Sequence[pa.Array]) -> pa.Array:
    fields = [pa.field(each.name, part.type, nullable=each.nullable)
              for each, part in zip(values.type, parts, strict=True)]
    return pa.StructArray.from_arrays(list(parts), fields=fields, mask=_absent(values))


def _list(values: pa.Array, items: pa.Array) -> pa.Array:
    nullable = values.type.item_field.nullable if pa.types.is_map(values.type) else values.type.value_field.nullable
    kind = pa.list_(pa.field("item", items.type, nullable=nullable and not pa.types.is_map(values.type)))
    return pa.ListArray.from_arrays(_offsets(values), items, type=kind, mask=_absent(values))


def _map(values: pa.Array, keys: pa.Array, items: pa.Array, shape: Shape) -> pa.Array:
    assert shape.values is not None
    kind = pa.map_(keys.type, pa.field("value", items.type, nullable=shape.values.optional))
    return pa.MapArray.from_arrays(_offsets(values), keys, items, type=kind, mask=_absent(values))
