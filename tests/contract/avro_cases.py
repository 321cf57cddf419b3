"""Generated Avro schemas and records, and values of both sides brought into one comparable form."""

from __future__ import annotations

import io
import json
import math
import struct
import uuid
import warnings
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import avro.io
import avro.schema
import pyarrow as pa
from hypothesis import strategies as st

from headrace.codec.types import Type

LOGICAL = [
    {"type": "int", "logicalType": "date"}, {"type": "int", "logicalType": "time-millis"},
    {"type": "long", "logicalType": "time-micros"}, {"type": "string", "logicalType": "uuid"},
    *({"type": "long", "logicalType": f"{local}timestamp-{unit}"}
      for local in ("", "local-") for unit in ("millis", "micros", "nanos")),
]
EPOCH = datetime(1970, 1, 1)
PER_UNIT = {"millis": timedelta(milliseconds=1), "micros": timedelta(microseconds=1)}
FRAME = b"\0\0\0\0\7"


class Names:
    """Names for records, enums, fixed: no two alike in a schema."""

    def __init__(self) -> None:
        self.count = 0

    def new(self) -> str:
        self.count += 1
        return f"N{self.count}"


@st.composite
def decimals(draw: Any, names: Names) -> Any:
    precision = draw(st.sampled_from([1, 4, 9, 18, 19, 28, 38, 40, 76]))
    scale = draw(st.integers(0, precision))
    logical = {"logicalType": "decimal", "precision": precision, "scale": scale}
    if draw(st.booleans()):
        return {"type": "bytes", **logical}
    size = (10**precision).bit_length() // 8 + 1 + draw(st.integers(0, 2))
    return {"type": "fixed", "name": names.new(), "size": size, **logical}


@st.composite
def types(draw: Any, names: Names, depth: int, *, union: bool = True) -> Any:
    """A type as JSON. `union`: whether it may be one."""
    simple = st.sampled_from(["null", "boolean", "int", "long", "float", "double", "bytes", "string", *LOGICAL])
    kinds = ["simple"] * 3 + ["decimal", "fixed", "enum"] + (["array", "map", "record"] if depth else [])
    kind = draw(st.sampled_from(kinds + (["nullable", "union"] if union else [])))
    match kind:
        case "decimal":
            return draw(decimals(names))
        case "fixed":
            special = draw(st.sampled_from([None, ("uuid", 16), ("duration", 12)]))
            size = special[1] if special else draw(st.integers(1, 20))
            return {"type": "fixed", "name": names.new(), "size": size,
                    **({"logicalType": special[0]} if special else {})}
        case "enum":
            return {"type": "enum", "name": names.new(), "symbols": ["A", "B", "C"][:draw(st.integers(1, 3))]}
        case "array":
            return {"type": "array", "items": draw(types(names, depth - 1))}
        case "map":
            return {"type": "map", "values": draw(types(names, depth - 1))}
        case "record":
            return draw(records(names, depth - 1))
        case "nullable" | "union":
            count = 1 if kind == "nullable" else draw(st.integers(2, 3))
            branches: list[Any] = []
            for _ in range(count):
                branch = draw(types(names, depth, union=False))
                twins = _tag(branch) in map(_tag, branches) or (_moment(branch) and any(map(_moment, branches)))
                if branch != "null" and not twins:
                    branches.append(branch)
            at = draw(st.integers(0, len(branches)))
            if kind == "nullable" or draw(st.booleans()) or not branches:
                branches.insert(at, "null")
            return branches
    return draw(simple)


def _tag(branch: Any) -> str:
    """What no two branches of a generated union share. Avro allows two records; the package, which is given bare
    values, would take the wrong one when it writes."""
    if isinstance(branch, str):
        return branch
    return {"map": "dict", "record": "dict", "fixed": "bytes"}.get(branch["type"], str(branch["type"]))


def _moment(branch: Any) -> bool:
    """A date or a timestamp: to the package a datetime is a date too, and beside a timestamp it takes it for one."""
    kind = str(branch.get("logicalType", "")) if isinstance(branch, dict) else ""
    return kind == "date" or "timestamp" in kind


