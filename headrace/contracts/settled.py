"""Expectations about the schema, in a stream: settled once, before any record comes."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from headrace.contracts.aggregates import Aggregate
from headrace.contracts.compilers import compiled
from headrace.contracts.suite import Expectation
from headrace.contracts.whole import Whole


def settle(expectations: Sequence[Expectation], schema: pa.Schema) -> None:
    """Judges what depends on the schema alone, on batches with and without nulls. Raises SuiteError where the schema
    does not fulfil an expectation, or where its verdict would change with the nulls of a batch."""
    for e in expectations:
        made = compiled(e, schema)
        plain, nulls = (made.judge(rows).success if isinstance(made, Aggregate) else
                        Whole([e]).judge(rows)[e.id].success for rows in samples(schema))
        if plain and nulls:
            continue
        if plain or nulls:
            e.wrong("its verdict would change with every batch that has a null: pandas then holds the column in "
                    "another type", "leave it out, since the Avro schema already fixes the type, or list both types")
        types = ", ".join(f"{c} is {schema.field(c).type}" for c in e.columns if c in schema.names)
        e.wrong(f"the schema does not fulfil it{f': {types}' if types else ''}", "mend the expectation or the schema")


def samples(schema: pa.Schema) -> list[pa.RecordBatch]:
    """Two batches of a schema: one with a value everywhere, and one with a null besides wherever one may be."""
    first, second = [], []
    for field in schema:
        value = _value(field.type)
        first.append(pa.array([value, value], type=field.type))
        second.append(pa.array([value, None if field.nullable else value], type=field.type))
    return [pa.RecordBatch.from_arrays(arrays, schema=schema) for arrays in (first, second)]


def _value(type_: pa.DataType) -> Any:
    """Some value of a type."""
    t = pa.types
    if t.is_struct(type_):
        return {f.name: _value(f.type) for f in type_}
    if t.is_fixed_size_binary(type_):
        return b"a" * type_.byte_width
    table: list[tuple[Any, Any]] = [
        (t.is_boolean, True), (t.is_integer, 1), (t.is_floating, 1.5), (t.is_decimal, decimal.Decimal(1)),
        (t.is_timestamp, dt.datetime(2013, 2, 8, tzinfo=dt.UTC if getattr(type_, "tz", None) else None)),
        (t.is_date, dt.date(2013, 2, 8)), (t.is_time, dt.time(17, 30)), (t.is_duration, dt.timedelta(1)),
        (t.is_binary, b"a"), (t.is_large_binary, b"a"), (t.is_list, []), (t.is_map, [])]
    return next((value for test, value in table if test(type_)), None if t.is_null(type_) else "a")
