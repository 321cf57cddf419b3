"""InsertField: where and when a record came from, or a fixed text, as fields of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from headrace.records import Column, Records, Shape, arrow_of
from headrace.records.shape import TIMESTAMP
from headrace.transforms.base import (
    MEDIUM,
    NULL_DOC,
    Bad,
    Refused,
    Sided,
    Switch,
    Text,
    TransformConfig,
    logical,
    split,
)
from headrace.transforms.fields import added, renamed, required, settled

SUFFIX = " A `!` behind the name makes it a required field, a `?` (or nothing) an optional one."


class InsertFieldConfig(TransformConfig):
    """Which fields to insert."""

    topic: Text | None = Field(None, alias="topic.field", json_schema_extra=MEDIUM,
                               description="The field for the record's topic." + SUFFIX)
    partition: Text | None = Field(None, alias="partition.field", json_schema_extra=MEDIUM,
                                   description="The field for the record's partition." + SUFFIX)
    offset: Text | None = Field(None, alias="offset.field", json_schema_extra=MEDIUM, description=(
        "The field for the record's offset; of sinks only." + SUFFIX))
    timestamp: Text | None = Field(None, alias="timestamp.field", json_schema_extra=MEDIUM,
                                   description="The field for the record's time." + SUFFIX)
    static: Text | None = Field(None, alias="static.field", json_schema_extra=MEDIUM,
                                description="The field for a fixed text." + SUFFIX)
    static_value: Text | None = Field(None, alias="static.value", json_schema_extra=MEDIUM,
                                      description="That fixed text.")
    replace_null: Switch = Field(True, alias="replace.null.with.default", description=NULL_DOC,
                                 json_schema_extra=MEDIUM)

    @model_validator(mode="after")
    def _check(self) -> InsertFieldConfig:
        if all(each is None for each in (self.topic, self.partition, self.offset, self.timestamp, self.static)):
            raise ValueError("static.field: no field to insert is named: set topic.field, partition.field, "
                             "offset.field, timestamp.field or static.field")
        if self.static is not None and self.static_value is None:
            raise ValueError("static.value: is missing; it is what static.field is filled with")
        return self


class InsertField(Sided[InsertFieldConfig]):
    """Inserts fields. Schemaless, one of that name is overwritten, and what a record does not have is left out."""

    Config = InsertFieldConfig
    purpose = "inserting fields"

    @cached_property
    def wanted(self) -> tuple[tuple[str, str, bool], ...]:
        """(what, name, optional)"""
        named = ((what, getattr(self.config, what))
                 for what in ("topic", "partition", "offset", "timestamp", "static"))
        return tuple((what, name[:-1] if name.endswith(("?", "!")) else name, not name.endswith("!"))
                     for what, name in named if name is not None)

    def parts(self, records: Records) -> Sequence[Records]:
        if self.side(records).shape is None and self.config.timestamp is not None:
            return split(records, records.timestamps_ms >= 0)
        return (records,)

    def work(self, records: Records, column: Column, bad: Bad) -> Records:
        fields = required(column, self.purpose)
        if column.shape is None:
            for _, name, made in self._made(records, schemaless=True):
                fields[name] = Column(made.values)
        else:
            fields = settled(fields, self.config.replace_null, bad)
            for what, name, made in self._made(records, schemaless=False):
                added(fields, name, made)
                if made.values.null_count and made.shape is not None and not made.shape.optional:
                    bad.add(made.values.is_null(), f"the record has no {what} for the required field “{name}”")
        return self.put(records, renamed(fields, column.shape, len(column)))

    def _made(self, records: Records, *, schemaless: bool) -> Iterator[tuple[str, str, Column]]:
        for what, name, optional in self.wanted:
            shape = SHAPES[what].but(optional=optional)
            values = self._values(what, records, shape, schemaless)
            if values is not None:
                yield what, name, Column(values, shape)

    def _values(self, what: str, records: Records, shape: Shape, schemaless: bool) -> pa.Array | None:
        """The inserted column. None: schemaless, and there is no such thing."""
        n = len(records)
        if what in ("topic", "static"):
            return pa.repeat(pa.scalar(records.topic if what == "topic" else self.config.static_value, pa.string()), n)
        if what == "timestamp":
            if schemaless:
                return None if n and records.timestamps_ms[0] < 0 else pa.array(records.timestamps_ms)
            return _nullable(records.timestamps_ms).cast(arrow_of(shape))
        found = records.partitions if what == "partition" else records.offsets
        if found is not None:
            return pa.array(found).cast(arrow_of(shape))
        if what == "offset":
            raise Refused("only records of a sink have an offset; leave offset.field out in a source")
        return None if schemaless else pa.nulls(n, arrow_of(shape))


def _nullable(times: Any) -> pa.Array:
    missing = times < 0
    return pa.array(times, pa.int64(), mask=missing) if missing.any() else pa.array(times.astype(np.int64, copy=False))


SHAPES = {"topic": Shape("string"), "static": Shape("string"), "partition": Shape("int32"), "offset": Shape("int64"),
          "timestamp": logical("int64", TIMESTAMP)}