@st.composite
def records(draw: Any, names: Names, depth: int) -> Any:
    name = names.new()
    fields = draw(st.lists(types(names, depth), min_size=0 if depth < 2 else 1, max_size=4))
    return {"type": "record", "name": name, "fields": [{"name": f"f{i}", "type": t} for i, t in enumerate(fields)]}


schemas = st.builds(Names).flatmap(lambda names: records(names, 2))

_EXACT = Context(prec=200)
PROMOTED = {"int": ["int", "long", "float", "double"], "long": ["long", "float", "double"],
            "float": ["float", "double"]}
ADDED = [("int", 7), ("string", "é"), (["null", "int"], None), ("double", 1.5), ("boolean", True),
         ({"type": "array", "items": "string"}, ["x"]), ({"type": "map", "values": "long"}, {"k": 3})]


def bare(written: Any) -> Any:
    """The same type without its logical types."""
    if isinstance(written, list):
        return [bare(w) for w in written]
    if not isinstance(written, dict):
        return written
    plain = {k: bare(v) for k, v in written.items() if k not in ("logicalType", "precision", "scale")}
    return plain["type"] if set(plain) == {"type"} else plain


@st.composite
def evolved(draw: Any, written: Any, *, union: bool = True) -> Any:
    """A schema that reads what `written` wrote: fields dropped, added, in another order; numbers widened; made
    nullable; symbols added."""
    if isinstance(written, list):
        return written
    if isinstance(written, str):
        wider: Any = draw(st.sampled_from(PROMOTED.get(written, [written])))
        return ["null", wider] if union and written != "null" and draw(st.booleans()) else wider
    match written["type"]:
        case "enum":
            return {**written, "symbols": draw(st.permutations([*written["symbols"], "Z"]))}
        case "array":
            return {**written, "items": draw(evolved(written["items"]))}
        case "map":
            return {**written, "values": draw(evolved(written["values"]))}
        case "record":
            kept = [{**f, "type": draw(evolved(f["type"]))} for f in written["fields"] if draw(st.integers(0, 3))]
            new = [{"name": f"new{i}", "type": t, "default": d} for i, (t, d) in enumerate(ADDED)
                   if not draw(st.integers(0, 4))]
            return {**written, "fields": draw(st.permutations(kept + new))}
    return written


INSTANTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
NANOS = st.integers(-(2**63), 2**63 - 1)


