"""Flatten: the fields of nested records, as fields of one, their names joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from headrace.records import Column, Records, Shape
from headrace.transforms.base import MEDIUM, Bad, Refused, Sided, Text, TransformConfig, split
from headrace.transforms.fields import added, basics, canonical, class_of, fields_of, java_order, required, struct_of


class FlattenConfig(TransformConfig):
    """How names are joined."""

    delimiter: Text = Field(".", description="What stands between the names that are joined.",
                            json_schema_extra=MEDIUM)


class Flatten(Sided[FlattenConfig]):
    """Flattens structs, or maps where schemaless. Arrays stay as they are."""

    Config = FlattenConfig
    purpose = "flattening"

    def parts(self, records: Records) -> Sequence[Records]:
        """Schemaless, a nested map that is null becomes a field that is null, and one that is not, its fields."""
        column = self.side(records)
        if column.shape is not None or not pa.types.is_struct(column.values.type):
            return (records,)
        for there in _nested(column):
            if there.any() and not there.all():
                return [each for part in split(records, there) for each in self.parts(part)]
        return (records,)

    def work(self, records: Records, column: Column, bad: Bad) -> Records:
        made: dict[str, Column] = {}
        if column.shape is None:
            fields = required(column, self.purpose)
            leaves = list(self._leaves(fields, "", list))
            if len({name for name, _ in leaves}) < len(leaves):  # of two that have one name, Java's last one counts
                leaves = list(self._leaves(fields, "", java_order))
            made = {name: self._held(name, each, bad) for name, each in leaves}
            return self.put(records, struct_of(made, len(column), None))
        required(column, self.purpose)
        self._struct(column, "", made, bad, column.shape.optional, column.shape.default)
        return self.put(records, struct_of(made, len(column), basics(column.shape)))

    def _name(self, prefix: str, name: str) -> str:
        return f"{prefix}{self.config.delimiter}{name}" if prefix else name

    def _leaves(self, fields: Mapping[str, Column], prefix: str, order: Callable[[list[str]], list[str]]
                ) -> Iterator[tuple[str, Column]]:
        """The fields of maps within maps, by their joined names."""
        for name in order(list(fields)):
            column, at = fields[name], self._name(prefix, name)
            if pa.types.is_struct(column.values.type) and column.values.null_count < len(column):
                yield from self._leaves(fields_of(column), at, order)
            else:
                yield at, column

    @staticmethod
    def _held(at: str, column: Column, bad: Bad) -> Column:
        column = canonical(column)
        found = class_of(column)
        if column.values.null_count == len(column):
            return Column.nothing(len(column))
        if found in ("Date", "BigDecimal"):
            bad.add(column.values.is_valid(), f"the field “{at}” is a {found}, which has no place without a schema")
        return column

    def _struct(self, column: Column, prefix: str, made: dict[str, Column], bad: Bad, optional: bool,
                default: Any) -> None:
        """The fields of a struct. `optional`: one above may be missing; `default`: what stands above in place of it."""
        present = column.values.is_valid()
        for name, each in fields_of(column).items():
            at, shape = self._name(prefix, name), each.shape
            assert shape is not None
            value = shape.default if shape.default is not None else (default or {}).get(name)
            if shape.type == "map":
                raise Refused(f"the field “{at}” is a map, which cannot be flattened where there is a schema")
            if shape.type == "struct":
                self._struct(each, at, made, bad, optional or shape.optional, value)
                continue
            made_shape = shape.but(optional=optional or shape.optional, default=value)
            added(made, at, Column(self._values(each.values, shape, made_shape, present, bad, at), made_shape))

    @staticmethod
    def _values(values: pa.Array, shape: Shape, made: Shape, present: pa.Array, bad: Bad, at: str) -> pa.Array:
        """A field's values: null where its struct is; else null is the field's own default."""
        if values.null_count and shape.default is not None:
            values = pc.if_else(present, pc.coalesce(values, pa.scalar(shape.default, values.type)), values)
        if values.null_count and not made.optional:
            if made.default is not None:  # its struct is null and required: Java's reader sees the default
                return pc.coalesce(values, pa.scalar(made.default, values.type))
            bad.add(values.is_null(), f"the field “{at}” is null, and is required")
        return values


def _nested(column: Column) -> Iterator[np.ndarray[Any, np.dtype[np.bool_]]]:
    """Where the maps within maps are, from the outside in."""
    for each in fields_of(column).values():
        if pa.types.is_struct(each.values.type):
            yield np.asarray(each.values.is_valid())
            if each.values.null_count < len(each):
                yield from _nested(each)
