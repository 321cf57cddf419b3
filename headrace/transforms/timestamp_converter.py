"""TimestampConverter: from one way of writing times to another: text, numbers since 1970, Connect's own types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field, model_validator

from headrace.records import Column, Records, Shape, arrow_of
from headrace.records.shape import DATE, TIME, TIMESTAMP
from headrace.transforms.base import (
    HIGH,
    LOW,
    MEDIUM,
    NULL_DOC,
    Bad,
    Refused,
    Sided,
    Switch,
    Text,
    TransformConfig,
    logical,
)
from headrace.transforms.casting import DAY_MS, milliseconds
from headrace.transforms.dateparse import Reader, readable
from headrace.transforms.dates import format_ms, tokens
from headrace.transforms.fields import basics, canonical, class_of, required, settled, struct_of

PER_SECOND = {"seconds": 1, "milliseconds": 1000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}
SHAPES = {"string": Shape("string"), "unix": Shape("int64"), "Date": logical("int32", DATE),
          "Time": logical("int32", TIME), "Timestamp": logical("int64", TIMESTAMP)}
"""Target → its shape."""
Stripped = BeforeValidator(lambda given: given.strip() if isinstance(given, str) else given)


class TimestampConverterConfig(TransformConfig):
    """What to convert, and to what."""

    field: Text = Field("", description="The field with the time. Left out: the whole key or value.",
                        json_schema_extra=HIGH)
    target: Annotated[Literal["string", "unix", "Date", "Time", "Timestamp"], Stripped] = Field(
        alias="target.type", description="What to convert to: string, unix (a number since 1970), Date, Time or "
        "Timestamp.", json_schema_extra=HIGH)
    format: Text = Field("", description="The pattern of times in text, read or written, as Java's SimpleDateFormat "
                         "has it, in UTC and English.", json_schema_extra=MEDIUM)
    precision: Annotated[Literal["nanoseconds", "microseconds", "milliseconds", "seconds"], Stripped] = Field(
        "milliseconds", alias="unix.precision", description="What numbers since 1970 count, read or written. Inside, "
        "milliseconds are kept.", json_schema_extra=LOW)
    replace_null: Switch = Field(True, alias="replace.null.with.default", description=NULL_DOC,
                                 json_schema_extra=MEDIUM)

    @model_validator(mode="after")
    def _check(self) -> TimestampConverterConfig:
        if self.target == "string" and not self.format:
            raise ValueError("format: is missing: target.type=string needs a pattern such as yyyy-MM-dd'T'HH:mm:ss")
        try:
            tokens(self.format) if self.target == "string" else readable(self.format)
        except ValueError as error:
            raise ValueError(f"format: “{self.format}”: {error}") from None
        return self


class TimestampConverter(Sided[TimestampConverterConfig]):
    """Converts times."""

    Config = TimestampConverterConfig
    nulls = "work"
    purpose = "converting times"

    @cached_property
    def reader(self) -> Reader:
        now = datetime.now(UTC)
        start = datetime(now.year - 80, now.month, min(now.day, 28), tzinfo=UTC)
        return Reader(self.config.format, int(start.timestamp() * 1000))

    def work(self, records: Records, column: Column, bad: Bad) -> Records:
        shape, field = column.shape, self.config.field
        if not field:
            every = pa.repeat(pa.scalar(True), len(column))
            return self.put(records, self._converted(column, every, bad, "the key" if self.key else "the value"))
        if shape is None and not pa.types.is_struct(column.values.type):
            bad.add(column.values.is_valid(), f"there are no fields: it is a {class_of(canonical(column))}")
            return records
        if shape is not None and shape.type != "struct":
            raise Refused(f"a field can be converted in structs only; this is a {shape.type}")
        fields, missing = required(column, self.purpose), column.values.is_null()
        if shape is not None:
            fields = settled(fields, self.config.replace_null, bad, pc.invert(missing))
        if field in fields:
            fields[field] = self._converted(fields[field], pc.invert(missing), bad, f"the field “{field}”")
        elif shape is None:
            fields[field] = Column(pa.nulls(len(column)))
        if shape is not None:
            shape = basics(shape).but(optional=shape.optional, default=self._default(shape))
        return self.put(records, struct_of(fields, len(column), shape, missing=missing))

    def _default(self, shape: Shape) -> Any:
        if shape.default is None:
            return None
        wrong = Bad()
        fields = required(Column(pa.array([shape.default], arrow_of(shape)), shape), self.purpose)
        fields = settled(fields, self.config.replace_null, wrong)
        if self.config.field in fields:
            fields[self.config.field] = self._converted(fields[self.config.field], pa.array([True]), wrong,
                                                        "the default value")
        if wrong:
            raise Refused(wrong[0])
        return struct_of(fields, 1, basics(shape)).values[0].as_py()

    def _converted(self, column: Column, present: pa.Array, bad: Bad, what: str) -> Column:
        """The times of a column. `present`: where there is a record to convert, even if the time in it is null."""
        column = canonical(column)
        values, target = column.values, self.config.target
        made = self._instants(column, present, bad, what)
        shape = SHAPES[target].but(optional=column.shape.optional) if column.shape else None
        if made is None:
            return Column(pa.nulls(len(values), arrow_of(SHAPES[target])), shape)
        return Column(self._written(made, bad, what), shape)

    def _instants(self, column: Column, present: pa.Array, bad: Bad, what: str) -> pa.Array | None:
        """Milliseconds since 1970; None where nothing is a time."""
        values, found = column.values, class_of(column)
        if column.shape is not None and found not in ("Date", "String", "Long"):
            bad.add(present, f"{what} is a {column.shape.type}, which holds no time: it must be a string, an int64, a "
                    "Date, a Time or a Timestamp")
            return None
        if values.null_count == len(values):
            return None
        if found == "Date":
            return milliseconds(values)
        if found == "Long":
            return _from_unix(values, PER_SECOND[self.config.precision])
        if found != "String" or not self.config.format:
            bad.add(values.is_valid(), f"{what} is a {found}, which holds no time" if found != "String" else
                    f"{what} is text, and there is no `format` to read it with")
            return None
        try:
            readable(self.config.format)
        except ValueError as error:
            raise Refused(f"{what} is text, and the pattern {self.config.format} cannot read: {error}") from None
        made, wrong = self.reader.read(values)
        for at, reason in wrong.items():
            bad.setdefault(at, f"{what}: {reason}")
        return made

    def _written(self, instants: pa.Array, bad: Bad, what: str) -> pa.Array:
        if self.config.target == "string":
            return format_ms(self.config.format, instants)
        return WRITERS[self.config.target](instants, PER_SECOND[self.config.precision], bad, what)


def _held(values: pa.Array) -> tuple[Any, Any]:
    mask = np.asarray(values.is_null()) if values.null_count else None
    return (values.fill_null(0) if values.null_count else values).to_numpy(zero_copy_only=False), mask


def _from_unix(values: pa.Array, per_second: int) -> pa.Array:
    held, mask = _held(values)
    return pa.array(_scaled(held, 1000, per_second), mask=mask)


def _scaled(held: Any, to: int, of: int) -> Any:
    """From `of` to `to` units a second, as Java's TimeUnit: towards zero, held at the ends of 64 bits."""
    if of >= to:
        by = of // to
        return held // by + ((held % by != 0) & (held < 0))
    by = to // of
    most = (2**63 - 1) // by
    made = np.clip(held, -most, most) * by
    return np.where(held > most, 2**63 - 1, np.where(held < -most, -2**63, made))


def _unix(instants: pa.Array, per_second: int, bad: Bad, what: str) -> pa.Array:
    held, mask = _held(instants)
    return pa.array(_scaled(held, per_second, 1000), mask=mask)


def _date(instants: pa.Array, per_second: int, bad: Bad, what: str) -> pa.Array:
    held, mask = _held(instants)
    days = held // DAY_MS
    bad.add(np.abs(days) >= 2**31, f"{what} is beyond the dates that can be held")
    return pa.array(days.astype(np.int32), pa.date32(), mask=mask)


def _time(instants: pa.Array, per_second: int, bad: Bad, what: str) -> pa.Array:
    held, mask = _held(instants)
    return pa.array((held % DAY_MS).astype(np.int32), pa.time32("ms"), mask=mask)


def _timestamp(instants: pa.Array, per_second: int, bad: Bad, what: str) -> pa.Array:
    return instants.cast(pa.timestamp("ms", "UTC"))


WRITERS: Mapping[str, Callable[[pa.Array, int, Bad, str], pa.Array]] = {
    "unix": _unix, "Date": _date, "Time": _time, "Timestamp": _timestamp}