def values(type_: Type) -> st.SearchStrategy[Any]:
    """Values that the reference package can write."""
    match type_.logical:
        case "decimal":
            top = 10**type_.precision - 1
            return st.integers(-top, top).map(lambda n: Decimal(n).scaleb(-type_.scale, _EXACT))
        case "date":
            return st.dates()
        case "time-millis" | "time-micros":
            return st.times()
        case "timestamp-millis" | "timestamp-micros":
            return INSTANTS.map(lambda t: t.replace(tzinfo=UTC))
        case "local-timestamp-millis":
            return INSTANTS.map(lambda t: (t - EPOCH) // PER_UNIT["millis"])
        case "local-timestamp-micros":
            return INSTANTS.map(lambda t: (t - EPOCH) // PER_UNIT["micros"])
        case "timestamp-nanos" | "local-timestamp-nanos":
            return NANOS
        case "uuid" if type_.kind == "string":
            return st.uuids().map(str)
    match type_.kind:
        case "record":
            return st.fixed_dictionaries({f.name: values(f.type) for f in type_.fields})
        case "array":
            return st.lists(values(type_.item), max_size=4)
        case "map":
            return st.dictionaries(st.text(max_size=5), values(type_.item), max_size=4)
        case "union":
            return st.one_of([values(b) for b in type_.branches])
        case "enum":
            return st.sampled_from(type_.symbols)
        case "fixed":
            return st.binary(min_size=type_.size, max_size=type_.size)
    return {"null": st.none(), "boolean": st.booleans(), "int": st.integers(-2**31, 2**31 - 1),
            "long": st.integers(-2**63, 2**63 - 1), "float": st.floats(width=32), "double": st.floats(),
            "bytes": st.binary(max_size=20), "string": st.text(max_size=20)}[type_.kind]


def reference_schema(written: Any) -> avro.schema.Schema:
    """Without the logical type uuid: the package fails on a union of it and other things; the bytes are the same."""
    text = json.dumps(written).replace('"logicalType": "uuid"', '"doc": "a uuid"')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of logical types that the package does not know
        return avro.schema.parse(text)


def reference_write(schema: avro.schema.Schema, value: Any) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        avro.io.DatumWriter(schema).write(value, avro.io.BinaryEncoder(out))
    return FRAME + out.getvalue()


def reference_read(writer: avro.schema.Schema, payload: bytes, reader: avro.schema.Schema | None = None) -> Any:
    """The record; raises when the package refuses it, or when bytes are left over."""
    source = io.BytesIO(payload[len(FRAME):])
    found = avro.io.DatumReader(writer, reader).read(avro.io.BinaryDecoder(source))
    if source.read(1):
        raise ValueError("bytes left over")
    return found


def listed(rows: pa.RecordBatch) -> list[Any]:
    """The rows as Python values; nanoseconds, for which Python has no type, as numbers."""
    return _values_of(rows.to_struct_array()) if rows.num_columns else [{}] * rows.num_rows


def _values_of(column: pa.Array) -> list[Any]:
    type_, valid = column.type, column.is_valid().to_pylist()
    if pa.types.is_timestamp(type_) and type_.unit == "ns":
        return column.cast(pa.int64()).to_pylist()
    if pa.types.is_struct(type_) and type_.num_fields:
        rows = zip(*map(_values_of, column.flatten()), strict=True)
        names = [f.name for f in type_]
        return [dict(zip(names, r, strict=True)) if v else None for v, r in zip(valid, rows, strict=True)]
    if pa.types.is_map(type_):
        return [[tuple(pair.values()) for pair in _values_of(one.values)] if v else None
                for v, one in zip(valid, column, strict=True)]
    if pa.types.is_list(type_):
        return [_values_of(one.values) if v else None for v, one in zip(valid, column, strict=True)]
    return column.to_pylist()


def same(type_: Type, theirs: Any, ours: Any) -> bool:
    """Whether the reference's value is what `listed` gives of ours. A union's branch is taken from ours: the package
    gives bare values, of which an int may belong to several branches."""
    if ours is None or theirs is None:
        return ours is theirs
    match type_.logical:
        case "uuid" if type_.kind == "fixed":
            return bool(theirs == uuid.UUID(ours).bytes)
        case "duration":
            return bool(theirs == struct.pack("<III", ours["months"], ours["days"], ours["millis"]))
        case "timestamp-nanos" | "local-timestamp-nanos":
            return bool(theirs == ours)  # see `listed`
        case "local-timestamp-millis" | "local-timestamp-micros":  # plain numbers to the package
            return bool(EPOCH + theirs * PER_UNIT[type_.logical.rpartition("-")[2]] == ours)
    match type_.kind:
        case "union" if len(type_.some) == 1:
            return same(type_.some[0], theirs, ours)
        case "union":
            [(name, held)] = [(n, v) for n, v in ours.items() if v is not None]
            return same(type_.some[type_.members.index(name)], theirs, held)
        case "record":
            return set(theirs) == set(ours) and all(same(f.type, theirs[f.name], ours[f.name]) for f in type_.fields)
        case "array":
            return len(theirs) == len(ours) and all(same(type_.item, t, o) for t, o in zip(theirs, ours, strict=True))
        case "map":
            held = dict(ours)  # of keys that come twice the last one counts, as in the package
            return set(theirs) == set(held) and all(same(type_.item, v, held[k]) for k, v in theirs.items())
        case "float" | "double":  # a number promoted to float has all its digits in Python
            width = "<f" if type_.kind == "float" else "<d"
            return (math.isnan(theirs) and math.isnan(ours)) or struct.pack(width, theirs) == struct.pack(width, ours)
        case "int" | "long" if isinstance(theirs, float):  # fastavro takes the first branch of a union that will do,
            return float(ours) == theirs  # we the one of the same type
        case "string" if isinstance(theirs, bytes):
            return bool(ours.encode() == theirs)
        case "bytes" if isinstance(theirs, str):
            return bool(ours == theirs.encode())
    return type(theirs) is type(ours) and bool(theirs == ours)
