"""ExtractField: one field takes the place of the whole key or value."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field, model_validator

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
)
from headrace.transforms.fieldpath import steps
from headrace.transforms.fields import canonical, class_of, fields_of, settled


def _syntax(given: Any) -> Any:
    if not isinstance(given, str) or given.strip().upper() not in ("V1", "V2"):
        raise ValueError(f"“{given}” is neither V1 nor V2")
    return given.strip().upper()


class ExtractFieldConfig(TransformConfig):
    """What to extract."""

    field: Text = Field(description="The field to extract.", json_schema_extra=MEDIUM)
    replace_null: Switch = Field(True, alias="replace.null.with.default", description=NULL_DOC,
                                 json_schema_extra=MEDIUM)
    syntax: Annotated[str, BeforeValidator(_syntax)] = Field(
        "V1", alias="field.syntax.version", json_schema_extra=HIGH, description="V1: `field` is a name. V2: it is a "
        "path, of names with dots between them; a name that has dots itself goes between backticks.")

    @model_validator(mode="after")
    def _check(self) -> ExtractFieldConfig:
        try:
            steps(self.field, self.syntax)
        except ValueError as error:
            raise ValueError(f"field: {error}") from None
        return self


class ExtractField(Sided[ExtractFieldConfig]):
    """Extracts a field. A null key or value stays null."""

    Config = ExtractFieldConfig
    nulls = "work"
    purpose = "extracting a field"

    @cached_property
    def steps(self) -> tuple[str, ...]:
        return steps(self.config.field, self.config.syntax)

    def work(self, records: Records, column: Column, bad: Bad) -> Records:
        *before, last = self.steps
        for name in before:
            column = self._inside(column, name, bad, defaults=True)
        return self.put(records, self._inside(column, last, bad, defaults=self.config.replace_null))

    def _inside(self, column: Column, name: str, bad: Bad, *, defaults: bool) -> Column:
        """A field of structs or maps. Schemaless, a field that is not there is null."""
        values, shape = column.values, column.shape
        if not pa.types.is_struct(values.type):
            if shape is not None:
                raise Refused(f"“{self.config.field}” leads through a {shape.type}, which has no fields")
            bad.add(values.is_valid(), f"“{self.config.field}” leads through a {class_of(canonical(column))}, which "
                    "has no fields")
            return Column.nothing(len(values))
        fields = fields_of(column)
        if name not in fields:
            if shape is not None:
                raise Refused(f"there is no field “{self.config.field}”")
            return Column.nothing(len(values))
        found = fields[name]
        if defaults and shape is not None and found.shape is not None and found.shape.default is not None:
            optional = Column(found.values, found.shape.but(optional=True))
            there = values.is_valid()
            made = settled({name: optional}, True, Bad(), None if pc.all(there).as_py() else there)[name]
            return Column(made.values, found.shape)
        return found
