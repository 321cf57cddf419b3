"""ValueToKey: a new key, of fields of the value."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from headrace.records import Column, Records, Shape
from headrace.transforms.base import (
    HIGH,
    MEDIUM,
    NULL_DOC,
    Bad,
    Names,
    Refused,
    Sided,
    Switch,
    TransformConfig,
    distinct,
    named,
)
from headrace.transforms.fields import added, required, settled, struct_of


class ValueToKeyConfig(TransformConfig):
    """Which fields make the key."""

    fields: Annotated[Names, AfterValidator(distinct), AfterValidator(named)] = Field(
        description="The fields of the value that make the key.", json_schema_extra=HIGH)
    replace_null: Switch = Field(True, alias="replace.null.with.default", description=NULL_DOC,
                                 json_schema_extra=MEDIUM)


class ValueToKey(Sided[ValueToKeyConfig]):
    """Makes the key. The value stays as it is."""

    Config = ValueToKeyConfig
    sided = False
    nulls = "refuse"
    purpose = "making the key"

    def work(self, records: Records, column: Column, bad: Bad) -> Records:
        fields, made = required(column, self.purpose), dict[str, Column]()
        for name in self.config.fields:
            if column.shape is None:
                made[name] = fields.get(name, Column.nothing(len(column)))
            elif name in fields:
                added(made, name, fields[name])
            else:
                raise Refused(f"there is no field “{name}”")
        if column.shape is None:
            return records.but(key=struct_of(made, len(column), None))
        made = settled(made, self.config.replace_null, bad)
        return records.but(key=struct_of(made, len(column), Shape("struct")))


