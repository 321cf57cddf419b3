"""SetSchemaMetadata: a name and a version for the schema of the key or value."""

from __future__ import annotations

import pyarrow.compute as pc
from pydantic import Field, model_validator

from headrace.records import Column, Records
from headrace.transforms.base import (
    HIGH,
    MEDIUM,
    NULL_DOC,
    Bad,
    Refused,
    Sided,
    Switch,
    Text,
    TransformConfig,
    Whole,
)
from headrace.transforms.fields import fields_of, settled, struct_of


class SetSchemaMetadataConfig(TransformConfig):
    """What to set."""

    name: Text | None = Field(None, alias="schema.name", description="The schema's new name.", json_schema_extra=HIGH)
    version: Whole | None = Field(None, alias="schema.version", description="The schema's new version.",
                                  json_schema_extra=HIGH)
    replace_null: Switch = Field(True, alias="replace.null.with.default", description=NULL_DOC,
                                 json_schema_extra=MEDIUM)

    @model_validator(mode="after")
    def _check(self) -> SetSchemaMetadataConfig:
        if self.name is None and self.version is None:
            raise ValueError("schema.name: is missing; set it, or schema.version, or both")
        return self


class SetSchemaMetadata(Sided[SetSchemaMetadataConfig]):
    """Names a schema. All else of it stays."""

    Config = SetSchemaMetadataConfig
    nulls = "work"
    purpose = "naming the schema"

    def work(self, records: Records, column: Column, bad: Bad) -> Records:
        shape = column.shape
        if shape is None:
            if column.values.null_count < len(column):
                bad.add(column.values.is_valid(), "there is no schema to name")
            return records
        shape = shape.but(name=shape.name if self.config.name is None else self.config.name,
                          version=shape.version if self.config.version is None else self.config.version)
        if shape.type != "struct":
            raise Refused(f"only the schema of a struct can be named; this is a {shape.type}")
        missing = column.values.is_null()
        fields = settled(fields_of(column), self.config.replace_null, bad, pc.invert(missing))
        return self.put(records, struct_of(fields, len(column), shape, missing=missing))
