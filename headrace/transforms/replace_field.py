"""ReplaceField: leaves fields out, and renames those that stay."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field

from headrace.records import Column, Records
from headrace.transforms.base import (
    MEDIUM,
    NULL_DOC,
    Bad,
    Names,
    Refused,
    Sided,
    Switch,
    TransformConfig,
    distinct,
)
from headrace.transforms.casting import DAY_MS, milliseconds
from headrace.transforms.fields import added, canonical, class_of, java_order, renamed, required, settled


def pairs(mappings: tuple[str, ...]) -> tuple[str, ...]:
    """Checks that each is `old:new`. Raises ValueError."""
    for each in mappings:
        if len(java_split(each)) != 2:
            raise ValueError(f"“{each}” is no pair “old name:new name”")
    return mappings


def java_split(text: str) -> list[str]:
    """`text.split(":")` of Java, which leaves empty parts at the end out."""
    parts = text.split(":")
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return [] if parts == [""] and text else parts


class ReplaceFieldConfig(TransformConfig):
    """What stays, and under which name."""

    exclude: Annotated[Names, AfterValidator(distinct)] = Field(
        (), description="Fields to leave out. Counts for more than `include`.", json_schema_extra=MEDIUM)
    include: Annotated[Names, AfterValidator(distinct)] = Field(
        (), description="The only fields to keep. Left out: all.", json_schema_extra=MEDIUM)
    renames: Annotated[Names, AfterValidator(pairs)] = Field(
        (), description="Fields to rename, as `old:new,…`.", json_schema_extra=MEDIUM)
    replace_null: Switch = Field(True, alias="replace.null.with.default", description=NULL_DOC,
                                 json_schema_extra=MEDIUM)


class ReplaceField(Sided[ReplaceFieldConfig]):
    """Filters and renames fields."""

    Config = ReplaceFieldConfig
    purpose = "replacing fields"

    @cached_property
    def renames(self) -> dict[str, str]:
        return {each[0]: each[1] for each in map(java_split, self.config.renames)}

    @cached_property
    def back(self) -> dict[str, str]:
        """New name → old. Of several old names Kafka Connect finds the last of its hash table."""
        return {self.renames[old]: old for old in java_order(list(self.renames))}

    def work(self, records: Records, column: Column, bad: Bad) -> Records:
        fields = required(column, self.purpose)
        kept = [name for name in fields if name not in self.config.exclude
                and (not self.config.include or name in self.config.include)]
        made: dict[str, Column] = {}
        if column.shape is None:
            if len({self.renames.get(name, name) for name in kept}) < len(kept):
                kept = [name for name in java_order(list(fields)) if name in kept]  # the last of one name counts
            made = {self.renames.get(name, name): fields[name] for name in kept}
        else:
            for name in kept:
                added(made, self.renames.get(name, name), fields[name])
            made = {name: self._found(name, each, fields, bad) for name, each in made.items()}
        return self.put(records, renamed(made, column.shape, len(column)))

    def _found(self, name: str, meant: Column, fields: dict[str, Column], bad: Bad) -> Column:
        """The values that Kafka Connect puts into the field: those of the field whose new name this is, by `renames`
        alone, even if another field has the name already."""
        source = self.back.get(name, name)
        if source not in fields:
            raise Refused(f"`renames` calls “{source}” “{name}”; there is a “{name}”, and no “{source}”")
        found = fields[source]
        if found is meant or found.shape is None or meant.shape is None:
            return settled({name: meant}, self.config.replace_null, bad)[name]
        default = found.shape.default if self.config.replace_null else None
        values: Any = found.values
        if default is not None and values.null_count:
            values = pc.coalesce(values, pa.scalar(default, values.type))
        if class_of(canonical(found)) == class_of(canonical(meant)) == "Date":
            values = _moved(values, meant.values.type, bad)
        elif values.type != meant.values.type or (meant.shape.type == "struct" and meant.shape != found.shape):
            bad.add(values.is_valid(), f"`renames` puts “{source}” in the place of “{name}”, which has another type")
            values = pa.nulls(len(values), meant.values.type)
        return settled({name: Column(values, meant.shape)}, False, bad)[name]


def _moved(values: pa.Array, kind: pa.DataType, bad: Bad) -> pa.Array:
    """Dates, times of day or timestamps as another of the three: all are one class in Java."""
    instants = milliseconds(values)
    if pa.types.is_timestamp(kind):
        return instants.cast(kind)
    days = pc.floor(pc.divide(instants.cast(pa.float64(), safe=False), float(DAY_MS))).cast(pa.int64())
    rest = pc.subtract(instants, pc.multiply(days, DAY_MS))
    date = pa.types.is_date32(kind)
    bad.add(pc.not_equal(rest if date else days, 0), "`renames` puts a time in the place of a date, or of a time of "
            "day")
    return pc.cast(days if date else rest, pa.int32(), safe=False).cast(kind)
