"""MaskField: nothing, or a word, in the place of what nobody is to see."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field

from headrace.records import Column, Records
from headrace.transforms.base import (
    HIGH,
    LOW,
    MEDIUM,
    NULL_DOC,
    Bad,
    Names,
    Sided,
    Switch,
    Text,
    TransformConfig,
    distinct,
    named,
)
from headrace.transforms.fields import canonical, class_of, required, settled, struct_of
from headrace.transforms.numbers import BITS, big_decimal, wrapped

NOTHING: dict[str, Any] = {"Boolean": False, "Byte": 0, "Short": 0, "Integer": 0, "Long": 0, "Float": 0.0,
                           "Double": 0.0, "BigDecimal": Decimal(0), "Date": 0, "String": "", "List": [], "Map": []}
"""Java class → what masks it."""
WHOLE = {"Byte": "int8", "Short": "int16", "Integer": "int32", "Long": "int64"}


def _some(text: str) -> str:
    if not text:
        raise ValueError("is empty; leave it out to mask with 0, false, an empty text …")
    return text


class MaskFieldConfig(TransformConfig):
    """What to mask, and with what."""

    fields: Annotated[Names, AfterValidator(distinct), AfterValidator(named)] = Field(
        description="The fields to mask.", json_schema_extra=HIGH)
    replacement: Annotated[Text, AfterValidator(_some)] | None = Field(
        None, description="What to put in their place, turned into the type of each: for numbers and text only. Left "
        "out: 0, false, an empty text, an empty list or map, the beginning of 1970.", json_schema_extra=LOW)
    replace_null: Switch = Field(True, alias="replace.null.with.default", description=NULL_DOC,
                                 json_schema_extra=MEDIUM)


class MaskField(Sided[MaskFieldConfig]):
    """Masks fields. Those that are null stay so."""

    Config = MaskFieldConfig
    nulls = "refuse"
    purpose = "masking fields"

    def work(self, records: Records, column: Column, bad: Bad) -> Records:
        fields = required(column, self.purpose)
        if column.shape is not None:
            fields = settled(fields, self.config.replace_null, bad)
        for name in self.config.fields:
            if name in fields:
                fields[name] = self._masked(name, canonical(fields[name]), bad)
            elif column.shape is None:
                fields[name] = Column(pa.nulls(len(column)))
        return self.put(records, struct_of(fields, len(column), column.shape))

    def _masked(self, name: str, column: Column, bad: Bad) -> Column:
        """The mask where there is a value."""
        values = column.values
        found = class_of(column)
        if values.null_count == len(values):
            return column
        mask = self._mask(found, values.type)
        if mask is None:
            how = "" if self.config.replacement is None else f" with “{self.config.replacement}”"
            bad.add(values.is_valid(), f"the field “{name}” cannot be masked{how}: it is a {found}")
            return column
        if not values.null_count:
            return Column(pa.repeat(mask, len(values)), column.shape)
        return Column(pc.if_else(values.is_valid(), mask, pa.scalar(None, mask.type)), column.shape)

    def _mask(self, found: str, kind: pa.DataType) -> pa.Scalar | None:
        """The mask for a Java class; None where there is none."""
        replacement = self.config.replacement
        if replacement is None:
            if found == "Map" and pa.types.is_struct(kind):
                return pa.scalar({}, pa.struct([]))
            return pa.scalar(NOTHING[found], kind) if found in NOTHING else None
        if found == "String":
            return pa.scalar(replacement, kind)
        number = big_decimal(replacement)
        if number is None:
            return None
        if found in WHOLE:
            return pa.scalar(wrapped(int(number), BITS[WHOLE[found]]), kind)
        if found in ("Float", "Double"):
            with np.errstate(over="ignore"):
                return pa.scalar(np.float32(float(number)) if found == "Float" else float(number), kind)
        try:
            return pa.scalar(number, kind) if found == "BigDecimal" else None
        except pa.ArrowInvalid:  # it has more digits than the field's scale and precision hold
            return None
