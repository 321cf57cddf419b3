"""Expectations about the type of a column: the one that pandas holds it in, on which the batch's nulls have a say.

Names of types are read as numpy reads them; those that only pandas knows are left to Great Expectations.
"""

from __future__ import annotations

import datetime as dt
import decimal
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.aggregates.aggregate import Aggregate
from headrace.contracts.aggregates.bounds import quoted
from headrace.contracts.kernels import Column, Kernel, is_float, is_text, some, values_judged
from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict
from headrace.lean import numbers_of

Held = Any
"""The type pandas holds a column in: numpy's, or the name of one of its own."""
_NATIVE: Mapping[str, type] = {
    "none": type(None), "bool": bool, "int": int, "long": int, "float": float, "bytes": bytes, "complex": complex,
    "str": str, "string_types": str, "list": list, "dict": dict}
"""Great Expectations' own names, in whatever case."""
_PANDAS: Mapping[str, type] = {"date": dt.date, "datetime": dt.datetime, "time": dt.time, "timedelta": dt.timedelta,
                               "Decimal": decimal.Decimal}
"""Names that Great Expectations finds in a module of pandas, of Python's own types."""
_OBJECT = np.dtype(object)
_EXACT = {"bool", "object", "str", "float32", "float64", "datetime64", "timedelta64",
          *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
          *(f"{kind}64[{unit}]" for kind in ("datetime", "timedelta") for unit in ("s", "ms", "us", "ns"))}
"""Names that pandas reads as these very types."""


def of_type(e: Expectation, schema: pa.Schema) -> Kernel | Aggregate | str:
    """The column's type is the one named, or one of a list. A column that pandas holds as objects is judged value by
    value."""
    several = e.type == "expect_column_values_to_be_in_type_list"
    names = e.kwargs.get("type_list") if several else [e.kwargs.get("type_")]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        return "a type is not a text"
    known = [_classes(n) for n in names]
    unknown = [n for n, classes in zip(names, known, strict=True) if not classes]
    if unknown:
        return f"pandas alone knows whether “{unknown[0]}” is a type"
    field = _field(e, schema)
    if isinstance(field, str):
        return field
    if pa.types.is_boolean(field.type) and field.nullable:
        return "pandas holds true and false as objects as soon as one is missing"
    classes = [c for found in known for c in found]
    kind = _class(field.type)
    if pa.types.is_null(field.type) or pa.types.is_map(field.type):
        return f"the type of a value of {field.type}"
    if kind is not None and (several or names[0] not in ("object", "object_", "O")):
        fits = issubclass(kind, tuple(classes))
        says = (f"{field.name} is ", Column(field.name), f", not of type {', '.join(names)}")
        return Kernel(lambda rows: None if fits else some(pc.is_valid(rows.column(field.name))), says,
                      values_judged(field.name))
    exact = [*classes, *(d for d in map(_read, names) if d is not None)]

    def holds(held: Held) -> bool:
        return isinstance(held, np.dtype) and held in exact if several else _scalar(held) in classes
    return _aggregate(field, holds, lambda held: str(getattr(_scalar(held), "__name__", "Timestamp")))


def to_be(e: Expectation, schema: pa.Schema) -> Kernel | Aggregate | str:
    """The column's type is exactly the one named."""
    name = e.kwargs.get("type_")
    if name not in _EXACT:
        return f"pandas alone knows what type {name!r} is"
    field = _field(e, schema)
    if isinstance(field, str):
        return field
    if name in ("datetime64", "timedelta64"):
        letter = {"d": "M", "t": "m"}[name[0]]
        return _aggregate(field, lambda held: isinstance(held, np.dtype) and held.kind == letter, str)
    wanted = name if name == "str" else np.dtype(name)
    return _aggregate(field, lambda held: bool(held == wanted), str)


def _aggregate(field: pa.Field, holds: Callable[[Held], bool], name: Callable[[Held], str]) -> Aggregate:
    def judge(rows: pa.RecordBatch) -> Verdict:
        held = _held(rows.column(field.name), field.type)
        return Verdict(holds(held), {"observed_value": name(held)})
    return Aggregate(judge, f"the type of {quoted(field.name)} is {{}}")


def _field(e: Expectation, schema: pa.Schema) -> pa.Field | str:
    """The column, or why Great Expectations must say what it is."""
    at = schema.get_field_index(e.columns[0])
    if at < 0:
        return "the column is not there by this very name"
    field = schema.field(at)
    if pa.types.is_boolean(field.type) and e.kwargs.get("row_condition") is not None:
        return "pandas holds true and false as objects as soon as one is missing, in rows left out too"
    if pa.types.is_dictionary(field.type) or pa.types.is_float16(field.type):
        return f"the type pandas holds {field.type} in"
    return field


def _class(type_: pa.DataType) -> type | None:
    """Python's type of the values of a column that pandas holds as objects; None for other columns."""
    t = pa.types
    for test, kind in ((t.is_date32, dt.date), (t.is_decimal, decimal.Decimal), (t.is_time, dt.time),
                       (t.is_binary, bytes), (t.is_large_binary, bytes), (t.is_fixed_size_binary, bytes),
                       (t.is_struct, dict), (t.is_list, np.ndarray), (t.is_large_list, np.ndarray),
                       (t.is_fixed_size_list, np.ndarray)):
        if test(type_):
            return kind
    return None


def _held(array: pa.Array, type_: pa.DataType) -> Held:
    """`type_` is the column's own: a part of a batch may come in another (see `conditions.keep`)."""
    t = pa.types
    if t.is_integer(type_) and (array.null_count or array.type != type_):
        return np.dtype(np.float64)
    if t.is_integer(type_) or is_float(type_):
        return numbers_of(type_)
    if t.is_boolean(type_):
        return _OBJECT if array.null_count else np.dtype(bool)
    if is_text(type_):
        return "str"
    if t.is_timestamp(type_):
        return f"datetime64[{type_.unit}, {type_.tz}]" if type_.tz else np.dtype(f"datetime64[{type_.unit}]")
    return np.dtype(f"timedelta64[{type_.unit}]") if t.is_duration(type_) else _OBJECT


def _scalar(held: Held) -> Any:
    """The type of one value; None for pandas' timestamps with a zone."""
    return held.type if isinstance(held, np.dtype) else str if held == "str" else None


def _read(name: str) -> Any:
    """What numpy says a name is, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.dtype(name)
    except TypeError:
        return None


def _classes(name: str) -> list[type]:
    """The types of values that a name stands for; none for one that only pandas may know."""
    read, native = _read(name), _NATIVE.get(name.lower())
    found = [read.type if read is not None else _PANDAS.get(name), native]
    return [c for c in found if c is not None]
