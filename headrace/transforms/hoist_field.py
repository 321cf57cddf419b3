"""HoistField: wraps the whole key or value in a record with one field."""

from __future__ import annotations

from pydantic import Field

from headrace.records import Column, Records, Shape
from headrace.transforms.base import MEDIUM, Bad, Refused, Sided, Text, TransformConfig
from headrace.transforms.fields import struct_of


class HoistFieldConfig(TransformConfig):
    """What to call the field."""

    field: Text = Field(description="The name of the field that holds what was the whole key or value.",
                        json_schema_extra=MEDIUM)


class HoistField(Sided[HoistFieldConfig]):
    """Wraps in a struct, or a map where schemaless."""

    Config = HoistFieldConfig
    nulls = "work"
    purpose = "wrapping in a field"

    def work(self, records: Records, column: Column, bad: Bad) -> Records:
        shape = column.shape
        if shape is not None:
            if not self.config.field:
                raise Refused("a field of a schema cannot have an empty name")
            if not shape.optional:
                bad.add(column.values.is_null(), f"the {'key' if self.key else 'value'} is null, and is required")
        return self.put(records, struct_of({self.config.field: column}, len(column), shape and Shape("struct")))
