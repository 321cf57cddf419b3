"""Kafka Connect's schema of a value, and the Arrow type its values have here.

Arrow says most of it; what it lacks is kept beside: optional or not, name, version, doc, default, parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from headrace.errors import SchemaError

LOGICAL = "org.apache.kafka.connect.data."
DECIMAL, DATE, TIME, TIMESTAMP = (LOGICAL + name for name in ("Decimal", "Date", "Time", "Timestamp"))
PRIMITIVES: Mapping[str, pa.DataType] = {
    "int8": pa.int8(), "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64(), "float32": pa.float32(),
    "float64": pa.float64(), "boolean": pa.bool_(), "string": pa.string(), "bytes": pa.binary()}
"""Connect's type → Arrow's."""
DECIMAL_DIGITS = 38
PRECISION = "connect.decimal.precision"
"""The parameter by which Confluent's Avro converter tells a decimal's digits."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A schema. `type` is Connect's in small letters: a primitive, `array`, `map` or `struct`."""

    type: str
    optional: bool = False
    name: str | None = None
    version: int | None = None
    doc: str | None = None
    default: Any = None
    """A plain value, as `to_pylist` gives it; None is no default, as in Connect."""
    parameters: tuple[tuple[str, str], ...] = ()
    fields: tuple[tuple[str, Shape], ...] = ()
    """Of a struct, in order."""
    keys: Shape | None = None
    """Of a map."""
    values: Shape | None = None
    """Of a map or an array."""

    def field(self, name: str) -> Shape | None:
        return next((shape for at, shape in self.fields if at == name), None)

    def but(self, **changes: Any) -> Shape:
        """The same, changed."""
        return replace(self, **changes)


def arrow_of(shape: Shape) -> pa.DataType:
    """The Arrow type of a shape's values. A decimal has the scale and the digits its parameters say, else 38 digits."""
    if shape.name == DECIMAL and shape.type == "bytes":
        return _decimal(dict(shape.parameters))
    logical = {DATE: pa.date32(), TIME: pa.time32("ms"), TIMESTAMP: pa.timestamp("ms", "UTC")}
    if shape.name in logical and shape.type in ("int32", "int64"):
        return logical[shape.name]
    if shape.type in PRIMITIVES:
        return PRIMITIVES[shape.type]
    if shape.type == "array":
        assert shape.values is not None
        return pa.list_(_field("item", shape.values))
    if shape.type == "map":
        assert shape.keys is not None
        assert shape.values is not None
        return pa.map_(arrow_of(shape.keys), _field("value", shape.values))
    return pa.struct([_field(name, each) for name, each in shape.fields])


def _decimal(parameters: Mapping[str, str]) -> pa.DataType:
    """Raises SchemaError for a scale or digits that Arrow has no decimal of."""
    told = parameters.get("scale", "0"), parameters.get(PRECISION, str(DECIMAL_DIGITS))
    try:
        scale, digits = map(int, told)
        return (pa.decimal128 if digits <= DECIMAL_DIGITS else pa.decimal256)(digits, scale)
    except (ValueError, OverflowError) as error:  # pyarrow's own errors are ValueErrors
        raise SchemaError(f"a decimal of scale {told[0]} and {told[1]} digits: Arrow holds 76 digits") from error


def constant(shape: Shape, value: Any) -> pa.Array:
    """One value, as a column of the shape's type. Raises SchemaError where it is none of it."""
    try:
        return pa.array([value], arrow_of(shape))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise SchemaError(f"{value!r} is no {shape.type}: {error}") from error


def zeros(kind: pa.DataType, n: int) -> pa.Array:
    """n values that are not null: 0, false, "", an empty list, and structs of such."""
    if pa.types.is_struct(kind):
        if not kind.num_fields:
            return pa.array([{}] * n, kind)
        return pa.StructArray.from_arrays([zeros(each.type, n) for each in kind], fields=list(kind))
    if pa.types.is_nested(kind):
        return pa.array([[]] * n, kind)
    if pa.types.is_fixed_size_binary(kind) or kind in (pa.string(), pa.binary()):
        return pa.array([b"" if kind != pa.string() else ""] * n, kind)
    return pa.array([0] * n, pa.int64() if pa.types.is_timestamp(kind) else pa.int32()).cast(kind)


def _field(name: str, shape: Shape) -> pa.Field:
    return pa.field(name, arrow_of(shape), nullable=shape.optional)


def shape_of(kind: pa.DataType, *, optional: bool = True, name: str | None = None) -> Shape:
    """The shape of an Arrow type. Raises SchemaError for a type that Connect has none for."""
    for test, made in _KINDS:
        if test(kind):
            found: Shape = made(kind)
            return found.but(optional=optional, name=name or found.name)
    raise SchemaError(f"Kafka Connect has no type for Arrow's {kind}")


def _struct(kind: pa.DataType) -> Shape:
    return Shape("struct", fields=tuple((each.name, shape_of(each.type, optional=each.nullable)) for each in kind))


def _primitives() -> Iterator[tuple[Any, Any]]:
    wider: dict[str, str] = {
        "uint8": "int16", "uint16": "int32", "uint32": "int64", "halffloat": "float32", "float": "float32",
        "double": "float64", "bool": "boolean", "large_string": "string", "large_binary": "bytes", "binary": "bytes"}
    for name in (*PRIMITIVES, *wider):
        yield (lambda kind, name=name: str(kind) == name), (lambda kind, name=name: Shape(wider.get(name) or name))


_KINDS: tuple[tuple[Any, Any], ...] = (
    *_primitives(),
    (pa.types.is_decimal, lambda kind: Shape("bytes", name=DECIMAL, version=1,
                                             parameters=(("scale", str(kind.scale)),))),
    (pa.types.is_date, lambda kind: Shape("int32", name=DATE, version=1)),
    (pa.types.is_time, lambda kind: Shape("int32", name=TIME, version=1)),
    (pa.types.is_timestamp, lambda kind: Shape("int64", name=TIMESTAMP, version=1)),
    (pa.types.is_map, lambda kind: Shape("map", keys=shape_of(kind.key_type, optional=False),
                                         values=shape_of(kind.item_type, optional=kind.item_field.nullable))),
    (pa.types.is_list, lambda kind: Shape("array", values=shape_of(kind.value_type,
                                                                   optional=kind.value_field.nullable))),
    (pa.types.is_large_list, lambda kind: Shape("array", values=shape_of(kind.value_type,
                                                                         optional=kind.value_field.nullable))),
    (pa.types.is_fixed_size_list, lambda kind: Shape("array", values=shape_of(kind.value_type,
                                                                              optional=kind.value_field.nullable))),
    (pa.types.is_dictionary, lambda kind: shape_of(kind.value_type)),
    (pa.types.is_fixed_size_binary, lambda kind: Shape("bytes")),
    (pa.types.is_string_view, lambda kind: Shape("string")),
    (pa.types.is_binary_view, lambda kind: Shape("bytes")),
    (pa.types.is_null, lambda kind: Shape("string", optional=True)),
    (pa.types.is_struct, _struct),
)
