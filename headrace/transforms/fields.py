"""The fields of structs, or of schemaless maps, as columns by name; and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import SchemaError
from headrace.records import Column, Shape, arrow_of, shape_of
from headrace.transforms.base import Bad, Refused

JAVA: tuple[tuple[Any, str], ...] = (
    (pa.types.is_null, "null"), (pa.types.is_boolean, "Boolean"), (pa.types.is_int8, "Byte"),
    (pa.types.is_int16, "Short"), (pa.types.is_int32, "Integer"), (pa.types.is_int64, "Long"),
    (pa.types.is_float32, "Float"), (pa.types.is_float64, "Double"), (pa.types.is_string, "String"),
    (pa.types.is_binary, "byte[]"), (pa.types.is_decimal, "BigDecimal"), (pa.types.is_temporal, "Date"),
    (pa.types.is_list, "List"), (pa.types.is_map, "Map"))


def class_of(column: Column) -> str:
    """The Java class that the values of a (canonical) column have: Byte, Date, List, Map, Struct …"""
    if pa.types.is_struct(column.values.type):
        return "Map" if column.shape is None else "Struct"
    return next((name for test, name in JAVA if test(column.values.type)), str(column.values.type))


def canonical(column: Column) -> Column:
    """The column with the Arrow type its shape says: no dictionaries, no large strings, times in milliseconds."""
    kind = column.values.type
    if pa.types.is_null(kind) or pa.types.is_struct(kind):
        return column
    try:
        shape = column.shape or shape_of(kind)
        if shape.type in ("array", "map", "struct") or kind == arrow_of(shape):
            return column
        return Column(pc.cast(column.values, arrow_of(shape), safe=False), column.shape)
    except (SchemaError, pa.ArrowException):
        return column  # the values are not what the shape's name says, as after a Cast of a whole date: Java lets it be


def required(column: Column, purpose: str) -> dict[str, Column]:
    """The fields of all rows, those of null rows null. Raises Refused where the values have none."""
    if not pa.types.is_struct(column.values.type) and not pa.types.is_null(column.values.type):
        found = class_of(canonical(column))
        raise Refused(f"{purpose} needs fields, and the {'value' if column.shape is None else column.shape.type} here "
                      f"has none: it is a {found}")
    return fields_of(column)


def fields_of(column: Column) -> dict[str, Column]:
    """The fields of a column of structs. A field is null where its struct is."""
    values = column.values
    if pa.types.is_null(values.type):
        return {}
    arrays = values.flatten() if values.null_count else [values.field(at) for at in range(values.type.num_fields)]
    if column.shape is None:
        return {each.name: Column(array) for each, array in zip(values.type, arrays, strict=True)}
    return {name: Column(array, shape) for (name, shape), array in zip(column.shape.fields, arrays, strict=True)}


def struct_of(fields: Mapping[str, Column], n: int, shape: Shape | None, *, missing: pa.Array | None = None) -> Column:
    """A column of n structs. `shape` is that of the struct but for its fields; None is schemaless. `missing`: where
    there is none."""
    kinds = [pa.field(name, each.values.type, nullable=each.shape is None or each.shape.optional)
             for name, each in fields.items()]
    if missing is not None and not missing.true_count:
        missing = None
    if kinds:
        values = pa.StructArray.from_arrays([each.values for each in fields.values()], fields=kinds, mask=missing)
    else:
        values = pa.repeat(pa.scalar({}, pa.struct([])), n)
        if missing is not None:
            values = pc.if_else(missing, pa.scalar(None, pa.struct([])), values)
    if shape is None:
        return Column(values)
    return Column(values, shape.but(type="struct", keys=None, values=None, fields=tuple(
        (name, each.shape) for name, each in fields.items() if each.shape is not None)))


def settled(fields: Mapping[str, Column], replace: bool, bad: Bad, present: pa.Array | None = None
            ) -> dict[str, Column]:
    """What Kafka Connect does to every field that it copies from one struct to another: null becomes the default
    (`replace`), and what is required and still null is refused. `present`: where there is a struct at all."""
    return {name: _settled(name, each, replace, bad, present) for name, each in fields.items()}


def _settled(name: str, column: Column, replace: bool, bad: Bad, present: pa.Array | None) -> Column:
    values, shape = column.values, column.shape
    if not values.null_count or shape is None:
        return column
    if replace and shape.default is not None:
        filled = pc.coalesce(values, pa.scalar(shape.default, values.type))
        return Column(filled if present is None else pc.if_else(present, filled, pa.scalar(None, values.type)), shape)
    if not shape.optional:
        gone = values.is_null()
        bad.add(gone if present is None else pc.and_(gone, present), f"the field “{name}” is null, and is required")
    return column


def basics(shape: Shape) -> Shape:
    """What a changed struct keeps of its shape: name, version, doc and parameters. It is required, without default."""
    return Shape("struct", name=shape.name, version=shape.version, doc=shape.doc, parameters=shape.parameters)


def added(fields: dict[str, Column], name: str, column: Column) -> None:
    """One more field of a shape under construction. Raises Refused where the name is empty or taken."""
    if not name:
        raise Refused("a field of a schema cannot have an empty name")
    if name in fields:
        raise Refused(f"there would be two fields “{name}”")
    fields[name] = column


def renamed(fields: Mapping[str, Column], shape: Shape | None, n: int, missing: pa.Array | None = None) -> Column:
    """`struct_of`, keeping of `shape` what a changed struct keeps."""
    return struct_of(fields, n, None if shape is None else basics(shape), missing=missing)


def java_order(names: list[str]) -> list[str]:
    """The order in which a java.util.HashMap of these keys is walked."""
    table = 16
    while len(names) > table * 0.75:
        table *= 2

    def bucket(name: str) -> int:
        units = np.frombuffer(name.encode("utf-16-le", "surrogatepass"), "<u2").tolist()
        code = 0
        for unit in units:
            code = (31 * code + unit) & 0xFFFFFFFF
        return (code ^ code >> 16) & (table - 1)

    return sorted(names, key=bucket)
