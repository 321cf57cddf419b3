"""Cast: fields, or the whole key or value, as another type."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

import pyarrow as pa
from pydantic import AfterValidator, Field

from headrace.marked import nearest
from headrace.records import Column, Records, Shape, arrow_of
from headrace.records.shape import DATE, DECIMAL, TIME, TIMESTAMP
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
)
from headrace.transforms.casting import cast
from headrace.transforms.fields import basics, required, settled, struct_of
from headrace.transforms.replace_field import java_split

TARGETS = ("int8", "int16", "int32", "int64", "float32", "float64", "boolean", "string")


def casts_of(spec: tuple[str, ...]) -> tuple[tuple[str | None, str], ...]:
    """(field, type), the field None for the whole value. Raises ValueError."""
    found = []
    for each in spec:
        parts = [part.strip() for part in java_split(each)]
        if not parts or len(parts) > 2:
            raise ValueError(f"“{each}” is neither “field:type” nor a type")
        kind = parts[-1].lower()
        if kind not in TARGETS:
            raise ValueError(f"“{parts[-1]}” is no type to cast to{nearest(kind, TARGETS)}")
        found.append((parts[0] if len(parts) == 2 else None, kind))
    if not found:
        raise ValueError("is empty: say “field:type”, or a type for the whole value")
    if len(found) > 1 and any(field is None for field, _ in found):
        raise ValueError("a type for the whole value must stand alone")
    return tuple(found)


def _checked(spec: tuple[str, ...]) -> tuple[str, ...]:
    casts_of(spec)
    return spec


class CastConfig(TransformConfig):
    """What to cast."""

    spec: Annotated[Names, AfterValidator(_checked)] = Field(
        description="Fields and their new types, as `field:type,…`; or one type, for the whole key or value. Types: "
        "int8, int16, int32, int64, float32, float64, boolean, string. Bytes can only become string (Base64).",
        json_schema_extra=HIGH)
    replace_null: Switch = Field(True, alias="replace.null.with.default", description=NULL_DOC,
                                 json_schema_extra=MEDIUM)


class Cast(Sided[CastConfig]):
    """Casts by Java's rules: numbers that are too wide lose their upper bits, text is parsed."""

    Config = CastConfig
    purpose = "casting"

    @cached_property
    def casts(self) -> dict[str | None, str]:
        return dict(casts_of(self.config.spec))

    def work(self, records: Records, column: Column, bad: Bad) -> Records:
        if None in self.casts:
            return self.put(records, self._whole(column, self.casts[None], bad))
        fields, shape = required(column, self.purpose), column.shape
        if shape is not None:
            if shape.default is not None:
                raise Refused("a struct with a default value cannot be cast")
            fields = settled(fields, self.config.replace_null, bad)
        for name, target in self.casts.items():
            assert name is not None
            if name in fields:
                fields[name] = self._field(name, fields[name], target, bad)
            elif shape is None:
                fields[name] = Column(pa.nulls(len(column)))
        kept = None if shape is None else basics(shape).but(optional=shape.optional)
        return self.put(records, struct_of(fields, len(column), kept))

    def _field(self, name: str, column: Column, target: str, bad: Bad) -> Column:
        made, shape = cast(column, target, bad, f"the field “{name}”"), column.shape
        if shape is not None:
            shape = Shape(target, optional=shape.optional, default=_default(shape, target))
        return Column(made, shape)

    def _whole(self, column: Column, target: str, bad: Bad) -> Column:
        shape = column.shape
        if shape is not None:
            default = _default(shape, target)
            if default is not None and shape.name in (DATE, TIME, TIMESTAMP, DECIMAL):
                raise Refused(f"a {shape.name} with a default value cannot be cast")
            shape = shape.but(type=target, default=default, fields=(), keys=None, values=None)
        return Column(cast(column, target, bad, "the key" if self.key else "the value"), shape)


def _default(shape: Shape, target: str) -> Any:
    """The default value, cast. Raises Refused where that cannot be."""
    if shape.default is None:
        return None
    wrong = Bad()
    made = cast(Column(pa.array([shape.default], arrow_of(shape)), shape), target, wrong, "the default value")
    if wrong:
        raise Refused(wrong[0])
    return made[0].as_py()
