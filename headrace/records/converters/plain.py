"""Converters of single values: StringConverter, ByteArrayConverter, and those of Java's numbers."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace.batch import Index
from headrace.errors import UserError
from headrace.records.converters.faults import Faults
from headrace.records.converters.text import JavaTexts, is_bytes
from headrace.records.records import Column
from headrace.records.shape import PRIMITIVES, Shape

Encoded = tuple[list[bytes | None], dict[int, str]]
Read = tuple[list[tuple[Index, Column]], dict[int, str]]


def _all(values: pa.Array, shape: Shape) -> list[tuple[Index, Column]]:
    return [(np.arange(len(values)), Column(values, shape))] if len(values) else []


@dataclass(frozen=True, slots=True)
class StringConverter:
    """Object.toString of each value; reads optional text. What `encoding` cannot write or read is ? or U+FFFD."""

    encoding: str = "utf-8"

    @classmethod
    def of(cls, told: Mapping[str, str]) -> StringConverter:
        name = told.get("converter.encoding", "UTF-8")
        try:
            return cls(codecs.lookup(name).name)
        except LookupError as error:
            raise UserError(f"converter.encoding: no character encoding is called {name}",
                            hint="UTF-8, UTF-16, ISO-8859-1, US-ASCII, windows-1252 …") from error

    def encode(self, topic: str, column: Column) -> Encoded:
        faults, n = Faults(), len(column)
        written = JavaTexts(faults).of(column.values, column.shape, np.arange(n))
        if self.encoding == "utf-8":
            return written.cast(pa.binary()).to_pylist(), faults.reasons
        return [None if each is None else each.encode(self.encoding, "replace") for each in written.to_pylist()
                ], faults.reasons

    def decode(self, topic: str, payloads: Sequence[bytes | None]) -> Read:
        shape = Shape("string", optional=True)
        if self.encoding == "utf-8":
            try:
                return _all(pa.array(payloads, pa.binary()).cast(pa.string()), shape), {}
            except pa.ArrowInvalid:
                pass  # a few of them are no UTF-8
        return _all(pa.array([None if each is None else each.decode(self.encoding, "replace") for each in payloads],
                             pa.string()), shape), {}


@dataclass(frozen=True, slots=True)
class ByteArrayConverter:
    """Bytes as they are."""

    def encode(self, topic: str, column: Column) -> Encoded:
        values, shape, n = column.values, column.shape, len(column)
        if shape is not None and shape.type != "bytes":
            return [None] * n, dict.fromkeys(
                range(n), f"Invalid schema type for ByteArrayConverter: {shape.type.upper()}")
        if is_bytes(values.type) or pa.types.is_null(values.type):
            return values.to_pylist(), {}
        faults = Faults()
        faults.mark(values.is_valid().to_numpy(zero_copy_only=False), np.arange(n),
                    f"ByteArrayConverter is not compatible with objects of type {values.type}")
        return [None] * n, faults.reasons

    def decode(self, topic: str, payloads: Sequence[bytes | None]) -> Read:
        return _all(pa.array(payloads, pa.binary()), Shape("bytes", optional=True)), {}


@dataclass(frozen=True, slots=True)
class PrimitiveConverter:
    """A number, big-endian, or a boolean: one byte, 1 or 0."""

    kind: str
    """Connect's type."""
    java: str
    code: str
    """What struct calls it."""

    def encode(self, topic: str, column: Column) -> Encoded:
        values, n = column.values, len(column)
        wanted = PRIMITIVES[self.kind]
        if self.kind == "boolean" and column.shape is not None and column.shape.type != "boolean":
            why = f"Invalid schema type for BooleanConverter: {column.shape.type.upper()}"
            return [None] * n, dict.fromkeys(range(n), why)
        if pa.types.is_null(values.type):
            return [None] * n, {}
        if values.type != wanted or (column.shape is not None and column.shape.type != self.kind):
            what = column.shape.type if column.shape else values.type
            faults = Faults()
            faults.mark(values.is_valid().to_numpy(zero_copy_only=False), np.arange(n),
                        f"Failed to serialize to {self.java.lower()} (was {what}): a Cast transform makes it one")
            return [None] * n, faults.reasons
        pack = struct.Struct(self.code).pack
        return [None if each is None else pack(each) for each in values.to_pylist()], {}

    def decode(self, topic: str, payloads: Sequence[bytes | None]) -> Read:
        form, faults, good = struct.Struct(self.code), {}, []
        values = []
        for at, payload in enumerate(payloads):
            if payload is not None and len(payload) != form.size:
                faults[at] = f"Size of data received by {self.java}Deserializer is not {form.size}"
            elif self.kind == "boolean" and payload not in (None, b"\0", b"\1"):
                faults[at] = f"Unexpected byte received by BooleanDeserializer: {payload[0] if payload else ''}"
            else:
                good.append(at)
                values.append(None if payload is None else form.unpack(payload)[0])
        column = Column(pa.array(values, PRIMITIVES[self.kind]), Shape(self.kind, optional=True))
        return ([(np.array(good, np.int64), column)] if good else []), faults


PRIMITIVE = {java.lower(): PrimitiveConverter(kind, java, code) for kind, java, code in (
    ("int16", "Short", ">h"), ("int32", "Integer", ">i"), ("int64", "Long", ">q"), ("float32", "Float", ">f"),
    ("float64", "Double", ">d"), ("boolean", "Boolean", ">?"))}
